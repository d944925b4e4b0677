"""Residual mixing along slices and along the cycle, for encoders that look at each picture by itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SliceAndTimeMixing(nn.Module):
    """One convolution along the slices and a circular one along the frames, each added to what came in.

    Args:
        width: Channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.along_slices = nn.Conv1d(width, width, 3, padding=1)
        self.along_time = nn.Conv1d(width, width, 3, padding=1, padding_mode="circular")
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, Z, T, h, w) to the same shape."""
        n, c, z, t, h, w = x.shape
        lines = x.permute(0, 3, 4, 5, 1, 2).reshape(-1, c, z)
        x = x + self.along_slices(lines).reshape(n, t, h, w, c, z).permute(0, 4, 5, 1, 2, 3)
        if t > 1:
            cycles = x.permute(0, 2, 4, 5, 1, 3).reshape(-1, c, t)
            x = x + torch.tanh(self.along_time(cycles)).reshape(n, z, h, w, c, t).permute(
                0, 4, 1, 5, 2, 3
            )
        return self.norm(x.permute(0, 2, 3, 4, 5, 1)).permute(0, 5, 1, 2, 3, 4)
