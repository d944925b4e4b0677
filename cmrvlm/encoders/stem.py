"""Convolutional stem: in-plane pictures to features at strides 2, 4 and 8, one picture per slice and frame."""

from __future__ import annotations

from torch import Tensor, nn

from cmrvlm.encoders.base import frames_as_batch, frames_to_volume


def conv_block(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, group normalisation and GELU; normalisation never mixes samples."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False),
        nn.GroupNorm(max(1, out_channels // 8), out_channels),
        nn.GELU(),
    )


class ConvStem(nn.Module):
    """Strided convolutions.

    Args:
        channels: Channels at strides 2, 4, 8, ... .
    """

    def __init__(self, channels: tuple[int, ...]):
        super().__init__()
        inputs = (1, *channels[:-1])
        self.blocks = nn.ModuleList(conv_block(i, o, stride=2) for i, o in zip(inputs, channels, strict=True))

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 1, Z, T, H, W) to one map (N, C, Z, T, H / 2^i, W / 2^i) for each stride."""
        n, _, z, t, _, _ = images.shape
        pictures = frames_as_batch(images)
        maps = []
        for block in self.blocks:
            pictures = block(pictures)
            maps.append(frames_to_volume(pictures, n, z, t))
        return maps
