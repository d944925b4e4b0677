"""Attention masks, prefix or causal, in the form that each attention implementation takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from cmrvlm.errors import CmrvlmError

Style = Literal["prefix", "causal"]
IMPLEMENTATIONS = ("sdpa", "eager", "flex_attention", "flash_attention_2", "flash_attention_3")

# Blocks of a row: begin mark and images; question with its mark; answer with its end token.
IMAGES = 0
QUESTION = 1
ANSWER = 2


@dataclass(frozen=True)
class Layout:
    """Group, row, block and position of each token of a padded batch (B, L).

    Attributes:
        groups: (B, L) index of the images that a token is about, -1 for padding; rows about the
            same images may share them.
        rows: (B, L) index of the instruction.
        blocks: (B, L) `IMAGES`, `QUESTION` or `ANSWER`.
        positions: (B, L) position in the row, from 0; in rows that share their images, each
            continues from the last image position.
    """

    groups: Tensor
    rows: Tensor
    blocks: Tensor
    positions: Tensor

    @classmethod
    def of_rows(cls, valid: Tensor, image_lengths: Tensor, prompt_lengths: Tensor) -> Layout:
        """Return the layout of rows that share nothing.

        Args:
            valid: (R, L) true for tokens, false for padding on either side.
            image_lengths: (R,) number of tokens of begin mark and images.
            prompt_lengths: (R,) number of tokens before the answer.

        Returns:
            Layout with tensors (R, L).
        """
        positions = (valid.long().cumsum(dim=1) - 1).clamp(min=0)
        rows = torch.arange(len(valid), device=valid.device)[:, None].expand_as(positions)
        groups = rows.masked_fill(~valid, -1)
        is_behind_images = (positions >= image_lengths[:, None]).long()
        is_behind_prompt = (positions >= prompt_lengths[:, None]).long()
        return cls(groups, rows, is_behind_images + is_behind_prompt, positions)


def attention_mask(layout: Layout, style: Style) -> Tensor:
    """Return the attention mask of a batch of rows.

    Images attend to images alone, so that several instructions can share them; the other tokens
    attend to the images of their group and to their own row.

    Args:
        layout: Layout of a batch (B, L).
        style: `prefix`: attention is bidirectional among the images and within a question, and
            causal in the answer. `causal`: it is causal throughout.

    Returns:
        (B, 1, L, L) bool, true where the query token (third axis) may attend to the key token (last
        axis). Padding attends to itself, so that no row of the softmax is empty.
    """
    same_group = _queries(layout.groups) == _keys(layout.groups)
    same_row = _queries(layout.rows) == _keys(layout.rows)
    same_block = _queries(layout.blocks) == _keys(layout.blocks)
    key_is_image = _keys(layout.blocks) == IMAGES
    query_is_token = _queries(layout.groups) >= 0

    attends = _keys(layout.positions) <= _queries(layout.positions)  # (B, L, L)
    if style == "prefix":
        attends = attends | (same_block & (_queries(layout.blocks) != ANSWER))
    attends = attends & same_group & query_is_token & (key_is_image | same_row)

    diagonal = torch.eye(attends.shape[1], dtype=torch.bool, device=attends.device)
    return (attends | (diagonal[None] & ~query_is_token))[:, None]


def cached_attention_mask(images_valid: Tensor, questions_valid: Tensor, style: Style) -> Tensor:
    """Return the attention mask of questions whose images are in the key-value cache already.

    Args:
        images_valid: (R, P) true for tokens of begin mark and images.
        questions_valid: (R, Q) true for tokens of questions, padded on the left.
        style: As in `attention_mask`.

    Returns:
        (R, 1, Q, P + Q) bool, true where the question's token may attend to the key token.
    """
    length = questions_valid.shape[1]
    attends = torch.ones(length, length, dtype=torch.bool, device=questions_valid.device)
    if style == "causal":
        attends = attends.tril()
    question_keys = attends[None] & questions_valid[:, None, :]  # (R, Q, Q)
    image_keys = images_valid[:, None, :].expand(-1, length, -1)  # (R, Q, P)
    return torch.cat([image_keys, question_keys], dim=2)[:, None]


def check_implementation(name: str) -> str:
    """Return the name of an attention implementation if it is one of Transformers' own.

    Raises:
        CmrvlmError: It is another one; Transformers would take `owner/name` for a kernel to fetch
            and run.
    """
    if name not in IMPLEMENTATIONS:
        raise CmrvlmError(
            f"unknown attention implementation '{name}'",
            field="llm.network.attention_implementation",
            remedy=f"Known: {', '.join(IMPLEMENTATIONS)}.",
        )
    return name


def mask_for_implementation(mask: Tensor, implementation: str, dtype: torch.dtype) -> Any:
    """Convert a bool mask to the form that an attention implementation of Transformers takes.

    Args:
        mask: (B, 1, L, M) true where a query token may attend to a key token, or (B, M) true for
            tokens.
        implementation: Name of the attention implementation.
        dtype: Data type of the embeddings.

    Returns:
        (B, M) integers for a mask of tokens; else (B, 1, L, M) bool for SDPA, the same shape in
        numbers to be added to the attention scores for eager attention, or a block mask for
        FlexAttention.

    Raises:
        CmrvlmError: The implementation cannot take an arbitrary mask.
    """
    if mask.ndim == 2:
        return mask.long()
    if implementation == "sdpa":
        return mask
    if implementation == "eager":
        scores = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
        return scores.masked_fill(~mask, torch.finfo(dtype).min)
    if implementation == "flex_attention":
        return _block_mask(mask)
    raise CmrvlmError(
        f"attention implementation '{implementation}' does not take the prefix mask",
        field="llm.network.attention_implementation",
        remedy="Use sdpa, eager or flex_attention.",
    )


def _block_mask(mask: Tensor) -> BlockMask:
    """Convert a bool mask (B, 1, L, M) to a block mask, for FlexAttention to skip empty blocks."""

    def attends(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return mask[batch, 0, query, key]

    batch_size, _, query_length, key_length = mask.shape
    return create_block_mask(
        attends, batch_size, None, query_length, key_length, device=str(mask.device)
    )


def _queries(values: Tensor) -> Tensor:
    """Return values (B, L) of the query tokens as (B, L, 1), to compare with those of the keys."""
    return values[:, :, None]


def _keys(values: Tensor) -> Tensor:
    """Return values (B, L) of the key tokens as (B, 1, L), to compare with those of the queries."""
    return values[:, None, :]
