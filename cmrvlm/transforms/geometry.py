"""Resampling between grids that are described by affines: one interpolation for orienting, spacing and cropping."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import grid_sample

from cmrvlm.study.study import FloatArray, MaskArray
from cmrvlm.study.vocabulary import NOT_ANNOTATED


def _sampling_grid(
    source_affine: NDArray[np.float64],
    source_shape: tuple[int, int, int],
    target_affine: NDArray[np.float64],
    target_shape: tuple[int, int, int],
) -> torch.Tensor:
    """Normalised source coordinates (1, Z, H, W, 3) of the target's voxel centres, as `grid_sample` wants them."""
    matrix = np.linalg.inv(source_affine) @ target_affine
    z, h, w = (torch.arange(n, dtype=torch.float64) for n in target_shape)
    zz, hh, ww = torch.meshgrid(z, h, w, indexing="ij")
    index = torch.stack([ww, hh, zz, torch.ones_like(zz)], dim=-1)  # (Z, H, W, 4)
    source = index @ torch.from_numpy(matrix).T  # (Z, H, W, 4), voxel index (w, h, z) in the source
    sizes = torch.tensor([source_shape[2], source_shape[1], source_shape[0]], dtype=torch.float64)
    # One slice has no extent: every target position within half a slice is that slice.
    scale = torch.where(sizes > 1, 2 / (sizes - 1).clamp(min=1), torch.full_like(sizes, 2.0))
    offset = torch.where(sizes > 1, -torch.ones_like(sizes), torch.zeros_like(sizes))
    return (source[..., :3] * scale + offset)[None].float()


def resample_image(
    image: FloatArray,
    affine: NDArray[np.float64],
    target_affine: NDArray[np.float64],
    target_shape: tuple[int, int, int],
) -> NDArray[np.float32]:
    """Trilinear resampling of (Z, T, H, W) onto a grid of `target_shape` (Z, H, W); 0 outside the source."""
    volume = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32)).transpose(0, 1)[
        None
    ]  # (1, T, Z, H, W)
    shape = (image.shape[0], image.shape[2], image.shape[3])
    grid = _sampling_grid(affine, shape, target_affine, target_shape)
    moved = grid_sample(volume, grid, mode="bilinear", padding_mode="zeros", align_corners=True)[
        0
    ]  # (T, Z, H, W)
    return np.ascontiguousarray(moved.transpose(0, 1).numpy())


def resample_mask(
    mask: MaskArray,
    affine: NDArray[np.float64],
    target_affine: NDArray[np.float64],
    target_shape: tuple[int, int, int],
) -> MaskArray:
    """Resampling of structure values: each value's membership is interpolated and the largest wins.

    No value appears that was not there. Outside the source all is 255 (not annotated).
    """
    shape = (mask.shape[0], mask.shape[2], mask.shape[3])
    grid = _sampling_grid(affine, shape, target_affine, target_shape)
    values = torch.from_numpy(np.ascontiguousarray(mask)).transpose(0, 1)[None]  # (1, T, Z, H, W)
    best = torch.full(
        (mask.shape[1], *target_shape), 1e-3
    )  # (T, Z, H, W); below it nothing of the source is near
    result = torch.full(best.shape, NOT_ANNOTATED, dtype=torch.uint8)
    for value in torch.unique(values).tolist():
        membership = grid_sample(
            (values == value).float(),
            grid,
            mode="bilinear",
            padding_mode="zeros",
            align_corners=True,
        )[0]
        result = torch.where(membership > best, torch.full_like(result, value), result)
        best = torch.maximum(best, membership)
    return np.ascontiguousarray(result.transpose(0, 1).numpy())


def target_grid(
    affine: NDArray[np.float64],
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    size: tuple[int | None, int | None, int | None],
    center_voxel: tuple[float, float, float],
) -> tuple[NDArray[np.float64], tuple[int, int, int]]:
    """Affine and shape of a grid with the source's directions, a new spacing and size, about a centre.

    Args:
        affine: The source's affine, over voxel index (w, h, z).
        shape: The source's (Z, H, W).
        spacing_mm: Wanted spacing along (Z, H, W).
        size: Wanted voxels along (Z, H, W); None covers the source's extent.
        center_voxel: Source voxel index (z, h, w) that the new grid is centred on.
    """
    old = np.linalg.norm(affine[:3, :3], axis=0)[::-1]  # (z, h, w)
    extent = np.array(shape) * old
    full = [max(1, round(float(e) / s)) for e, s in zip(extent, spacing_mm, strict=True)]
    new_shape = tuple(wanted or whole for wanted, whole in zip(size, full, strict=True))
    result = np.eye(4)
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    result[:3, :3] = directions * np.array(spacing_mm[::-1])
    middle = affine @ np.array([center_voxel[2], center_voxel[1], center_voxel[0], 1.0])
    half = (np.array(new_shape[::-1]) - 1) / 2
    result[:3, 3] = middle[:3] - result[:3, :3] @ half
    return result, (new_shape[0], new_shape[1], new_shape[2])


def box_mm(
    voxels: NDArray[np.bool_], affine: NDArray[np.float64]
) -> tuple[float, float, float, float, float, float] | None:
    """Compute the corners of the smallest world-aligned box around the centres of voxels.

    Args:
        voxels: (Z, H, W), True for those inside.
        affine: (4, 4), over voxel index (w, h, z).

    Returns:
        Corners (x0, y0, z0, x1, y1, z1) in mm; None where no voxel is True.
    """
    if not voxels.any():
        return None
    positions = np.argwhere(voxels)[:, ::-1]  # (N, 3), voxel index (w, h, z)
    points = positions @ affine[:3, :3].T + affine[:3, 3]
    x0, y0, z0 = (float(low) for low in points.min(axis=0))
    x1, y1, z1 = (float(high) for high in points.max(axis=0))
    return x0, y0, z0, x1, y1, z1
