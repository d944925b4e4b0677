"""Hierarchical windowed-attention encoder shared by `swin4d` and `swin3d`: stem, stages, in-plane merging."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from cmrvlm.encoders.base import Encoded, Encoder
from cmrvlm.encoders.stem import ConvStem
from cmrvlm.encoders.window_attention import AttentionBlock, Window


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


class Swin(Encoder):
    """Stem at stride 8, then stages of attention blocks with merging in plane between them.

    Args:
        stem_channels: Channels of the stem at strides 4 and 8; the last is the width of the first stage.
        depths: Blocks in each stage; width doubles from one to the next.
        heads: Attention heads in the first stage; they double too.
        windows: Windows that each block attends over in turn, along (Z, T, H, W); 0 is the whole axis.
        spatial_grid: See `Encoder`.
        temporal_tokens: See `Encoder`.
        view_grid: See `Encoder`.
    """

    def __init__(
        self,
        stem_channels: tuple[int, int],
        depths: tuple[int, ...],
        heads: int,
        windows: tuple[Window, ...],
        spatial_grid: tuple[int, int, int],
        temporal_tokens: int,
        view_grid: tuple[int, int, int] = (2, 3, 3),
    ) -> None:
        super().__init__(spatial_grid, temporal_tokens, view_grid)
        self.stem = ConvStem(tuple(stem_channels), (4, 2))
        width = stem_channels[-1]
        self.position = SlicePosition(width)
        widths = [width * 2**i for i in range(len(depths))]
        self.merges = nn.ModuleList(MergeInPlane(w) for w in widths[:-1])
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(
                    AttentionBlock(w, heads * 2**i, tuple(windows), shifted=bool(b % 2))
                    for b in range(depth)
                )
            )
            for i, (w, depth) in enumerate(zip(widths, depths, strict=True))
        )
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


class Swin4D(Swin):
    """Short-axis cine: each block attends over space within a frame, then over time at each place.

    Args:
        stem_channels: See `Swin`.
        depths: See `Swin`.
        heads: See `Swin`.
        spatial_window: Lengths along (Z, H, W).
        spatial_grid: See `Encoder`.
        temporal_tokens: See `Encoder`.
        view_grid: See `Encoder`.
    """

    def __init__(
        self,
        stem_channels: tuple[int, int] = (24, 48),
        depths: tuple[int, ...] = (0, 2),
        heads: int = 2,
        spatial_window: tuple[int, int, int] = (2, 6, 6),
        spatial_grid: tuple[int, int, int] = (4, 3, 3),
        temporal_tokens: int = 8,
        view_grid: tuple[int, int, int] = (2, 3, 3),
    ) -> None:
        z, h, w = spatial_window
        windows: tuple[Window, ...] = ((z, 1, h, w), (1, 0, 1, 1))
        super().__init__(
            stem_channels, depths, heads, windows, spatial_grid, temporal_tokens, view_grid
        )


class Swin3D(Swin):
    """LGE stacks and four-chamber cines: one window over the three axes that the series has.

    Args:
        stem_channels: See `Swin`.
        depths: See `Swin`.
        heads: See `Swin`.
        window: Lengths along (Z or T, H, W): Z for stacks without time, T for a single cine slice.
        spatial_grid: See `Encoder`.
        temporal_tokens: See `Encoder`.
        view_grid: See `Encoder`.
    """

    def __init__(
        self,
        stem_channels: tuple[int, int] = (24, 48),
        depths: tuple[int, ...] = (0, 2),
        heads: int = 2,
        window: tuple[int, int, int] = (4, 6, 6),
        spatial_grid: tuple[int, int, int] = (4, 3, 3),
        temporal_tokens: int = 0,
        view_grid: tuple[int, int, int] = (2, 3, 3),
    ) -> None:
        depth, h, w = window
        windows: tuple[Window, ...] = ((depth, depth, h, w),)
        super().__init__(
            stem_channels, depths, heads, windows, spatial_grid, temporal_tokens, view_grid
        )
