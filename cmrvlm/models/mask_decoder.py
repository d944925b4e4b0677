"""Masks from language: the hidden state of <SEG> is a query over features decoded from an encoder's pyramid."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from cmrvlm.encoders.base import frames_as_batch, frames_to_volume
from cmrvlm.encoders.stem import conv_block


class MaskDecoder(nn.Module):
    """Upsamples the pyramid to the input's resolution, frame by frame, and compares each pixel with the query.

    Args:
        pyramid_channels: Channels of the pyramid, finest first.
        query_width: Width of the language model's hidden states.
        channels: Channels of the decoder at each level, finest first; the last value serves all coarser ones.
    """

    def __init__(self, pyramid_channels: tuple[int, ...], query_width: int, channels: tuple[int, ...] = (16, 24, 32, 48)):
        super().__init__()
        count = len(pyramid_channels)
        widths = [channels[min(i, len(channels) - 1)] for i in range(count)]
        self.entry = nn.Conv2d(pyramid_channels[-1], widths[-1], 1)
        self.blocks = nn.ModuleList(
            conv_block(widths[i + 1] + pyramid_channels[i], widths[i]) for i in reversed(range(count - 1))
        )
        self.pixel = nn.Conv2d(widths[0], widths[0], 1)
        self.query = nn.Sequential(nn.LayerNorm(query_width), nn.Linear(query_width, widths[0] + 1))

    def pixels(self, pyramid: list[Tensor]) -> Tensor:
        """Pixel features (M, C, Z, F, H, W) from pyramid levels (M, C_i, Z, F, H / s_i, W / s_i)."""
        m, _, z, f, _, _ = pyramid[0].shape
        x = self.entry(frames_as_batch(pyramid[-1]))
        for level, block in zip(reversed(pyramid[:-1]), self.blocks, strict=True):
            skip = frames_as_batch(level).to(x.dtype)
            x = interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            x = block(torch.cat([x, skip], dim=1))
        return frames_to_volume(self.pixel(x), m, z, f)

    def forward(self, pixels: Tensor, queries: Tensor) -> Tensor:
        """Logits of masks.

        Args:
            pixels: (M, C, Z, F, H, W).
            queries: (M, D) hidden states of <SEG>.

        Returns:
            (M, Z, F, H, W).
        """
        weights = self.query(queries)  # (M, C + 1)
        logits = torch.einsum("mc,mczfhw->mzfhw", weights[:, :-1], pixels)
        return logits + weights[:, -1, None, None, None, None]
