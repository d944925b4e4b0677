"""Prompts as a language model decodes behind them: their images read once, their key-value cache kept."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import DynamicCache

from cmrvlm.language_model.attention_mask import Layout, cached_attention_mask
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


def embed_prompts(
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


class DecodingState:
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
        mask = cached_attention_mask(before, valid, llm.attention) if llm.packs else self._seen
        self.logits = llm.logits(
            llm.forward_cached(prompts.questions, mask, places, self.cache)[:, -1]
        )

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
        hidden = self.llm.forward_cached(self.llm.embed(tokens[:, None]), mask, places, self.cache)
        self.logits = self.llm.logits(hidden[:, -1])
