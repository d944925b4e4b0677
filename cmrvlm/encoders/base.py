"""Base class of the encoders, their output, and the pooling of features to tokens."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool1d, adaptive_avg_pool3d

# Lengths along (Z, h, w).
TokenGrid = tuple[int, int, int]

# Pixels of the pictures that are computed together in inference: more pictures are no faster, and
# take more memory.
PIXELS_AT_ONCE = 2**20


@dataclass
class Encoded:
    """Features of a batch of N series.

    Attributes:
        grid: Final features (N, D, Z, T, h, w).
        pyramid: Feature maps (N, C_i, Z, T, H / s_i, W / s_i), finest first. The first has the
            resolution of the images: it is the images themselves or features of them.
    """

    grid: Tensor
    pyramid: list[Tensor]


class Encoder(nn.Module):
    """Base of all encoders: images (N, 1, Z, T, H, W) of any size to `Encoded`.

    The tokens that the language model reads are pooled from `Encoded.grid` to fixed numbers, so
    that the prompt does not depend on the size of the images.

    Args:
        spatial_grid: Tokens along (Z, h, w) of the time-averaged features.
        temporal_tokens: Tokens along T of the space-averaged features; 0 for images without time.
        view_grid: Tokens along (Z, h, w) of a single frame or slice.

    Attributes:
        width: Channels of the final features.
        pyramid_channels: Channels of each level of the pyramid.
        pyramid_strides: In-plane stride of each level of the pyramid.
    """

    width: int
    pyramid_channels: tuple[int, ...]
    pyramid_strides: tuple[int, ...] = (1, 4, 8, 16)

    def __init__(
        self,
        spatial_grid: TokenGrid,
        temporal_tokens: int,
        view_grid: TokenGrid = (2, 3, 3),
    ) -> None:
        super().__init__()
        self.spatial_grid = _three_lengths(spatial_grid)
        self.temporal_tokens = temporal_tokens
        self.view_grid = _three_lengths(view_grid)

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
        """Number of tokens of a single frame or slice."""
        z, h, w = self.view_grid
        return z * h * w

    def tokens_of_series(self, grid: Tensor) -> Tensor:
        """Pool whole series to their tokens, spatial ones before temporal ones.

        Args:
            grid: Final features (N, D, Z, T, h, w).

        Returns:
            Tokens (N, series_tokens, D).
        """
        time_average = grid.mean(dim=3)  # (N, D, Z, h, w)
        spatial = adaptive_avg_pool3d(time_average, self.spatial_grid)
        tokens = spatial.flatten(2)  # (N, D, z*h*w)
        if self.temporal_tokens > 0:
            space_average = grid.mean(dim=(2, 4, 5))  # (N, D, T)
            temporal = adaptive_avg_pool1d(space_average, self.temporal_tokens)
            tokens = torch.cat([tokens, temporal], dim=2)
        return tokens.transpose(1, 2)

    def tokens_of_views(
        self,
        grid: Tensor,
        index: Tensor,
        frames: Tensor,
        slices: Tensor,
    ) -> Tensor:
        """Pool M single frames (all slices at one time) or single slices to their tokens.

        Args:
            grid: Final features (N, D, Z, T, h, w).
            index: Series of each view (M,).
            frames: Frame of each view (M,), or -1 for the mean over time of a slice.
            slices: Slice of each view (M,), or -1 for all slices of a frame.

        Returns:
            Tokens (M, view_tokens, D).
        """
        width = grid.shape[1]
        pooled = grid.new_zeros(len(index), width, *self.view_grid)
        # Frames and slices are pooled from volumes of different depths: one group after the other.
        is_frame = slices < 0
        is_slice = ~is_frame

        if bool(is_frame.any()):
            volumes = grid[index[is_frame], :, :, frames[is_frame]]  # (m, D, Z, h, w)
            values = adaptive_avg_pool3d(volumes, self.view_grid)
            pooled[is_frame] = values.to(pooled.dtype)

        if bool(is_slice.any()):
            volumes = _slice_features(
                grid,
                index[is_slice],
                frames[is_slice],
                slices[is_slice],
            )
            values = adaptive_avg_pool3d(volumes, self.view_grid)
            pooled[is_slice] = values.to(pooled.dtype)

        return rearrange(pooled, "m d z h w -> m (z h w) d")


def _three_lengths(lengths: TokenGrid) -> TokenGrid:
    """Return three lengths as a tuple: a configuration gives a list, which pooling refuses."""
    z, h, w = lengths
    return z, h, w


def _slice_features(
    grid: Tensor,
    index: Tensor,
    frames: Tensor,
    slices: Tensor,
) -> Tensor:
    """Select single slices at one frame, or averaged over time.

    Args:
        grid: Final features (N, D, Z, T, h, w).
        index: Series of each slice (M,).
        frames: Frame of each slice (M,), or -1 for the mean over time.
        slices: Position of each slice along Z (M,).

    Returns:
        Features (M, D, 1, h, w).
    """
    cines = grid[index, :, slices]  # (M, D, T, h, w)
    rows = torch.arange(len(cines), device=grid.device)
    single_frames = cines[rows, :, frames.clamp(min=0)]  # (M, D, h, w)
    averaged = rearrange(frames < 0, "m -> m 1 1 1")
    planes = torch.where(averaged, cines.mean(dim=2), single_frames)
    return rearrange(planes, "m d h w -> m d 1 h w")


def apply_in_groups(layer: Callable[[Tensor], Tensor], pictures: Tensor) -> Tensor:
    """Apply a layer to pictures, in groups that fit into memory where no gradient is wanted.

    Args:
        layer: Layer that treats each picture independently of the others.
        pictures: Pictures (N, C, H, W).

    Returns:
        Output of the layer for all N pictures, (N, C', H', W').
    """
    count, _, height, width = pictures.shape
    group_size = pictures_at_once(count, height, width)
    if count <= group_size:
        return layer(pictures)
    groups = torch.split(pictures, group_size)
    return torch.cat([layer(group) for group in groups])


def pictures_at_once(count: int, height: int, width: int) -> int:
    """Return how many of `count` pictures to compute together: all where a gradient is wanted."""
    if torch.is_grad_enabled():
        return count
    return max(1, PIXELS_AT_ONCE // (height * width))


def frames_as_batch(images: Tensor) -> Tensor:
    """Reshape (N, C, Z, T, H, W) to (N*Z*T, C, H, W): each frame of each slice is a picture."""
    return rearrange(images, "n c z t h w -> (n z t) c h w")


def frames_to_volume(pictures: Tensor, n: int, z: int, t: int) -> Tensor:
    """Undo `frames_as_batch`: reshape (N*Z*T, C, H, W) to (N, C, Z, T, H, W)."""
    return rearrange(pictures, "(n z t) c h w -> n c z t h w", n=n, z=z, t=t)
