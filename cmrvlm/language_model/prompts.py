"""Embedded prompts that share their images, and the key-value cache of decoding behind them."""

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
    """R embedded prompts, padded on the left, about G groups of images, each held once.

    Attributes:
        images: (G, P, D) embeddings of begin mark and images of each group.
        images_valid: (G, P) true for tokens.
        questions: (R, Q, D) embeddings of what follows the images in each prompt.
        questions_valid: (R, Q) true for tokens; at least one in each row.
        groups: (R,) group of each prompt.
    """

    images: Tensor
    images_valid: Tensor
    questions: Tensor
    questions_valid: Tensor
    groups: Tensor

    def rows(self, chosen: Sequence[int]) -> Prompts:
        """Return the chosen prompts, in the given order."""
        indices = torch.tensor(chosen, device=self.groups.device)
        return replace(
            self,
            questions=self.questions[indices],
            questions_valid=self.questions_valid[indices],
            groups=self.groups[indices],
        )


def left_padded(
    rows: Sequence[Sequence[int]], pad_id: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Pad token ids on the left.

    Args:
        rows: Token ids of R rows.
        pad_id: Token id of the padding.
        device: Device of the result.

    Returns:
        (R, L) token ids, and (R, L) bool, true for tokens.
    """
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
    """Embed prompts, with the images of each group once.

    Args:
        llm: Language model.
        image_id: Token id of an image place.
        tokens: Image tokens (n, D) of each prompt.
        prompts: Token ids of each prompt: begin mark, image places, question.
        groups: Key of the images that each prompt is about; prompts of a group have the same image
            tokens.

    Returns:
        The embedded prompts, in the given order.
    """
    device = tokens[0].device
    group_keys = list(dict.fromkeys(groups))
    group_indices = [group_keys.index(group) for group in groups]
    first_rows = [groups.index(group) for group in group_keys]
    # The begin mark is shared like the images.
    head_lengths = [1 + list(prompt).count(image_id) for prompt in prompts]
    # Padding may have any id but that of an image place, such as the begin mark's.
    pad_id = prompts[0][0]

    heads = [prompts[row][: head_lengths[row]] for row in first_rows]
    image_ids, images_valid = left_padded(heads, pad_id, device)
    image_tokens = [tokens[row] for row in first_rows]
    questions = [prompt[head:] for prompt, head in zip(prompts, head_lengths, strict=True)]
    question_ids, questions_valid = left_padded(questions, pad_id, device)
    return Prompts(
        images=fill_image_places(llm.embed(image_ids), image_ids, image_id, image_tokens),
        images_valid=images_valid,
        questions=llm.embed(question_ids),
        questions_valid=questions_valid,
        groups=torch.tensor(group_indices, device=device),
    )


class DecodingState:
    """The key-value cache of R prompts and their tokens so far, with the logits of the next token.

    Args:
        llm: Language model.
        prompts: R prompts; the images that several of them share are read once.

    Attributes:
        logits: (R, V) logits of the next token of each row.
    """

    def __init__(self, llm: LanguageModel, prompts: Prompts) -> None:
        self.llm = llm
        self.cache = DynamicCache(config=llm.network.config)
        self._read_images(prompts)

        # From here on the cache has a row for each prompt, not for each group of images.
        self.cache.batch_select_indices(prompts.groups)
        images_valid = prompts.images_valid[prompts.groups]
        # (R, M) true for tokens, false for padding, of the M tokens in the cache.
        self._valid = torch.cat([images_valid, prompts.questions_valid], dim=1)
        self.logits = self._read_questions(prompts, images_valid)

    def keep(self, rows: Tensor) -> None:
        """Keep the given rows (K,) alone, in this order; a row may be given several times."""
        self.cache.batch_select_indices(rows)
        self._valid = self._valid[rows]

    def add(self, tokens: Tensor) -> None:
        """Read the next token (R,) of each row and update the logits."""
        positions = self._valid.sum(dim=1)[:, None]
        self._valid = torch.cat([self._valid, torch.ones_like(self._valid[:, :1])], dim=1)
        # A new token attends to all tokens before it.
        mask = self._valid[:, None, None, :] if self.llm.packs else self._valid
        embeddings = self.llm.embed(tokens[:, None])
        hidden = self.llm.forward_cached(embeddings, mask, positions, self.cache)
        self.logits = self.llm.logits(hidden[:, -1])

    def _read_images(self, prompts: Prompts) -> None:
        """Fill the cache with the images, once for each group."""
        lengths = prompts.images_valid.sum(dim=1)
        layout = Layout.of_rows(prompts.images_valid, lengths, lengths)
        self.llm.hidden(prompts.images, layout, self.cache)

    def _read_questions(self, prompts: Prompts, images_valid: Tensor) -> Tensor:
        """Read the questions behind the images (R, P); return the next token's logits (R, V)."""
        question_positions = (prompts.questions_valid.long().cumsum(dim=1) - 1).clamp(min=0)
        positions = images_valid.sum(dim=1)[:, None] + question_positions
        if self.llm.packs:
            mask = cached_attention_mask(images_valid, prompts.questions_valid, self.llm.attention)
        else:
            mask = self._valid
        hidden = self.llm.forward_cached(prompts.questions, mask, positions, self.cache)
        return self.llm.logits(hidden[:, -1])
