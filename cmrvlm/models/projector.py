"""Projectors: tokens of an encoder to tokens of the language model.

The encoder fixes the number of tokens of a series, and of a single frame or slice (a view), so a
projector may use their order.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

# Tokens of a series, then of a view.
TokenCounts = tuple[int, int]


class Projector(nn.Module):
    """Base of all projectors.

    Args:
        counts: Tokens of a series and of a view, as the encoder gives them.
    """

    def __init__(self, counts: TokenCounts) -> None:
        super().__init__()
        self.counts = counts

    @property
    @abstractmethod
    def out_counts(self) -> TokenCounts:
        """Number of tokens of the language model for a series, and for a view."""

    @abstractmethod
    def forward(self, tokens: Tensor, view: bool = False) -> Tensor:
        """Project the tokens of N series, or of N views.

        Args:
            tokens: Tokens (N, tokens, in_width) of the encoder.
            view: They are those of views.

        Returns:
            Tokens (N, out tokens, out_width) of the language model.
        """


class MLPProjector(Projector):
    """Two linear layers with GELU, applied to each token, and a learned position embedding.

    See Liu et al. (LLaVA-1.5, CVPR 2024).

    Args:
        in_width: Width of the encoder's features.
        out_width: Width of the language model.
        counts: See `Projector`.
    """

    def __init__(self, in_width: int, out_width: int, counts: TokenCounts) -> None:
        super().__init__(counts)
        self.layers = nn.Sequential(
            nn.LayerNorm(in_width),
            nn.Linear(in_width, out_width),
            nn.GELU(),
            nn.Linear(out_width, out_width),
        )
        self.places = nn.ParameterList()
        for count in counts:
            embedding = torch.randn(count, out_width) * 0.02
            self.places.append(nn.Parameter(embedding))

    @property
    def out_counts(self) -> TokenCounts:
        """The numbers that the encoder gives."""
        return self.counts

    def forward(self, tokens: Tensor, view: bool = False) -> Tensor:
        """Project tokens (N, tokens, in_width) to (N, tokens, out_width)."""
        projected: Tensor = self.layers(tokens)
        return projected + self.places[int(view)]


class ResamplingProjector(Projector):
    """One hidden layer over the concatenated tokens of a series, which become a few.

    A small language model trained from scratch learns far faster from a few tokens that have seen
    the whole series than from many local ones, and its inputs are short.

    Args:
        in_width: Width of the encoder's features.
        out_width: Width of the language model.
        counts: See `Projector`.
        tokens: Tokens that a series becomes.
        view_tokens: Tokens that a view becomes.
        hidden: Width of the hidden layer.
    """

    def __init__(
        self,
        in_width: int,
        out_width: int,
        counts: TokenCounts,
        tokens: int = 8,
        view_tokens: int = 2,
        hidden: int = 256,
    ) -> None:
        super().__init__(counts)
        self.out_width = out_width
        self._out_counts = (tokens, view_tokens)
        self.norm = nn.LayerNorm(in_width)
        self.mix = nn.ModuleList()
        for in_count, out_count in zip(counts, self._out_counts, strict=True):
            layers = nn.Sequential(
                nn.Linear(in_count * in_width, hidden),
                nn.GELU(),
                nn.Linear(hidden, out_count * out_width),
            )
            self.mix.append(layers)

    @property
    def out_counts(self) -> TokenCounts:
        """The numbers that the constructor was given."""
        return self._out_counts

    def forward(self, tokens: Tensor, view: bool = False) -> Tensor:
        """Project tokens (N, tokens, in_width) to (N, out tokens, out_width)."""
        concatenated = self.norm(tokens).flatten(1)
        mixed: Tensor = self.mix[int(view)](concatenated)
        return mixed.reshape(len(mixed), -1, self.out_width)
