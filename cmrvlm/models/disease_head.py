"""Sixteen diseases from the image tokens of whatever sequences are shown."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DiseaseHead(nn.Module):
    """One learned query for each class attends over the image tokens (Liu et al., Query2Label, 2021).

    A set of tokens of any size from any sequences is read; what is not shown is simply not there.

    Args:
        width: Width of the tokens.
        classes: Number of classes.
        heads: Attention heads.
    """

    def __init__(self, width: int, classes: int, heads: int = 4) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(classes, width) * 0.02)
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.hidden = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        self.weight = nn.Parameter(torch.randn(classes, width) * width**-0.5)
        # Each class is one of many, so its prior is low.
        self.bias = nn.Parameter(torch.full((classes,), -2.0))

    def forward(self, tokens: Tensor, valid: Tensor) -> Tensor:
        """Logits (N, classes) from tokens (N, L, D), true in `valid` (N, L)."""
        tokens = self.norm(tokens)
        queries = self.queries[None].expand(len(tokens), -1, -1).to(tokens.dtype)
        read, _ = self.attention(queries, tokens, tokens, key_padding_mask=~valid, need_weights=False)
        return (self.hidden(read) * self.weight).sum(dim=-1) + self.bias
