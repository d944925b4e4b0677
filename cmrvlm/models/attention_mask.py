"""Which token may read which: prefix attention or plain causal, the same under every attention implementation."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from cmrvlm.errors import CmrvlmError

Style = Literal["prefix", "causal"]


def allowed(valid: Tensor, prefix_ends: Tensor, style: Style) -> Tensor:
    """Who may read whom.

    Args:
        valid: (R, L) true for tokens, false for padding on either side.
        prefix_ends: (R,) index after the last token of images and question.
        style: `prefix`: images and question read each other, the answer reads what is before it; `causal`: every
            token reads what is before it.

    Returns:
        (R, 1, L, L) bool, true where the row's token may read the column's. Padding reads itself, so that no row of
        the softmax is empty.
    """
    index = torch.arange(valid.shape[1], device=valid.device)
    reads = index[:, None] >= index[None, :]  # (L, L)
    reads = reads[None].expand(len(valid), -1, -1)
    if style == "prefix":
        inside = index[None] < prefix_ends[:, None]  # (R, L)
        reads = reads | (inside[:, :, None] & inside[:, None, :])
    reads = reads & valid[:, None, :]
    itself = torch.eye(valid.shape[1], dtype=torch.bool, device=valid.device)
    return (reads | (itself[None] & ~valid[:, :, None]))[:, None]


def for_implementation(mask: Tensor, implementation: str, dtype: torch.dtype) -> Any:
    """The bool mask in the form that an attention implementation of Transformers takes.

    Raises:
        CmrvlmError: The implementation cannot take an arbitrary mask.
    """
    if implementation == "sdpa":
        return mask
    if implementation == "eager":
        return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)
    raise CmrvlmError(f"attention implementation '{implementation}' does not take the prefix mask",
                      field="llm.attention_implementation", remedy="Use sdpa or eager.")  # fmt: skip


def positions(valid: Tensor) -> Tensor:
    """Position ids (R, L) that count the tokens and skip the padding."""
    return (valid.long().cumsum(dim=1) - 1).clamp(min=0)
