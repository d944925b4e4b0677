"""Hierarchical encoder with windowed attention: convolutional stem, stages, merging in plane."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from cmrvlm.encoders.base import Encoded, Encoder
from cmrvlm.encoders.stem import ConvStem
from cmrvlm.encoders.window_attention import AttentionBlock, Window
from cmrvlm.errors import CmrvlmError


class SlicePosition(nn.Module):
    """Adds where a slice lies between the first and the last: sine and cosine features of its share of the stack."""

    def __init__(self, width: int, frequencies: int = 4) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.project = nn.Linear(2 * frequencies, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, Z, T, H, W, C) to the same shape; a single slice lies in the middle."""
        slices = x.shape[1]
        share = (
            torch.linspace(0, 1, slices, device=x.device)
            if slices > 1
            else torch.full((1,), 0.5, device=x.device)
        )
        turns = (
            share[:, None]
            * torch.pi
            * 2.0 ** torch.arange(-1, self.frequencies - 1, device=x.device)
        )
        features = torch.cat([turns.sin(), turns.cos()], dim=-1).to(x.dtype)  # (Z, 2 f)
        return x + self.project(features)[None, :, None, None, None]


class MergeInPlane(nn.Module):
    """Halve H and W: four neighbours become one token of twice the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduce = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, Z, T, H, W, C) to (N, Z, T, ceil(H/2), ceil(W/2), 2C); odd sizes are padded with zeros."""
        height, width = x.shape[3:5]
        if height % 2 or width % 2:
            x = pad(x, (0, 0, 0, width % 2, 0, height % 2))
        quarters = [x[..., i::2, j::2, :] for i in (0, 1) for j in (0, 1)]
        return self.reduce(self.norm(torch.cat(quarters, dim=-1)))


class SwinEncoder(Encoder):
    """Convolutional stem at stride 8, then stages of windowed attention with merging in plane between them.

    The windows decide what the encoder is for. A window within each frame followed by one along time serves a cine
    stack (4D); one window over all axes serves a series with only three of them, such as a stack without time or a
    cine of a single slice (3D).

    Args:
        windows: Lengths along (Z, T, H, W) of the windows that each block attends over, one after the other; 0 is the
            whole axis, and a window never exceeds its axis.
        stem_channels: Channels of the stem at strides 4 and 8; the last is the width of the first stage.
        depths: Blocks in each stage; width doubles from one stage to the next.
        heads: Attention heads in the first stage; they double too.
        spatial_grid: See `Encoder`.
        temporal_tokens: See `Encoder`.
        view_grid: See `Encoder`.

    Raises:
        CmrvlmError: There is no window, or one has not four lengths.
    """

    def __init__(
        self,
        windows: Sequence[Sequence[int]],
        stem_channels: tuple[int, int] = (24, 48),
        depths: tuple[int, ...] = (0, 2),
        heads: int = 2,
        spatial_grid: tuple[int, int, int] = (4, 3, 3),
        temporal_tokens: int = 8,
        view_grid: tuple[int, int, int] = (2, 3, 3),
    ) -> None:
        super().__init__(spatial_grid, temporal_tokens, view_grid)
        checked_windows = check_windows(windows)
        self.stem = ConvStem(tuple(stem_channels), (4, 2))
        width = stem_channels[-1]
        self.position = SlicePosition(width)
        widths = [width * 2**stage for stage in range(len(depths))]
        self.merges = nn.ModuleList(MergeInPlane(w) for w in widths[:-1])
        self.stages = nn.ModuleList()
        for stage, depth in enumerate(depths):
            blocks = [
                AttentionBlock(
                    widths[stage],
                    heads * 2**stage,
                    checked_windows,
                    # Every second block shifts its windows, so that neighbouring windows exchange information.
                    shifted=block % 2 == 1,
                )
                for block in range(depth)
            ]
            self.stages.append(nn.Sequential(*blocks))
        self.norms = nn.ModuleList(nn.LayerNorm(w) for w in widths)
        self.width = widths[-1]
        self.pyramid_channels = (1, *stem_channels[:-1], *widths)

    def forward(self, images: Tensor) -> Encoded:
        """Encode images (N, 1, Z, T, H, W)."""
        maps = self.stem(images)
        x = self.position(maps[-1].permute(0, 2, 3, 4, 5, 1))  # (N, Z, T, h, w, C)
        pyramid = [images, *maps[:-1]]
        for index, (stage, norm) in enumerate(zip(self.stages, self.norms, strict=True)):
            if index:
                x = self.merges[index - 1](x)
            x = stage(x)
            pyramid.append(norm(x).permute(0, 5, 1, 2, 3, 4))
        return Encoded(grid=pyramid[-1], pyramid=pyramid)


def check_windows(windows: Sequence[Sequence[int]]) -> tuple[Window, ...]:
    """Return the windows of a configuration as tuples.

    Args:
        windows: Lengths along (Z, T, H, W) of each window.

    Raises:
        CmrvlmError: There is no window, or one has not four lengths of 0 or more.
    """
    checked: list[Window] = []
    for window in windows:
        if not isinstance(window, Sequence) or len(window) != 4 or min(window) < 0:
            raise CmrvlmError(
                f"{window} is no window",
                field="windows",
                remedy="Give each window four lengths, along (Z, T, H, W); 0 is the whole axis.",
            )
        z, t, h, w = window
        checked.append((z, t, h, w))
    if not checked:
        raise CmrvlmError(
            "there is no window to attend over",
            field="windows",
            remedy="Give at least one, such as [2, 1, 6, 6].",
        )
    return tuple(checked)
