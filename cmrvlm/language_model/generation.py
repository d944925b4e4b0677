"""Decoding: what several prompts share is read once, and all prompts are answered as one batch."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import DynamicCache

from cmrvlm.errors import CmrvlmError
from cmrvlm.language_model.answer_rules import Rule
from cmrvlm.language_model.attention_mask import Layout, behind_images
from cmrvlm.language_model.fusion import fill_image_places
from cmrvlm.language_model.network import LanguageModel


@dataclass(frozen=True)
class Prompts:
    """Embedded prompts, padded on the left, with the images that several of them are about only once.

    Attributes:
        images: (G, P, D) begin mark and images of each group.
        images_valid: (G, P) true for tokens.
        questions: (R, Q, D) what stands behind them in each prompt.
        questions_valid: (R, Q) true for tokens; at least one in each row.
        groups: (R,) the images that a prompt is about.
    """

    images: Tensor
    images_valid: Tensor
    questions: Tensor
    questions_valid: Tensor
    groups: Tensor

    def rows(self, chosen: Sequence[int]) -> Prompts:
        """Some of the prompts, in the given order."""
        at = torch.tensor(chosen, device=self.groups.device)
        return replace(
            self,
            questions=self.questions[at],
            questions_valid=self.questions_valid[at],
            groups=self.groups[at],
        )


def left_padded(
    rows: Sequence[Sequence[int]], pad_id: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Token ids (R, L) with padding on the left, and (R, L) true for tokens."""
    longest = max(len(row) for row in rows)
    ids = torch.tensor([[pad_id] * (longest - len(row)) + list(row) for row in rows], device=device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return ids, torch.arange(longest, device=device)[None] >= longest - lengths[:, None]


def embedded(
    llm: LanguageModel,
    image_id: int,
    tokens: Sequence[Tensor],
    prompts: Sequence[Sequence[int]],
    groups: Sequence[Hashable],
) -> Prompts:
    """Prompts with the images of each group once.

    Args:
        llm: Language model.
        image_id: Token id of an image place.
        tokens: Image tokens (n, D) of each prompt.
        prompts: Token ids.
        groups: What images each prompt is about; prompts of a group have the same image tokens.
    """
    device, numbers = (
        tokens[0].device,
        {group: number for number, group in enumerate(dict.fromkeys(groups))},
    )
    firsts = [groups.index(group) for group in numbers]
    heads = [
        1 + list(prompt).count(image_id) for prompt in prompts
    ]  # the begin mark is shared like the images
    pad_id = prompts[0][0]  # the begin mark is no image place
    images, images_valid = left_padded(
        [prompts[row][: heads[row]] for row in firsts], pad_id, device
    )
    questions, valid = left_padded(
        [own[head:] for own, head in zip(prompts, heads, strict=True)], pad_id, device
    )
    filled = fill_image_places(llm.embed(images), images, image_id, [tokens[row] for row in firsts])
    return Prompts(
        filled,
        images_valid,
        llm.embed(questions),
        valid,
        torch.tensor([numbers[group] for group in groups], device=device),
    )


class Decoding:
    """Prompts with what has been decoded behind them: the state between two tokens.

    Args:
        llm: Language model.
        prompts: R prompts; what several of them share is read once.

    Attributes:
        logits: (R, V) of the next token of each row.
    """

    def __init__(self, llm: LanguageModel, prompts: Prompts) -> None:
        self.llm, self.cache = llm, DynamicCache(config=llm.network.config)
        lengths = prompts.images_valid.sum(dim=1)
        llm.hidden(
            prompts.images, Layout.of_rows(prompts.images_valid, lengths, lengths), self.cache
        )
        self.cache.batch_select_indices(prompts.groups)  # each prompt goes on behind its own copy
        before, valid = prompts.images_valid[prompts.groups], prompts.questions_valid
        places = lengths[prompts.groups][:, None] + (valid.long().cumsum(dim=1) - 1).clamp(min=0)
        self._seen = torch.cat([before, valid], dim=1)  # (R, places in the cache)
        mask = behind_images(before, valid, llm.attention) if llm.packs else self._seen
        self.logits = llm.logits(llm.go_on(prompts.questions, mask, places, self.cache)[:, -1])

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows alone, in this order; a row may come several times."""
        self.cache.batch_select_indices(rows)
        self._seen = self._seen[rows]

    def add(self, tokens: Tensor) -> None:
        """Read the next token (R,) of each row."""
        places = self._seen.sum(dim=1)[:, None]
        self._seen = torch.cat([self._seen, torch.ones_like(self._seen[:, :1])], dim=1)
        # A new token reads all that is before it.
        mask = self._seen[:, None, None, :] if self.llm.packs else self._seen
        hidden = self.llm.go_on(self.llm.embed(tokens[:, None]), mask, places, self.cache)
        self.logits = self.llm.logits(hidden[:, -1])


Choice = Callable[[Tensor], Tensor]


def most_likely(logits: Tensor) -> Tensor:
    """The likeliest token (R,) of logits (R, V)."""
    return logits.argmax(dim=-1)


class Sampling:
    """Draws tokens from the likeliest ones that together have a share of the probability (Holtzman et al., ICLR 2020).

    Args:
        temperature: Below 1 likely tokens become likelier.
        top_p: That share.
        seed: Of the draws.
    """

    def __init__(self, temperature: float = 0.7, top_p: float = 0.9, seed: int = 0) -> None:
        if temperature <= 0 or not 0 < top_p <= 1:
            raise CmrvlmError(
                f"temperature {temperature} and top_p {top_p} cannot be drawn with",
                field="decoding",
                remedy="Use a temperature above 0, and a top_p above 0 and at most 1.",
            )
        self.temperature, self.top_p = temperature, top_p
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, logits: Tensor) -> Tensor:
        """A token (R,) for each row of logits (R, V)."""
        shares, order = torch.softmax(logits.float().cpu() / self.temperature, dim=-1).sort(
            dim=-1, descending=True
        )
        before = shares.cumsum(dim=-1) - shares
        drawn = torch.multinomial(
            shares.masked_fill(before >= self.top_p, 0.0), 1, generator=self.generator
        )
        return order.gather(1, drawn)[:, 0].to(logits.device)


@torch.no_grad()
def generate(
    llm: LanguageModel,
    prompts: Prompts,
    end_id: int,
    max_new_tokens: int,
    rules: Sequence[Rule | None] = (),
    choose: Choice = most_likely,
) -> list[list[int]]:
    """Answers, token by token.

    Rows that have ended are taken out of the batch, so that one long answer does not keep all of them running.

    Args:
        llm: Language model.
        prompts: R prompts.
        end_id: Token that ends an answer.
        max_new_tokens: Longest answer of a row whose rule does not say how long it is.
        rules: What each row may say, None for anything; they are used up.
        choose: Next tokens (R,) from logits (R, V).

    Returns:
        New token ids of each row, without the end token.
    """
    decoding = Decoding(llm, prompts)
    active = torch.arange(len(prompts.groups), device=prompts.groups.device)
    answers: list[list[int]] = [[] for _ in range(len(active))]
    longest = [rule.longest if rule else None for rule in rules] or [None] * len(answers)
    limits = torch.tensor(
        [max_new_tokens if one is None else one for one in longest], device=active.device
    )
    for step in range(int(limits.max())):
        bound = {
            index: rule
            for index, row in enumerate(active.tolist())
            if rules and (rule := rules[row])
        }
        chosen = _ruled(decoding.logits, bound, max_new_tokens - step, choose)
        going = chosen != end_id
        for row, token in zip(active[going].tolist(), chosen[going].tolist(), strict=True):
            answers[row].append(token)
        going &= limits[active] > step + 1
        if not bool(going.any()):
            break
        if not bool(going.all()):
            rows = going.nonzero()[:, 0]
            decoding.keep(rows)
            active, chosen = active[rows], chosen[rows]
        decoding.add(chosen)
    return answers


def _ruled(logits: Tensor, bound: Mapping[int, Rule], left: int, choose: Choice) -> Tensor:
    """The next token (R,) of each row, chosen until the rules of the bound ones accept it."""
    for index, rule in bound.items():
        logits[index] = rule.narrow(logits[index], left)
    chosen = choose(logits)
    for index, rule in bound.items():
        while not rule.accepts(int(chosen[index])):
            logits[index, chosen[index]] = float("-inf")
            chosen[index] = choose(logits[index : index + 1])[0]
        rule.add(int(chosen[index]))
    return chosen


@torch.no_grad()
def stream(
    llm: LanguageModel,
    prompts: Prompts,
    end_id: int,
    max_new_tokens: int,
    choose: Choice = most_likely,
) -> Iterator[int]:
    """The tokens of the answer to a single prompt, each as soon as it is known.

    Args:
        llm: Language model.
        prompts: One prompt.
        end_id: Token that ends the answer; it is not given.
        max_new_tokens: Longest answer.
        choose: Next tokens (R,) from logits (R, V).
    """
    decoding = Decoding(llm, prompts)
    for _ in range(max_new_tokens):
        chosen = choose(decoding.logits)
        if int(chosen) == end_id:
            return
        yield int(chosen)
        decoding.add(chosen)


@torch.no_grad()
def beam_search(
    llm: LanguageModel, prompts: Prompts, end_id: int, max_new_tokens: int, beams: int = 4
) -> list[list[int]]:
    """The likeliest answers of those that `beams` unfinished ones lead to, by log-probability per token.

    Args:
        llm: Language model.
        prompts: R prompts.
        end_id: Token that ends an answer.
        max_new_tokens: Longest answer.
        beams: Unfinished answers that are kept for each prompt.

    Returns:
        New token ids of each row, without the end token.
    """
    decoding, count = Decoding(llm, prompts), len(prompts.groups)
    device = prompts.groups.device
    said: list[list[int]] = [[] for _ in range(count)]
    scores, rows = (
        torch.zeros(count, device=device),
        torch.arange(count, device=device),
    )  # of each unfinished answer
    best: list[tuple[float, list[int]]] = [(float("-inf"), []) for _ in range(count)]
    for step in range(max_new_tokens + 1):
        totals = scores[:, None] + decoding.logits.float().log_softmax(dim=-1)  # (unfinished, V)
        for index, row in enumerate(rows.tolist()):
            ended = float(totals[index, end_id]) / (len(said[index]) + 1)
            best[row] = max(best[row], (ended, said[index]), key=lambda one: one[0])
        totals[:, end_id] = float("-inf")
        if step == max_new_tokens:
            break
        kept, tokens, values = [], [], []
        for row in range(count):
            own = (rows == row).nonzero()[:, 0]
            top = totals[own].flatten().topk(min(beams, totals[own].numel()))
            for value, place in zip(top.values.tolist(), top.indices.tolist(), strict=True):
                # Log-probabilities only fall, so a hopeless answer stays one.
                if value / (max_new_tokens + 1) > best[row][0]:
                    kept.append(int(own[place // totals.shape[1]]))
                    tokens.append(place % totals.shape[1])
                    values.append(value)
        if not kept:
            break
        said = [[*said[index], token] for index, token in zip(kept, tokens, strict=True)]
        chosen = torch.tensor(kept, device=device)
        decoding.keep(chosen)
        rows, scores = rows[chosen], torch.tensor(values, device=device)
        decoding.add(torch.tensor(tokens, device=device))
    return [answer for _, answer in best]
