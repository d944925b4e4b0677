"""Convolutional pyramid as in nnU-Net, for masks that follow fine borders: two convolutions at every stride."""

from __future__ import annotations

from monai.networks.blocks.dynunet_block import UnetBasicBlock
from torch import Tensor, nn

from cmrvlm.encoders.base import (
    Encoded,
    Encoder,
    apply_in_groups,
    frames_as_batch,
    frames_to_volume,
)
from cmrvlm.encoders.mixing import SliceAndTimeMixing
from cmrvlm.errors import CmrvlmError

_NORMS = {"instance": ("instance", {"affine": True}), "group": ("group", {"num_groups": 8})}


class UnetEncoder(Encoder):
    """Blocks of MONAI's DynUNet in the plane of each slice and frame, then mixing along slices and along the cycle.

    Every frame is computed at full resolution, which for long cines takes much time and memory: it is meant for stacks
    with few frames. Normalisation is of each picture by itself, so that its neighbours in a batch do not matter.

    Args:
        channels: Channels at strides 1, 2, 4, 8 and 16.
        spatial_grid: See `Encoder`.
        temporal_tokens: See `Encoder`.
        view_grid: See `Encoder`.
        norm: `instance` normalises each channel, as in nnU-Net, `group` eight groups of channels, as in runs whose
            configuration does not say.

    Raises:
        CmrvlmError: The norm is neither.
    """

    def __init__(
        self,
        channels: tuple[int, int, int, int, int] = (16, 32, 64, 96, 128),
        spatial_grid: tuple[int, int, int] = (4, 3, 3),
        temporal_tokens: int = 8,
        view_grid: tuple[int, int, int] = (2, 3, 3),
        norm: str = "group",
    ) -> None:
        super().__init__(spatial_grid, temporal_tokens, view_grid)
        if norm not in _NORMS:
            raise CmrvlmError(
                f"unknown norm '{norm}'", field="norm", remedy=f"Known: {', '.join(_NORMS)}."
            )
        inputs, strides = (1, *channels[:-1]), (1, *(2 for _ in channels[1:]))
        self.blocks = nn.ModuleList(
            UnetBasicBlock(2, i, o, 3, stride, _NORMS[norm])
            for i, o, stride in zip(inputs, channels, strides, strict=True)
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
            pictures = apply_in_groups(block, pictures)
            maps.append(frames_to_volume(pictures, n, z, t))
        grid = self.mix(maps[-1])
        return Encoded(grid=grid, pyramid=[*maps[:-1], grid])
