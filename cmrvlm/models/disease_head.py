"""Sixteen diseases from the encoders' tokens of whatever sequences are shown."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class DiseaseHead(nn.Module):
    """One hidden layer over the sum of what each shown sequence says.

    Each sequence has its own linear layer over all its tokens, so a token counts by its place; what is not shown adds
    nothing. The head reads the encoders and not the language model's tokens: those are shaped by the next word, and
    their gradients drown those of the diagnosis. What it has read of a sequence is told to the language model as one
    more token, so that words and classes come from the same evidence.

    Args:
        counts: Sequence to the number of tokens of a whole series.
        widths: Sequence to the width of its tokens.
        classes: Number of classes.
        token_width: Width of the language model.
        hidden: Width of the hidden layer.
    """

    def __init__(
        self, counts: Mapping[str, int], widths: Mapping[str, int], classes: int, token_width: int, hidden: int = 256
    ) -> None:
        super().__init__()
        self.read = nn.ModuleDict(
            {
                name: nn.Sequential(nn.LayerNorm(widths[name]), nn.Flatten(1), nn.Linear(count * widths[name], hidden))
                for name, count in counts.items()
            }
        )
        self.tell = nn.Sequential(nn.GELU(), nn.Linear(hidden, token_width))
        last = nn.Linear(hidden, classes)
        nn.init.constant_(last.bias, -math.log(classes - 1))  # each class is one of many
        self.classify = nn.Sequential(nn.GELU(), last)

    def summarise(self, sequence: str, tokens: Tensor) -> Tensor:
        """What whole series say: tokens (N, count, width) to (N, hidden)."""
        summary: Tensor = self.read[sequence](tokens)
        return summary

    def token(self, summary: Tensor) -> Tensor:
        """Summaries (N, hidden) as tokens (N, 1, token_width); the next word does not change what is read."""
        token: Tensor = self.tell(summary.detach())
        return token[:, None]

    def forward(self, summaries: list[Tensor]) -> Tensor:
        """Logits (K, classes) from the summed summaries (hidden,) of each of K sets of series."""
        logits: Tensor = self.classify(torch.stack(summaries))
        return logits
