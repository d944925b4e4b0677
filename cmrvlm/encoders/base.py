"""What an encoder returns, and how views of a study become tokens."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool1d, adaptive_avg_pool3d

# Of pictures that are computed together where nothing is learned: more are no faster, and take more memory.
PIXELS_AT_ONCE = 2**20


@dataclass
class Encoded:
    """One batch of series, encoded.

    Attributes:
        grid: Final features (N, D, Z, T, h, w).
        pyramid: Feature maps (N, C_i, Z, T, H / s_i, W / s_i), finest first, at the input's own resolution: the input
            itself or features of it.
    """

    grid: Tensor
    pyramid: list[Tensor]


class Encoder(nn.Module):
    """Base of all encoders: images (N, 1, Z, T, H, W) of any size to `Encoded`.

    The tokens that the language model reads are pooled from `Encoded.grid` to fixed numbers, so that the prompt does
    not depend on the image's size.

    Args:
        spatial_grid: Tokens along (Z, h, w) of the time-averaged features.
        temporal_tokens: Tokens along T of the space-averaged features; 0 for images without time.
        view_grid: Tokens along (Z, h, w) of a single frame or slice.

    Attributes:
        width: Channels of the final features.
        pyramid_channels: Channels of each level of the pyramid.
        pyramid_strides: Stride in plane of each.
    """

    width: int
    pyramid_channels: tuple[int, ...]
    pyramid_strides: tuple[int, ...] = (1, 4, 8, 16)

    def __init__(
        self,
        spatial_grid: tuple[int, int, int],
        temporal_tokens: int,
        view_grid: tuple[int, int, int] = (2, 3, 3),
    ) -> None:
        super().__init__()
        self.spatial_grid: tuple[int, int, int] = (
            spatial_grid[0],
            spatial_grid[1],
            spatial_grid[2],
        )
        self.temporal_tokens = temporal_tokens
        self.view_grid: tuple[int, int, int] = (view_grid[0], view_grid[1], view_grid[2])

    @abstractmethod
    def forward(self, images: Tensor) -> Encoded:
        """Encode images (N, 1, Z, T, H, W)."""

    @property
    def series_tokens(self) -> int:
        """Number of tokens of a whole series."""
        z, h, w = self.spatial_grid
        return z * h * w + self.temporal_tokens

    @property
    def view_tokens(self) -> int:
        """Number of tokens of one frame or one slice."""
        z, h, w = self.view_grid
        return z * h * w

    def tokens_of_series(self, grid: Tensor) -> Tensor:
        """Spatial then temporal tokens of whole series: (N, D, Z, T, h, w) to (N, series_tokens, D)."""
        spatial = adaptive_avg_pool3d(grid.mean(dim=3), self.spatial_grid).flatten(
            2
        )  # (N, D, z*h*w)
        if self.temporal_tokens == 0:
            return spatial.transpose(1, 2)
        temporal = adaptive_avg_pool1d(grid.mean(dim=(2, 4, 5)), self.temporal_tokens)  # (N, D, t)
        return torch.cat([spatial, temporal], dim=2).transpose(1, 2)

    def tokens_of_views(
        self, grid: Tensor, index: Tensor, frames: Tensor, slices: Tensor
    ) -> Tensor:
        """Tokens of single frames or slices.

        Args:
            grid: (N, D, Z, T, h, w).
            index: (M,) which series each view is of.
            frames: (M,) frame, or -1 for the mean over time.
            slices: (M,) slice, or -1 for all slices.

        Returns:
            (M, view_tokens, D).
        """
        frame_like = slices < 0
        out = grid.new_zeros(len(index), grid.shape[1], *self.view_grid)
        if bool(frame_like.any()):
            picked = grid[index[frame_like], :, :, frames[frame_like]]  # (m, D, Z, h, w)
            out[frame_like] = adaptive_avg_pool3d(picked, self.view_grid).to(out.dtype)
        if not bool(frame_like.all()):
            rest = ~frame_like
            still = frames[rest] < 0
            picked = grid[index[rest], :, slices[rest]]  # (m, D, T, h, w)
            one = picked[
                torch.arange(len(picked), device=grid.device), :, frames[rest].clamp(min=0)
            ]  # (m, D, h, w)
            flat = torch.where(still[:, None, None, None], picked.mean(dim=2), one)
            out[rest] = adaptive_avg_pool3d(flat[:, :, None], self.view_grid).to(out.dtype)
        return out.flatten(2).transpose(1, 2)


def apply_in_groups(layer: Callable[[Tensor], Tensor], pictures: Tensor) -> Tensor:
    """What a layer that never mixes pictures makes of (N, C, H, W), in groups where no gradient is wanted."""
    together = pictures_at_once(len(pictures), *pictures.shape[2:])
    if len(pictures) <= together:
        return layer(pictures)
    return torch.cat([layer(group) for group in torch.split(pictures, together)])


def pictures_at_once(count: int, height: int, width: int) -> int:
    """How many of so many pictures are to be computed together: all of them where a gradient is wanted."""
    return count if torch.is_grad_enabled() else max(1, PIXELS_AT_ONCE // (height * width))


def frames_as_batch(images: Tensor) -> Tensor:
    """(N, C, Z, T, H, W) to (N*Z*T, C, H, W): every frame of every slice is a picture."""
    n, c, z, t, h, w = images.shape
    return images.permute(0, 2, 3, 1, 4, 5).reshape(n * z * t, c, h, w)


def frames_to_volume(pictures: Tensor, n: int, z: int, t: int) -> Tensor:
    """Inverse of `frames_as_batch`: (N*Z*T, C, H, W) to (N, C, Z, T, H, W)."""
    _, c, h, w = pictures.shape
    return pictures.reshape(n, z, t, c, h, w).permute(0, 3, 1, 2, 4, 5)
