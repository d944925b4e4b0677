"""Plausibility of where voxels lie: what is no human chest is refused with the number found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmrvlm.errors import CmrvlmError

# Longer side of an image. What is cropped to a small left ventricle has 40 mm at least, and no
# scanner's bore is wider than 800 mm. ACDC and EMIDEC, which are cropped, have 215 to 450 mm.
FIELD_OF_VIEW_MM = (40.0, 800.0)
# The shorter side: an image of one pixel row is no image.
_NARROWEST_MM = 20.0
# Sparse stacks of six slices lie 18 mm apart, those of phantoms with four 36 mm.
SLICE_DISTANCE_MM = (1.0, 40.0)
# Slices as close as this are those of a volume, which is as long as a heart.
_THIN_MM = 2.5
_SHORTEST_HEART_MM = 40.0
# Sine between axes below which a matrix cannot be inverted in any useful way.
_FLAT = 1e-3
_ROUNDING = 1e-5
_REMEDY = "Correct the header, or state spacing_mm where files have none."


def check_geometry(
    shape: tuple[int, ...],
    affine: NDArray[np.float64],
    path: Path | None = None,
    *,
    is_synthetic: bool = False,
) -> None:
    """Refuse an image whose voxels cannot lie in a human chest.

    Args:
        shape: (Z, T, H, W) of the image.
        affine: (4, 4), voxel index (w, h, z) to RAS in mm.
        path: Its file.
        is_synthetic: A phantom may be drawn in two or three slices.

    Raises:
        CmrvlmError: Axes coincide, or field of view or distance of slices are impossible.
    """
    slices, _, height, width = shape
    lengths = np.linalg.norm(affine[:3, :3], axis=0)  # (w, h, z)
    sides_mm = sorted((float(width * lengths[0]), float(height * lengths[1])))
    size = f"{width * lengths[0]:.4g} x {height * lengths[1]:.4g} mm"
    least, most = FIELD_OF_VIEW_MM
    # Headers hold distances in single precision.
    in_range = least * (1 - _ROUNDING) <= sides_mm[1] <= most * (1 + _ROUNDING)
    if not (in_range and sides_mm[0] >= _NARROWEST_MM):
        raise CmrvlmError(
            f"the field of view is {size}, that of a chest is {least:g} to {most:g} mm",
            file=path,
            field="pixdim",
            remedy=_REMEDY,
        )
    if slices > 1 and not is_synthetic:
        _check_slices(slices, float(lengths[2]), path)
    if not abs(np.linalg.det(affine[:3, :3] / lengths)) > _FLAT:
        raise CmrvlmError(
            "the affine is singular: two of its axes coincide",
            file=path,
            field="srow",
            remedy=_REMEDY,
        )


def _check_slices(count: int, distance_mm: float, path: Path | None) -> None:
    """Refuse slices that are too near or too far apart, or that make no heart together.

    Raises:
        CmrvlmError: They are.
    """
    least, most = SLICE_DISTANCE_MM
    problem = None
    if not least * (1 - _ROUNDING) <= distance_mm <= most * (1 + _ROUNDING):
        problem = f"slices lie {distance_mm:.4g} mm apart, {least:g} to {most:g} mm are possible"
    elif makes_no_heart(count, distance_mm):
        problem = (
            f"{count} slices {distance_mm:.4g} mm apart make {count * distance_mm:.4g} mm, no heart"
        )
    if problem:
        raise CmrvlmError(problem, file=path, field="pixdim", remedy=_REMEDY)


def makes_no_heart(count: int, distance_mm: float) -> bool:
    """Return whether slices are as close as those of a volume, but together shorter than a heart."""
    return count > 1 and distance_mm < _THIN_MM and count * distance_mm < _SHORTEST_HEART_MM
