"""Small convolutional encoder: the alternative in every slot."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cmrvlm.encoders.base import Encoded, Encoder, frames_as_batch, frames_to_volume
from cmrvlm.encoders.stem import ConvStem, conv_block


class ConvEncoder(Encoder):
    """Strided convolutions in plane, then residual mixing along slices and along the cycle.

    Args:
        channels: Channels at strides 4, 8 and 16.
        spatial_grid: See `Encoder`.
        temporal_tokens: See `Encoder`.
        view_grid: See `Encoder`.
    """

    def __init__(
        self,
        channels: tuple[int, int, int] = (24, 48, 96),
        spatial_grid: tuple[int, int, int] = (4, 3, 3),
        temporal_tokens: int = 8,
        view_grid: tuple[int, int, int] = (2, 3, 3),
    ) -> None:
        super().__init__(spatial_grid, temporal_tokens, view_grid)
        width = channels[-1]
        self.stem = ConvStem(tuple(channels), (4, 2, 2))
        self.refine = conv_block(width, width)
        self.along_slices = nn.Conv1d(width, width, 3, padding=1)
        self.along_time = nn.Conv1d(width, width, 3, padding=1, padding_mode="circular")
        self.norm = nn.LayerNorm(width)
        self.width = width
        self.pyramid_channels = (1, *channels)

    def forward(self, images: Tensor) -> Encoded:
        """Encode images (N, 1, Z, T, H, W)."""
        maps = self.stem(images)
        n, _, z, t, h, w = maps[-1].shape
        x = frames_to_volume(self.refine(frames_as_batch(maps[-1])), n, z, t)  # (N, C, Z, T, h, w)
        lines = x.permute(0, 3, 4, 5, 1, 2).reshape(-1, self.width, z)
        mixed = self.along_slices(lines).reshape(n, t, h, w, self.width, z)
        x = x + mixed.permute(0, 4, 5, 1, 2, 3)
        cycles = x.permute(0, 2, 4, 5, 1, 3).reshape(-1, self.width, t)
        if t > 1:
            turned = self.along_time(cycles).reshape(n, z, h, w, self.width, t)
            x = x + torch.tanh(turned).permute(0, 4, 1, 5, 2, 3)
        x = self.norm(x.permute(0, 2, 3, 4, 5, 1)).permute(0, 5, 1, 2, 3, 4)
        return Encoded(grid=x, pyramid=[images, *maps[:-1], x])
