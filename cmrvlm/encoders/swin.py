"""Hierarchical encoder with windowed attention: convolutional stem, stages, merging in plane."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import pad

from cmrvlm.encoders.base import Encoded, Encoder, TokenGrid
from cmrvlm.encoders.stem import ConvStem
from cmrvlm.encoders.window_attention import AttentionBlock
from cmrvlm.encoders.windows import Window
from cmrvlm.errors import CmrvlmError


class SlicePosition(nn.Module):
    """Learned embedding of where a slice lies between the first and the last slice.

    Args:
        width: Channels.
        frequencies: Frequencies of the sine and cosine features that are embedded.
    """

    def __init__(self, width: int, frequencies: int = 4) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.project = nn.Linear(2 * frequencies, width)

    def forward(self, x: Tensor) -> Tensor:
        """Add the embedding to features (N, Z, T, H, W, C); a single slice lies in the middle."""
        slices = x.shape[1]
        if slices > 1:
            position = torch.linspace(0, 1, slices, device=x.device)
        else:
            position = torch.full((1,), 0.5, device=x.device)

        octaves = torch.arange(-1, self.frequencies - 1, device=x.device)
        phases = position[:, None] * torch.pi * 2.0**octaves  # (Z, f)
        waves = [phases.sin(), phases.cos()]
        features = torch.cat(waves, dim=-1)  # (Z, 2 f)
        features = features.to(x.dtype)
        embedding = rearrange(self.project(features), "z c -> 1 z 1 1 1 c")
        return x + embedding


class MergeInPlane(nn.Module):
    """Halve H and W: four neighbours become one token of twice the width.

    Args:
        width: Channels of the input.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduce = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Merge features in plane; odd sizes are padded with zeros.

        Args:
            x: Features (N, Z, T, H, W, C).

        Returns:
            Features (N, Z, T, ceil(H / 2), ceil(W / 2), 2C).
        """
        height, width = x.shape[3:5]
        odd_rows = height % 2
        odd_columns = width % 2
        if odd_rows or odd_columns:
            # `pad` takes the axes from the last to the first: channels, W, H.
            x = pad(x, (0, 0, 0, odd_columns, 0, odd_rows))
        neighbours = rearrange(x, "n z t (h i) (w j) c -> n z t h w (i j c)", i=2, j=2)
        return self.reduce(self.norm(neighbours))


class SwinEncoder(Encoder):
    """Convolutional stem at stride 8, then stages of windowed attention with merging in plane.

    The windows decide what the encoder is for. A window within each frame followed by one along
    time serves a cine stack (4D). One window over all axes serves a series that has only three of
    them, such as a stack without time or a cine of a single slice (3D).

    Args:
        windows: Lengths along (Z, T, H, W) of the windows that each block attends over, one after
            the other; 0 is the whole axis, and a window never exceeds its axis.
        stem_channels: Channels of the stem at strides 4 and 8; the last is the width of the first
            stage.
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
        spatial_grid: TokenGrid = (4, 3, 3),
        temporal_tokens: int = 8,
        view_grid: TokenGrid = (2, 3, 3),
    ) -> None:
        super().__init__(spatial_grid, temporal_tokens, view_grid)
        checked_windows = check_windows(windows)
        self.stem = ConvStem(tuple(stem_channels), (4, 2))
        width = stem_channels[-1]
        self.position = SlicePosition(width)
        # Width doubles where merging halves height and width.
        widths = [width * 2**stage for stage in range(len(depths))]
        self.merges = nn.ModuleList(MergeInPlane(w) for w in widths[:-1])
        self.stages = nn.ModuleList()
        for stage, depth in enumerate(depths):
            blocks = nn.Sequential()
            for block in range(depth):
                attention = AttentionBlock(
                    width=widths[stage],
                    heads=heads * 2**stage,
                    windows=checked_windows,
                    # Every second block shifts its windows, so that neighbours exchange features.
                    shifted=block % 2 == 1,
                )
                blocks.append(attention)
            self.stages.append(blocks)
        self.norms = nn.ModuleList(nn.LayerNorm(w) for w in widths)
        self.width = widths[-1]
        self.pyramid_channels = (1, *stem_channels[:-1], *widths)

    def forward(self, images: Tensor) -> Encoded:
        """Encode images (N, 1, Z, T, H, W)."""
        maps = self.stem(images)
        x = rearrange(maps[-1], "n c z t h w -> n z t h w c")
        x = self.position(x)
        pyramid = [images, *maps[:-1]]
        for index, (stage, norm) in enumerate(zip(self.stages, self.norms, strict=True)):
            if index > 0:
                x = self.merges[index - 1](x)
            x = stage(x)
            level = rearrange(norm(x), "n z t h w c -> n c z t h w")
            pyramid.append(level)
        return Encoded(grid=pyramid[-1], pyramid=pyramid)


def check_windows(
    windows: Sequence[Sequence[int]],
) -> tuple[Window, ...]:
    """Return the windows of a configuration as tuples.

    Args:
        windows: Lengths along (Z, T, H, W) of each window.

    Raises:
        CmrvlmError: There is no window, or one has not four lengths of 0 or more.
    """
    checked: list[Window] = []
    for window in windows:
        if not isinstance(window, Sequence) or len(window) != 4 or min(window) < 0:
            # A window that is a number is a list that lacks its outer brackets.
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
