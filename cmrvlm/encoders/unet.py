"""Convolutional pyramid as in nnU-Net, for masks that follow fine borders: two convolutions at every stride."""

from __future__ import annotations

from monai.networks.blocks.dynunet_block import UnetBasicBlock
from torch import Tensor, nn

from cmrvlm.encoders.base import Encoded, Encoder, frames_as_batch, frames_to_volume, picture_by_picture
from cmrvlm.encoders.mixing import SliceAndTimeMixing


class UnetEncoder(Encoder):
    """Blocks of MONAI's DynUNet in the plane of each slice and frame, then mixing along slices and along the cycle.

    Every frame is computed at full resolution, which for long cines takes much time and memory: it is meant for stacks
    with few frames. Each channel of a picture is normalised by itself, as in nnU-Net: neighbours in a batch do not
    matter, and masks of the myocardium are better than with groups of channels (experiments/segmentation).

    Args:
        channels: Channels at strides 1, 2, 4, 8 and 16.
        spatial_grid: See `Encoder`.
        temporal_tokens: See `Encoder`.
        view_grid: See `Encoder`.
    """

    def __init__(
        self,
        channels: tuple[int, int, int, int, int] = (16, 32, 64, 96, 128),
        spatial_grid: tuple[int, int, int] = (4, 3, 3),
        temporal_tokens: int = 8,
        view_grid: tuple[int, int, int] = (2, 3, 3),
    ) -> None:
        super().__init__(spatial_grid, temporal_tokens, view_grid)
        norm = ("instance", {"affine": True})
        inputs, strides = (1, *channels[:-1]), (1, *(2 for _ in channels[1:]))
        self.blocks = nn.ModuleList(
            UnetBasicBlock(2, i, o, 3, stride, norm) for i, o, stride in zip(inputs, channels, strides, strict=True)
        )
        self.width = channels[-1]
        self.mix = SliceAndTimeMixing(self.width)
        self.pyramid_channels = tuple(channels)
        self.pyramid_strides = tuple(2**level for level in range(len(channels)))

    def forward(self, images: Tensor) -> Encoded:
        """Encode images (N, 1, Z, T, H, W)."""
        n, _, z, t, _, _ = images.shape
        pictures, maps = frames_as_batch(images), []
        for block in self.blocks:
            pictures = picture_by_picture(block, pictures)
            maps.append(frames_to_volume(pictures, n, z, t))
        grid = self.mix(maps[-1])
        return Encoded(grid=grid, pyramid=[*maps[:-1], grid])
