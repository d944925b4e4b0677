"""Greedy decoding: what several prompts share is read once, and all prompts are answered as one batch."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from cmrvlm.models.attention_mask import Layout, behind_images
from cmrvlm.models.fusion import fill_image_places
from cmrvlm.models.language_model import LanguageModel


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


def left_padded(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids (R, L) with padding on the left, and (R, L) true for tokens."""
    longest = max(len(row) for row in rows)
    ids = torch.tensor([[pad_id] * (longest - len(row)) + list(row) for row in rows], device=device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return ids, torch.arange(longest, device=device)[None] >= longest - lengths[:, None]


def embedded(
    llm: LanguageModel, image_id: int, tokens: Sequence[Tensor], prompts: Sequence[Sequence[int]],
    groups: Sequence[Hashable],
) -> Prompts:  # fmt: skip
    """Prompts with the images of each group once.

    Args:
        llm: Language model.
        image_id: Token id of an image place.
        tokens: Image tokens (n, D) of each prompt.
        prompts: Token ids.
        groups: What images each prompt is about; prompts of a group have the same image tokens.
    """
    device, numbers = tokens[0].device, {group: number for number, group in enumerate(dict.fromkeys(groups))}
    firsts = [groups.index(group) for group in numbers]
    heads = [1 + list(prompt).count(image_id) for prompt in prompts]  # the begin mark is shared like the images
    pad_id = prompts[0][0]  # the begin mark is no image place
    images, images_valid = left_padded([prompts[row][: heads[row]] for row in firsts], pad_id, device)
    questions, valid = left_padded([own[head:] for own, head in zip(prompts, heads, strict=True)], pad_id, device)
    filled = fill_image_places(llm.embed(images), images, image_id, [tokens[row] for row in firsts])
    return Prompts(filled, images_valid, llm.embed(questions), valid,
                   torch.tensor([numbers[group] for group in groups], device=device))  # fmt: skip


@torch.no_grad()
def generate(
    llm: LanguageModel,
    prompts: Prompts,
    end_id: int,
    max_new_tokens: int,
    allowed: Sequence[Sequence[Sequence[int]]] = (),
) -> list[list[int]]:
    """Greedy answers.

    Rows that have ended are taken out of the batch, so that one long answer does not keep all of them running.

    Args:
        llm: Language model.
        prompts: R prompts.
        end_id: Token that ends an answer.
        max_new_tokens: Longest answer.
        allowed: For each row all answers that it may give, with the end token; a row with none is free.

    Returns:
        New token ids of each row, without the end token.
    """
    cache = DynamicCache(config=llm.network.config)
    lengths = prompts.images_valid.sum(dim=1)
    llm.hidden(prompts.images, Layout.of_rows(prompts.images_valid, lengths, lengths), cache)
    cache.batch_select_indices(prompts.groups)  # each prompt goes on behind its own copy
    before, valid = prompts.images_valid[prompts.groups], prompts.questions_valid
    places = lengths[prompts.groups][:, None] + (valid.long().cumsum(dim=1) - 1).clamp(min=0)
    last = llm.go_on(prompts.questions, behind_images(before, valid, llm.attention), places, cache)[:, -1]  # (R, D)
    seen = torch.cat([before, valid], dim=1)
    active, counts = torch.arange(len(seen), device=seen.device), seen.sum(dim=1)
    answers: list[list[int]] = [[] for _ in range(len(seen))]
    for _ in range(max_new_tokens):
        logits = llm.logits(last)  # (active, V)
        for index, row in enumerate(active.tolist() if allowed else ()):
            if allowed[row]:
                logits[index] = only_next(logits[index], answers[row], allowed[row])
        chosen = logits.argmax(dim=-1)
        going = chosen != end_id
        for row, token in zip(active[going].tolist(), chosen[going].tolist(), strict=True):
            answers[row].append(token)
        if not bool(going.any()):
            break
        if not bool(going.all()):
            keep = going.nonzero()[:, 0]
            cache.batch_select_indices(keep)
            active, seen, counts, chosen = active[keep], seen[keep], counts[keep], chosen[keep]
        seen = torch.cat([seen, torch.ones_like(seen[:, :1])], dim=1)
        # A new token reads all that is before it.
        last = llm.go_on(llm.embed(chosen[:, None]), seen[:, None, None, :], counts[:, None], cache)[:, -1]
        counts = counts + 1
    return answers


def only_next(logits: Tensor, said: Sequence[int], allowed: Sequence[Sequence[int]]) -> Tensor:
    """Logits (V,) with everything forbidden but the tokens that go on towards an allowed answer.

    Args:
        logits: Of the next token.
        said: Tokens so far.
        allowed: All answers, with the end token.
    """
    count = len(said)
    following = {one[count] for one in allowed if len(one) > count and list(one[:count]) == list(said)}
    kept = torch.full_like(logits, float("-inf"))
    places = torch.tensor(sorted(following), device=logits.device)
    kept[places] = logits[places]
    return kept
