"""Convolutional stem: features of each picture (one slice in one frame) at a few strides."""

from __future__ import annotations

from torch import Tensor, nn

from cmrvlm.encoders.base import apply_in_groups, frames_as_batch, frames_to_volume


def conv_block(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """Build a convolution, group normalisation and GELU; no layer mixes the samples of a batch.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride in plane.
    """
    # Kernels overlap, so that no pixel is seen by one output alone.
    kernel_size = max(3, 2 * stride - 1)
    convolution = nn.Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride,
        padding=kernel_size // 2,
        bias=False,
    )
    groups = max(1, out_channels // 8)
    return nn.Sequential(
        convolution,
        nn.GroupNorm(groups, out_channels),
        nn.GELU(),
    )


class ConvStem(nn.Module):
    """Strided convolutions.

    The first stride is 4: at the full number of slices and frames, maps at stride 2 would cost more
    time and memory than everything else, and the mask decoder makes its own for the few frames that
    it decodes.

    Args:
        channels: Channels of each map.
        strides: Stride of each map relative to the one before.
    """

    def __init__(self, channels: tuple[int, ...], strides: tuple[int, ...]) -> None:
        super().__init__()
        in_channels = (1, *channels[:-1])
        self.blocks = nn.ModuleList()
        for inputs, outputs, stride in zip(in_channels, channels, strides, strict=True):
            self.blocks.append(conv_block(inputs, outputs, stride))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute feature maps at increasing strides.

        Args:
            images: Images (N, 1, Z, T, H, W).

        Returns:
            A map (N, C, Z, T, H / s, W / s) for each cumulative stride s.
        """
        n, _, z, t, _, _ = images.shape
        pictures = frames_as_batch(images)
        maps = []
        for block in self.blocks:
            pictures = apply_in_groups(block, pictures)
            maps.append(frames_to_volume(pictures, n, z, t))
        return maps
