"""Resampling between grids that affines describe: one interpolation orients, rescales and crops."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import grid_sample

from cmrvlm.study.study import FloatArray, MaskArray
from cmrvlm.study.vocabulary import NOT_ANNOTATED

Affine = NDArray[np.float64]
Shape = tuple[int, int, int]

# Interpolated membership below which a voxel is outside the source.
_LEAST_MEMBERSHIP = 1e-3
# Positions in a source, in voxels, count to this many decimals.
_INDEX_DECIMALS = 3


def _sampling_grid(
    source_affine: Affine,
    source_shape: Shape,
    target_affine: Affine,
    target_shape: Shape,
) -> torch.Tensor:
    """Compute where the voxel centres of a target grid lie in a source, for `grid_sample`.

    Args:
        source_affine: (4, 4), over voxel index (w, h, z).
        source_shape: (Z, H, W) of the source.
        target_affine: (4, 4), over voxel index (w, h, z).
        target_shape: (Z, H, W) of the target.

    Returns:
        (1, Z, H, W, 3) float32, source positions (w, h, z) from -1 to 1.
    """
    target_to_source = torch.from_numpy(np.linalg.inv(source_affine) @ target_affine)
    ranges = [torch.arange(count, dtype=torch.float64) for count in target_shape]
    z, h, w = torch.meshgrid(*ranges, indexing="ij")
    ones = torch.ones_like(z)
    target_index = torch.stack([w, h, z, ones], dim=-1)  # (Z, H, W, 4)
    source_index = target_index @ target_to_source.T  # (Z, H, W, 4)
    # A voxel halfway between two others belongs to either of them. Rounding of headers in single
    # precision must not decide which: the same image would have other masks in each of its files.
    source_index = source_index.round(decimals=_INDEX_DECIMALS)

    sizes = torch.tensor(source_shape[::-1], dtype=torch.float64)  # (w, h, z)
    # One slice has no extent: every target position within half a slice is that slice.
    extended = sizes > 1
    intervals = (sizes - 1).clamp(min=1)
    scale = 2 / intervals
    offset = -extended.double()
    positions = source_index[..., :3] * scale + offset  # (Z, H, W, 3)
    return positions[None].float()


def _sample(volume: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Interpolate a volume trilinearly on a sampling grid; 0 outside.

    Args:
        volume: (1, T, Z, H, W).
        grid: (1, Z, H, W, 3) from `_sampling_grid`.

    Returns:
        (T, Z, H, W).
    """
    sampled = grid_sample(volume, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    return sampled[0]


def resample_image(
    image: FloatArray,
    affine: Affine,
    target_affine: Affine,
    target_shape: Shape,
) -> NDArray[np.float32]:
    """Resample an image trilinearly onto another grid.

    Args:
        image: (Z, T, H, W).
        affine: (4, 4) of the image, over voxel index (w, h, z).
        target_affine: (4, 4) of the target grid.
        target_shape: (Z, H, W) of the target grid.

    Returns:
        (Z, T, H, W) on the target grid; 0 outside the source.
    """
    z, _, h, w = image.shape
    grid = _sampling_grid(affine, (z, h, w), target_affine, target_shape)
    values = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
    volume = values.transpose(0, 1)[None]  # (1, T, Z, H, W)
    resampled = _sample(volume, grid)  # (T, Z, H, W)
    return np.ascontiguousarray(resampled.transpose(0, 1).numpy())


def resample_mask(
    mask: MaskArray,
    affine: Affine,
    target_affine: Affine,
    target_shape: Shape,
) -> MaskArray:
    """Resample a mask: each value's membership is interpolated and the largest wins.

    No structure value appears that was not there.

    Args:
        mask: (Z, T, H, W) structure values.
        affine: (4, 4) of the mask, over voxel index (w, h, z).
        target_affine: (4, 4) of the target grid.
        target_shape: (Z, H, W) of the target grid.

    Returns:
        (Z, T, H, W) on the target grid; 255 (not annotated) outside the source.
    """
    z, frames, h, w = mask.shape
    grid = _sampling_grid(affine, (z, h, w), target_affine, target_shape)
    values = torch.from_numpy(np.ascontiguousarray(mask))
    volume = values.transpose(0, 1)[None]  # (1, T, Z, H, W)

    largest = torch.full((frames, *target_shape), _LEAST_MEMBERSHIP)  # (T, Z, H, W)
    result = torch.full(largest.shape, NOT_ANNOTATED, dtype=torch.uint8)
    for value in torch.unique(volume).tolist():
        is_value = (volume == value).float()
        membership = _sample(is_value, grid)  # (T, Z, H, W)
        result[membership > largest] = value
        largest = torch.maximum(largest, membership)
    return np.ascontiguousarray(result.transpose(0, 1).numpy())


def target_grid(
    affine: Affine,
    shape: Shape,
    spacing_mm: tuple[float, float, float],
    size: tuple[int | None, int | None, int | None],
    center_voxel: tuple[float, float, float],
) -> tuple[Affine, Shape]:
    """Compute a grid with the source's directions and a new spacing, size and centre.

    Args:
        affine: (4, 4) of the source, over voxel index (w, h, z).
        shape: (Z, H, W) of the source.
        spacing_mm: New spacing along (Z, H, W).
        size: New number of voxels along (Z, H, W); None covers the source's extent.
        center_voxel: Source voxel index (z, h, w) that the new grid is centred on.

    Returns:
        Affine (4, 4) and shape (Z, H, W) of the grid.
    """
    source_spacing = np.linalg.norm(affine[:3, :3], axis=0)  # (w, h, z)
    extent_mm = np.array(shape) * source_spacing[::-1]  # (z, h, w)
    counts = []
    for extent, spacing, count in zip(extent_mm.tolist(), spacing_mm, size, strict=True):
        covering = max(1, round(extent / spacing))
        counts.append(count or covering)
    z, h, w = counts

    directions = affine[:3, :3] / source_spacing
    axes = directions * np.array(spacing_mm[::-1])
    center = affine @ np.array([*center_voxel[::-1], 1.0])
    half_extent = (np.array([w, h, z]) - 1) / 2
    target_affine = np.eye(4)
    target_affine[:3, :3] = axes
    target_affine[:3, 3] = center[:3] - axes @ half_extent
    return target_affine, (z, h, w)


def box_mm(voxels: NDArray[np.bool_], affine: Affine) -> tuple[float, ...] | None:
    """Compute the corners of the smallest world-aligned box around the centres of voxels.

    Args:
        voxels: (Z, H, W), True for those inside.
        affine: (4, 4), over voxel index (w, h, z).

    Returns:
        Corners (x0, y0, z0, x1, y1, z1) in mm; None where no voxel is True.
    """
    if not voxels.any():
        return None
    voxel_index = np.argwhere(voxels)[:, ::-1]  # (N, 3), (w, h, z)
    points = voxel_index @ affine[:3, :3].T + affine[:3, 3]
    x0, y0, z0 = points.min(axis=0).tolist()
    x1, y1, z1 = points.max(axis=0).tolist()
    return x0, y0, z0, x1, y1, z1
