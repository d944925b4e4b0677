"""Which token may read which: prefix attention or plain causal, the same under every attention implementation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from cmrvlm.errors import CmrvlmError

Style = Literal["prefix", "causal"]
IMPLEMENTATIONS = ("sdpa", "eager", "flex_attention", "flash_attention_2", "flash_attention_3")
IMAGES, QUESTION, ANSWER = range(
    3
)  # blocks of a row: begin and images, question with its mark, answer with its end


@dataclass(frozen=True)
class Layout:
    """Where each token of a padded batch (B, L) belongs.

    Attributes:
        groups: Number of the images that a token is about, -1 for padding; rows about the same images may share them.
        rows: Number of the instruction.
        blocks: `IMAGES`, `QUESTION` or `ANSWER`.
        positions: Place in its own row, from 0; in rows that share their images it goes on behind the images in each.
    """

    groups: Tensor
    rows: Tensor
    blocks: Tensor
    positions: Tensor

    @classmethod
    def of_rows(cls, valid: Tensor, image_lengths: Tensor, prompt_lengths: Tensor) -> Layout:
        """Rows that share nothing.

        Args:
            valid: (R, L) true for tokens, false for padding on either side.
            image_lengths: (R,) tokens of begin and images.
            prompt_lengths: (R,) tokens before the answer.
        """
        positions = (valid.long().cumsum(dim=1) - 1).clamp(min=0)
        rows = torch.arange(len(valid), device=valid.device)[:, None].expand_as(positions)
        blocks = (positions >= image_lengths[:, None]).long() + (
            positions >= prompt_lengths[:, None]
        ).long()
        return cls(torch.where(valid, rows, torch.full_like(rows, -1)), rows, blocks, positions)


def attention_mask(layout: Layout, style: Style) -> Tensor:
    """Who may read whom.

    Images are read by everything about them and read nothing else, so that several instructions can share them; a row
    reads itself.

    Args:
        layout: Of a batch (B, L).
        style: `prefix`: images read each other, and so do the tokens of a question; the answer reads what is before
            it. `causal`: every token reads what is before it.

    Returns:
        (B, 1, L, L) bool, true where the row's token may read the column's. Padding reads itself, so that no row of
        the softmax is empty.
    """

    def pairs(values: Tensor) -> tuple[Tensor, Tensor]:
        return values[:, :, None], values[:, None, :]

    group, other_group = pairs(layout.groups)
    row, other_row = pairs(layout.rows)
    block, other_block = pairs(layout.blocks)
    position, other_position = pairs(layout.positions)
    reads = other_position <= position
    if style == "prefix":
        reads = reads | ((block == other_block) & (block != ANSWER))
    reads = (
        reads
        & (group == other_group)
        & (group >= 0)
        & ((other_block == IMAGES) | (row == other_row))
    )
    itself = torch.eye(reads.shape[1], dtype=torch.bool, device=reads.device)
    return (reads | (itself[None] & (group < 0)))[:, None]


def cached_attention_mask(images_valid: Tensor, questions_valid: Tensor, style: Style) -> Tensor:
    """Who may read whom when images were read before the questions that stand behind them.

    Args:
        images_valid: (R, P) true for tokens of begin and images.
        questions_valid: (R, Q) true for tokens of questions, padded on the left.
        style: As in `attention_mask`.

    Returns:
        (R, 1, Q, P + Q) bool, true where the question's token may read the column's.
    """
    count = questions_valid.shape[1]
    reads = torch.ones(count, count, dtype=torch.bool, device=questions_valid.device)
    reads = reads if style == "prefix" else reads.tril()
    own = reads[None] & questions_valid[:, None, :]  # (R, Q, Q)
    images = images_valid[:, None, :].expand(-1, count, -1)
    return torch.cat([images, own], dim=2)[:, None]


def check_implementation(name: str) -> str:
    """Return the name of an attention implementation that Transformers itself has.

    Raises:
        CmrvlmError: It is another one; Transformers would take `owner/name` for a kernel to fetch and run.
    """
    if name not in IMPLEMENTATIONS:
        raise CmrvlmError(
            f"unknown attention implementation '{name}'",
            field="llm.network.attention_implementation",
            remedy=f"Known: {', '.join(IMPLEMENTATIONS)}.",
        )
    return name


def mask_for_implementation(mask: Tensor, implementation: str, dtype: torch.dtype) -> Any:
    """The bool mask in the form that an attention implementation of Transformers takes.

    Args:
        mask: (B, 1, L, M) true where a token may read another, or (B, M) true for tokens.
        implementation: Its name.
        dtype: Of the embeddings.

    Raises:
        CmrvlmError: The implementation cannot take an arbitrary mask.
    """
    if mask.ndim == 2:
        return mask.long()
    if implementation == "sdpa":
        return mask
    if implementation == "eager":
        return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(
            ~mask, torch.finfo(dtype).min
        )
    if implementation == "flex_attention":
        return _blocks(mask)
    raise CmrvlmError(
        f"attention implementation '{implementation}' does not take the prefix mask",
        field="llm.attention_implementation",
        remedy="Use sdpa, eager or flex_attention.",
    )


def _blocks(mask: Tensor) -> BlockMask:
    """The mask for FlexAttention, which leaves out blocks that nobody may read."""

    def reads(batch: Tensor, head: Tensor, row: Tensor, column: Tensor) -> Tensor:
        return mask[batch, 0, row, column]

    return create_block_mask(
        reads, len(mask), None, mask.shape[2], mask.shape[3], device=str(mask.device)
    )
