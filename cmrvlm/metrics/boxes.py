"""Boxes around structures, in voxels along (Z, H, W), ends exclusive."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int, int, int]


def box_of(mask: NDArray[np.bool_]) -> Box | None:
    """Find the smallest box that holds a mask.

    Args:
        mask: (Z, H, W).

    Returns:
        (z0, h0, w0, z1, h1, w1), ends exclusive; None for an empty mask.
    """
    if not mask.any():
        return None
    voxel_index = np.argwhere(mask)  # (N, 3)
    z0, h0, w0 = voxel_index.min(axis=0).tolist()
    z1, h1, w1 = (voxel_index.max(axis=0) + 1).tolist()
    return z0, h0, w0, z1, h1, w1


def box_iou(first: Box, second: Box) -> float:
    """Return the volume of the intersection of two boxes over that of their union."""
    low = np.maximum(first[:3], second[:3])
    high = np.minimum(first[3:], second[3:])
    overlap = math.prod(np.maximum(high - low, 0).tolist())
    union = _volume(first) + _volume(second) - overlap
    return overlap / union


def _volume(box: Box) -> int:
    """Return the number of voxels in a box."""
    z0, h0, w0, z1, h1, w1 = box
    return (z1 - z0) * (h1 - h0) * (w1 - w0)
