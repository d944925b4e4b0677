"""From an encoder's tokens to the language model's.

The number of tokens of a series, and of a frame or slice, is fixed by the encoder, so a projector may use where each of
them lies.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn


class Projector(nn.Module):
    """Base of all projectors.

    Args:
        counts: Tokens of a series and of a view, as the encoder gives them.
    """

    def __init__(self, counts: tuple[int, int]) -> None:
        super().__init__()
        self.counts = counts

    @property
    @abstractmethod
    def out_counts(self) -> tuple[int, int]:
        """Tokens that a series and a view become."""

    @abstractmethod
    def forward(self, tokens: Tensor, view: bool = False) -> Tensor:
        """(N, tokens, in_width) of series, or of views, to (N, out tokens, out_width)."""


class MLPProjector(Projector):
    """Every token by itself: two linear layers with GELU between (Liu et al., LLaVA-1.5, CVPR 2024) and its place.

    Args:
        in_width: Width of the encoder's features.
        out_width: Width of the language model.
        counts: See `Projector`.
    """

    def __init__(self, in_width: int, out_width: int, counts: tuple[int, int]) -> None:
        super().__init__(counts)
        self.layers = nn.Sequential(
            nn.LayerNorm(in_width),
            nn.Linear(in_width, out_width),
            nn.GELU(),
            nn.Linear(out_width, out_width),
        )
        self.places = nn.ParameterList(
            nn.Parameter(torch.randn(n, out_width) * 0.02) for n in counts
        )

    @property
    def out_counts(self) -> tuple[int, int]:
        """As many as the encoder gives."""
        return self.counts

    def forward(self, tokens: Tensor, view: bool = False) -> Tensor:
        """(N, tokens, in_width) to (N, tokens, out_width)."""
        projected: Tensor = self.layers(tokens)
        return projected + self.places[int(view)]


class ResamplingProjector(Projector):
    """All tokens of a series together become a few: one hidden layer over their concatenation.

    A small language model trained from scratch learns far faster from a few tokens that have seen the whole series
    than from many local ones, and its rows are short.

    Args:
        in_width: Width of the encoder's features.
        out_width: Width of the language model.
        counts: See `Projector`.
        tokens: Tokens that a series becomes.
        view_tokens: Tokens that a frame or slice becomes.
        hidden: Width of the hidden layer.
    """

    def __init__(
        self,
        in_width: int,
        out_width: int,
        counts: tuple[int, int],
        tokens: int = 8,
        view_tokens: int = 2,
        hidden: int = 256,
    ) -> None:
        super().__init__(counts)
        self.out_width = out_width
        self._out_counts = (tokens, view_tokens)
        self.norm = nn.LayerNorm(in_width)
        self.mix = nn.ModuleList(
            nn.Sequential(
                nn.Linear(n * in_width, hidden), nn.GELU(), nn.Linear(hidden, out * out_width)
            )
            for n, out in zip(counts, self._out_counts, strict=True)
        )

    @property
    def out_counts(self) -> tuple[int, int]:
        """The stated numbers."""
        return self._out_counts

    def forward(self, tokens: Tensor, view: bool = False) -> Tensor:
        """(N, tokens, in_width) to (N, out tokens, out_width)."""
        mixed: Tensor = self.mix[int(view)](self.norm(tokens).flatten(1))
        return mixed.reshape(len(mixed), -1, self.out_width)
