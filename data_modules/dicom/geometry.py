"""Place the slices of a stack: their heights along the normal, shifts in the plane, the affine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cmrvlm.errors import CmrvlmError
from data_modules.dicom.image import Image, Vector

# DICOM positions are in LPS, affines in RAS.
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
# Images nearer to each other along the normal are of one slice.
SAME_POSITION_MM = 0.1
# A slice that was planned anew lies less than this share of the stack's usual distance, and of the
# slices' thickness, from the one that it repeats, and not farther than a hand's rounding.
_REPEAT_SHARE = 0.25
_REPEAT_MM = 2.0
# Fewer slices do not tell their usual distance.
_LEAST_SLICES = 3
# Slices nearer to the stack's line than this are on it; scanners round positions.
_ON_LINE_MM = 0.5
# Slices are irregular when their distances differ by more than both of these.
_UNEVEN_MM = 0.5
_UNEVEN_RATIO = 0.02


def position_along(image: Image, normal: Vector) -> float:
    """Return the position of an image in mm along a normal (3,).

    Raises:
        CmrvlmError: The image has no position.
    """
    if image.position_mm is None:
        raise CmrvlmError(
            "the image does not say where it lies",
            file=f"file {image.file_number}",
            field="ImagePositionPatient",
            remedy="Give spacing_mm to place its slices.",
        )
    return float(image.position_mm @ normal)


def heights_mm(slices: Sequence[Sequence[Image]]) -> Vector:
    """Compute the distance (Z,) of each slice from the first along the normal."""
    normal = slices[0][0].normal
    positions = np.array([position_along(images[0], normal) for images in slices])
    return np.abs(positions - positions[0])


def repeat_distance_mm(slices: Sequence[Sequence[Image]]) -> float:
    """Compute the distance in mm below which two slices show one place of the heart.

    Half of all slices may be repeats, so that the larger distances are the usual ones. Thin slices
    of a volume, whose distances are all alike, are none.
    """
    if len(slices) < _LEAST_SLICES:
        return SAME_POSITION_MM
    usual_mm = float(np.percentile(np.diff(heights_mm(slices)), 75))
    thickness_mm = slices[0][0].facts.thickness_mm or usual_mm
    return max(SAME_POSITION_MM, min(_REPEAT_SHARE * min(usual_mm, thickness_mm), _REPEAT_MM))


def is_uneven(gaps_mm: Vector) -> bool:
    """Check whether distances (Z - 1,) of slices differ by more than rounding explains."""
    if len(gaps_mm) < 2:
        return False
    tolerance_mm = max(_UNEVEN_MM, _UNEVEN_RATIO * float(np.median(gaps_mm)))
    return bool(np.ptp(gaps_mm) > tolerance_mm)


def plane_offsets_mm(slices: Sequence[Sequence[Image]]) -> NDArray[np.float64]:
    """Compute where each slice lies in its plane beside the first, (Z, 2): along column and row.

    The first number counts along the index of rows, the second along that of columns.
    """
    first = slices[0][0]
    offsets = []
    for images in slices:
        step = np.asarray(images[0].position_mm) - np.asarray(first.position_mm)
        offsets.append([step @ first.column_direction, step @ first.row_direction])
    return np.array(offsets)


def plane_line_mm(slices: Sequence[Sequence[Image]]) -> NDArray[np.float64]:
    """Compute the line (Z, 2) on which slices of the stack's grid lie in the plane.

    Slices of a sheared stack lie on one line. Where they lie on none, some of them were moved
    aside: the line then runs along the normal through the middle of all slices.
    """
    offsets_mm = plane_offsets_mm(slices)
    if len(offsets_mm) == 1:
        return offsets_mm
    heights = heights_mm(slices)
    slope, start = np.polyfit(heights, offsets_mm, 1)
    line_mm = start + heights[:, None] * slope
    if np.abs(offsets_mm - line_mm).max() <= _ON_LINE_MM:
        return np.asarray(line_mm)
    return np.broadcast_to(np.median(offsets_mm, axis=0), offsets_mm.shape)


def aside_mm(slices: Sequence[Sequence[Image]]) -> NDArray[np.float64]:
    """Compute how far each slice lies beside the stack's grid, (Z, 2); 0 for those on it."""
    aside = plane_offsets_mm(slices) - plane_line_mm(slices)
    aside[np.abs(aside).max(axis=1) <= _ON_LINE_MM] = 0.0
    return aside


