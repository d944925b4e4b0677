"""Convolutional pyramid as in nnU-Net, for masks that follow fine borders."""

from __future__ import annotations

from monai.networks.blocks.dynunet_block import UnetBasicBlock
from torch import Tensor, nn

from cmrvlm.encoders.base import (
    Encoded,
    Encoder,
    TokenGrid,
    apply_in_groups,
    frames_as_batch,
    frames_to_volume,
)
from cmrvlm.encoders.mixing import SliceAndTimeMixing
from cmrvlm.errors import CmrvlmError

# Name in the configuration to the normalisation and its settings as MONAI takes them.
_NORMS = {
    "instance": ("instance", {"affine": True}),
    "group": ("group", {"num_groups": 8}),
}


class UnetEncoder(Encoder):
    """Blocks of MONAI's DynUNet in plane, then mixing along slices and along the cycle.

    Each block has two convolutions. Every frame is computed at full resolution, which for long
    cines takes much time and memory: the encoder is meant for stacks with few frames. Each picture
    is normalised by itself, so that its neighbours in a batch do not matter.

    Args:
        channels: Channels at strides 1, 2, 4, 8 and 16.
        spatial_grid: See `Encoder`.
        temporal_tokens: See `Encoder`.
        view_grid: See `Encoder`.
        norm: `instance` normalises each channel, as in nnU-Net; `group` normalises eight groups of
            channels, as in runs whose configuration does not say.

    Raises:
        CmrvlmError: The norm is neither.
    """

    def __init__(
        self,
        channels: tuple[int, int, int, int, int] = (16, 32, 64, 96, 128),
        spatial_grid: TokenGrid = (4, 3, 3),
        temporal_tokens: int = 8,
        view_grid: TokenGrid = (2, 3, 3),
        norm: str = "group",
    ) -> None:
        super().__init__(spatial_grid, temporal_tokens, view_grid)
        if norm not in _NORMS:
            raise CmrvlmError(
                f"unknown norm '{norm}'",
                field="norm",
                remedy=f"Known: {', '.join(_NORMS)}.",
            )
        in_channels = (1, *channels[:-1])
        self.blocks = nn.ModuleList()
        for level, (inputs, outputs) in enumerate(zip(in_channels, channels, strict=True)):
            block = UnetBasicBlock(
                spatial_dims=2,
                in_channels=inputs,
                out_channels=outputs,
                kernel_size=3,
                stride=1 if level == 0 else 2,
                norm_name=_NORMS[norm],
            )
            self.blocks.append(block)
        self.width = channels[-1]
        self.mix = SliceAndTimeMixing(self.width)
        self.pyramid_channels = tuple(channels)
        self.pyramid_strides = tuple(2**level for level in range(len(channels)))

    def forward(self, images: Tensor) -> Encoded:
        """Encode images (N, 1, Z, T, H, W)."""
        n, _, z, t, _, _ = images.shape
        pictures = frames_as_batch(images)
        maps = []
        for block in self.blocks:
            pictures = apply_in_groups(block, pictures)
            maps.append(frames_to_volume(pictures, n, z, t))
        coarsest = maps.pop()
        grid = self.mix(coarsest)
        pyramid = [*maps, grid]
        return Encoded(grid=grid, pyramid=pyramid)
