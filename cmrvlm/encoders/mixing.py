"""Residual mixing along slices and along the cycle, for encoders that work picture by picture."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn


class SliceAndTimeMixing(nn.Module):
    """Residual convolution along the slices, then a circular one along the frames.

    Args:
        width: Channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.along_slices = nn.Conv1d(width, width, 3, padding=1)
        # The heart beats periodically: behind the last frame comes the first.
        self.along_time = nn.Conv1d(width, width, 3, padding=1, padding_mode="circular")
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Mix features (N, C, Z, T, h, w) and return the same shape."""
        n, _, z, t, h, w = x.shape
        lengths = {"n": n, "z": z, "t": t, "h": h, "w": w}

        stacks = rearrange(x, "n c z t h w -> (n t h w) c z")
        mixed = self.along_slices(stacks)
        x = x + rearrange(mixed, "(n t h w) c z -> n c z t h w", **lengths)

        # A static series has no cycle to mix along.
        if t > 1:
            cycles = rearrange(x, "n c z t h w -> (n z h w) c t")
            mixed = torch.tanh(self.along_time(cycles))
            x = x + rearrange(mixed, "(n z h w) c t -> n c z t h w", **lengths)

        channels_last = rearrange(x, "n c z t h w -> n z t h w c")
        return rearrange(self.norm(channels_last), "n z t h w c -> n c z t h w")
