"""Small convolutional encoder, for any sequence."""

from __future__ import annotations

from torch import Tensor

from cmrvlm.encoders.base import Encoded, Encoder, TokenGrid, frames_as_batch, frames_to_volume
from cmrvlm.encoders.mixing import SliceAndTimeMixing
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
        spatial_grid: TokenGrid = (4, 3, 3),
        temporal_tokens: int = 8,
        view_grid: TokenGrid = (2, 3, 3),
    ) -> None:
        super().__init__(spatial_grid, temporal_tokens, view_grid)
        width = channels[-1]
        self.stem = ConvStem(tuple(channels), (4, 2, 2))
        self.refine = conv_block(width, width)
        self.mix = SliceAndTimeMixing(width)
        self.width = width
        self.pyramid_channels = (1, *channels)

    def forward(self, images: Tensor) -> Encoded:
        """Encode images (N, 1, Z, T, H, W)."""
        maps = self.stem(images)
        n, _, z, t, _, _ = maps[-1].shape
        pictures = self.refine(frames_as_batch(maps[-1]))
        volume = frames_to_volume(pictures, n, z, t)  # (N, C, Z, T, h, w)
        grid = self.mix(volume)
        pyramid = [images, *maps[:-1], grid]
        return Encoded(grid=grid, pyramid=pyramid)