def affine_of(
    slices: Sequence[Sequence[Image]], spacing_mm: Sequence[float] | None = None
) -> NDArray[np.float64]:
    """Compute the affine (4, 4) from voxel (w, h, z) to RAS in mm.

    The distance of slices is that of their positions, whatever the headers state.

    Args:
        slices: Images of each slice.
        spacing_mm: Distance of slices, rows and columns, used where the files state none.

    Raises:
        CmrvlmError: Neither the files nor `spacing_mm` say how far apart pixels are.
    """
    first = slices[0][0]
    row_mm, column_mm = in_plane_spacing_mm(first, spacing_mm)
    affine = np.eye(4)
    affine[:3, 0] = first.row_direction * column_mm
    affine[:3, 1] = first.column_direction * row_mm
    affine[:3, 2] = _slice_step_mm(slices, spacing_mm)
    if first.position_mm is not None:
        on_line = plane_line_mm(slices)[0]
        shift = first.column_direction * on_line[0] + first.row_direction * on_line[1]
        affine[:3, 3] = first.position_mm + shift
    affine[:3] = LPS_TO_RAS @ affine[:3]
    return affine


def in_plane_spacing_mm(image: Image, spacing_mm: Sequence[float] | None) -> tuple[float, float]:
    """Return the distance of rows and of columns.

    Raises:
        CmrvlmError: Neither the file nor `spacing_mm` states it.
    """
    if image.spacing_mm:
        return image.spacing_mm
    if spacing_mm is None:
        raise CmrvlmError(
            "pixels have no spacing",
            file=f"file {image.file_number}",
            field="PixelSpacing",
            remedy="Give spacing_mm=[slices,rows,columns].",
        )
    return spacing_mm[1], spacing_mm[2]


def stated_thickness_mm(image: Image) -> float | None:
    """Return what a single slice stands for, None where the file does not state it."""
    for stated_mm in (image.facts.stated_gap_mm, image.facts.thickness_mm):
        if stated_mm:
            return abs(stated_mm)
    return None


def _slice_step_mm(slices: Sequence[Sequence[Image]], spacing_mm: Sequence[float] | None) -> Vector:
    """Return the vector (3,) in LPS from a slice to the next."""
    first = slices[0][0]
    if len(slices) > 1:
        last = slices[-1][0]
        steps = len(slices) - 1
        line_mm = plane_line_mm(slices)
        in_plane = (line_mm[-1] - line_mm[0]) / steps
        height = (np.asarray(last.position_mm) - np.asarray(first.position_mm)) @ first.normal
        return np.asarray(
            first.normal * (height / steps)
            + first.column_direction * in_plane[0]
            + first.row_direction * in_plane[1]
        )
    # A single slice is as thick as what it stands for.
    thickness_mm = stated_thickness_mm(first)
    if thickness_mm is not None:
        return np.asarray(first.normal * thickness_mm)
    if spacing_mm:
        return np.asarray(first.normal * spacing_mm[0])
    return first.normal


def places_among(slices: Sequence[Sequence[Image]], others: Sequence[Image]) -> list[int]:
    """Return the numbers that images would have among the slices of a stack, from its first.

    Args:
        slices: Images of each slice of the stack.
        others: Images of the same series, parallel to it.
    """
    heights = heights_mm(slices)
    first, last = slices[0][0], slices[-1][0]
    normal = first.normal
    if position_along(last, normal) < position_along(first, normal):
        normal = -normal
    start_mm = position_along(first, normal) + SAME_POSITION_MM
    own_mm = [position_along(image, normal) - start_mm for image in others]
    return sorted({int(np.searchsorted(heights, height_mm)) for height_mm in own_mm})
