"""From an encoder's width to the language model's."""

from __future__ import annotations

from torch import Tensor, nn


class MLPProjector(nn.Module):
    """Two linear layers with GELU between them (Liu et al., LLaVA-1.5, CVPR 2024).

    Args:
        in_width: Width of the encoder's features.
        out_width: Width of the language model.
    """

    def __init__(self, in_width: int, out_width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(in_width), nn.Linear(in_width, out_width), nn.GELU(), nn.Linear(out_width, out_width)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., in_width) to (..., out_width)."""
        return self.layers(tokens)  # type: ignore[no-any-return]
