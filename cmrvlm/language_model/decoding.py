"""Decoding: greedy, sampled or by beams, all prompts answered as one batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from cmrvlm.errors import CmrvlmError
from cmrvlm.language_model.answer_rules import Rule
from cmrvlm.language_model.network import LanguageModel
from cmrvlm.language_model.prompts import DecodingState, Prompts

Choice = Callable[[Tensor], Tensor]
Rules = Sequence[Rule | None]


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
    decoding = DecodingState(llm, prompts)
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
    decoding = DecodingState(llm, prompts)
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
    decoding, count = DecodingState(llm, prompts), len(prompts.groups)
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


class Decode(ABC):
    """Prompts to answers."""

    @abstractmethod
    def __call__(
        self,
        llm: LanguageModel,
        prompts: Prompts,
        end_id: int,
        max_new_tokens: int,
        rules: Rules = (),
    ) -> list[list[int]]:
        """New token ids of each row; see `generate`."""

    @abstractmethod
    def __str__(self) -> str:
        """How it is named in results."""


class Greedy(Decode):
    """The likeliest token each time."""

    def __call__(
        self,
        llm: LanguageModel,
        prompts: Prompts,
        end_id: int,
        max_new_tokens: int,
        rules: Rules = (),
    ) -> list[list[int]]:
        """The answers."""
        return generate(llm, prompts, end_id, max_new_tokens, rules)

    def __str__(self) -> str:
        return "greedy"


class Sampled(Decode):
    """Draws; see `Sampling` for the arguments. What rules allow is drawn from."""

    def __init__(self, temperature: float = 0.7, top_p: float = 0.9, seed: int = 0) -> None:
        self.settings = {"temperature": temperature, "top_p": top_p, "seed": seed}
        self.draw = Sampling(temperature, top_p, seed)

    def __call__(
        self,
        llm: LanguageModel,
        prompts: Prompts,
        end_id: int,
        max_new_tokens: int,
        rules: Rules = (),
    ) -> list[list[int]]:
        """The answers."""
        return generate(llm, prompts, end_id, max_new_tokens, rules, self.draw)

    def __str__(self) -> str:
        return f"sampled {self.settings}"


class Beams(Decode):
    """Beam search for free answers; answers with a rule are gone through token by token, as with `Greedy`.

    Args:
        count: Unfinished answers that are kept for each prompt.
    """

    def __init__(self, count: int = 4) -> None:
        if count < 1:
            raise CmrvlmError(f"{count} beams", field="decoding.count", remedy="Use at least one.")
        self.count = count

    def __call__(
        self,
        llm: LanguageModel,
        prompts: Prompts,
        end_id: int,
        max_new_tokens: int,
        rules: Rules = (),
    ) -> list[list[int]]:
        """The answers."""
        bound = [row for row, own in enumerate(rules) if own]
        free = [row for row in range(len(prompts.groups)) if row not in bound]
        answers: dict[int, list[int]] = {}
        if bound:
            told = [rules[row] for row in bound]
            found = generate(llm, prompts.rows(bound), end_id, max_new_tokens, told)
            answers |= dict(zip(bound, found, strict=True))
        if free:
            found = beam_search(llm, prompts.rows(free), end_id, max_new_tokens, self.count)
            answers |= dict(zip(free, found, strict=True))
        return [answers[row] for row in range(len(prompts.groups))]

    def __str__(self) -> str:
        return f"{self.count} beams"
