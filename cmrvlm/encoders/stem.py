"""Convolutional stem: in-plane pictures to features at a few strides, one picture per slice and frame."""

from __future__ import annotations

from torch import Tensor, nn

from cmrvlm.encoders.base import apply_in_groups, frames_as_batch, frames_to_volume


def conv_block(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """Convolution that covers its stride twice, group normalisation and GELU; normalisation never mixes samples."""
    return nn.Sequential(
        nn.Conv2d(
            in_channels,
            out_channels,
            2 * stride - 1 if stride > 1 else 3,
            stride,
            max(1, stride - 1),
            bias=False,
        ),
        nn.GroupNorm(max(1, out_channels // 8), out_channels),
        nn.GELU(),
    )


class ConvStem(nn.Module):
    """Strided convolutions.

    The first stride is 4: at the full number of slices and frames, maps at stride 2 would cost more time and memory
    than everything else, and the mask decoder makes its own for the few frames that it is asked for.

    Args:
        channels: Channels of each map.
        strides: Stride of each map relative to the one before.
    """

    def __init__(self, channels: tuple[int, ...], strides: tuple[int, ...]) -> None:
        super().__init__()
        inputs = (1, *channels[:-1])
        self.blocks = nn.ModuleList(
            conv_block(i, o, s) for i, o, s in zip(inputs, channels, strides, strict=True)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 1, Z, T, H, W) to one map (N, C, Z, T, H / s, W / s) for each stride s."""
        n, _, z, t, _, _ = images.shape
        pictures = frames_as_batch(images)
        maps = []
        for block in self.blocks:
            pictures = apply_in_groups(block, pictures)
            maps.append(frames_to_volume(pictures, n, z, t))
        return maps
