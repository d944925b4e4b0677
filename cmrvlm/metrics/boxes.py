"""Boxes around structures, in voxels: first and last index past it along (Z, H, W)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int, int, int]


def box_of(mask: NDArray[np.bool_]) -> Box | None:
    """Smallest box (z0, h0, w0, z1, h1, w1) that holds a mask (Z, H, W), ends exclusive; None for an empty one."""
    if not mask.any():
        return None
    edges = [
        np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)
    ]
    low = [int(edge[0]) for edge in edges]
    high = [int(edge[-1]) + 1 for edge in edges]
    return (low[0], low[1], low[2], high[0], high[1], high[2])


def box_iou(a: Box, b: Box) -> float:
    """Volume of the intersection over volume of the union."""
    overlap = math.prod(max(0, min(a[k + 3], b[k + 3]) - max(a[k], b[k])) for k in range(3))
    volume_a, volume_b = (math.prod(box[k + 3] - box[k] for k in range(3)) for box in (a, b))
    return overlap / (volume_a + volume_b - overlap)
