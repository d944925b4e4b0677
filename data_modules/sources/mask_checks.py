"""Plausibility of masks: swapped labels, masks beside their image, displaced slices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from cmrvlm.study.structures import STRUCTURE_VALUES
from cmrvlm.study.study import Series
from cmrvlm.study.vocabulary import STRUCTURES

_LEFT_VENTRICLE = (*STRUCTURE_VALUES["lv"], *STRUCTURE_VALUES["myo"])

# Slices that the long axis is fitted to; a stack of so few is not checked.
_AXIS_SLICES = 4
# Of 25 patients of ACDC 95 % of the slices lie less than 4.2 mm beside the axis at ED.
DISPLACED_MM = 5.0

# At the base the outflow tract is open, so that the myocardium never encloses the cavity quite.
_LEAST_ENCLOSED_FRACTION = 0.5
# The right cavity touches the wall on one side: at ED and ES of 25 patients of ACDC 20 to 42 % of its
# border, and 66 % of that of scars that are read as right cavity.
_MOST_ENCLOSED_FRACTION = 0.55


def displaced_slices(series: Series, frames: Sequence[int]) -> dict[int, float]:
    """Find slices beside the ventricle's long axis, as when breath was held differently.

    The axis is the Theil-Sen line (Sen, JASA 1968) through the centres of the left ventricle with
    its wall, so that one displaced slice does not bend it. Ventricles are bent too: a slice is
    compared with the line through all slices and with that through the nearest four, and the
    smaller distance counts. Nothing is moved: volumes do not depend on where in its plane a slice
    lies.

    Args:
        series: Short-axis series with a mask.
        frames: Frames to look at, of which there is one at least. A slice is displaced that is so
            in all of them: at the base the wall is open in some, which shifts its centre.

    Returns:
        Smallest distance from the axis in mm by index of the slice, for displaced slices alone.
    """
    in_frames = [_displaced_in_frame(series, frame) for frame in frames]
    return {
        index: min(displaced[index] for displaced in in_frames)
        for index in in_frames[0]
        if all(index in displaced for displaced in in_frames)
    }


def _displaced_in_frame(series: Series, frame: int) -> dict[int, float]:
    """Return the distance from the axis in mm by index of each slice that a frame shows displaced."""
    assert series.mask is not None
    ventricle = np.isin(series.mask[:, frame], _LEFT_VENTRICLE)  # (Z, H, W)
    slices = np.flatnonzero(ventricle.any(axis=(1, 2)))  # (N,)
    if len(slices) <= _AXIS_SLICES:
        return {}

    _, row_mm, column_mm = series.spacing_mm
    centres = np.array([ndimage.center_of_mass(ventricle[index]) for index in slices])  # (N, 2)
    centres_mm = centres * (row_mm, column_mm)

    displaced = {}
    for row, index in enumerate(slices):
        order = np.argsort(np.abs(slices - index), kind="stable")
        # The first is the slice itself.
        nearest = order[1 : 1 + _AXIS_SLICES]
        distance_mm = min(
            _distance_from_axis_mm(centres_mm[row], int(index), centres_mm, slices),
            _distance_from_axis_mm(
                centres_mm[row], int(index), centres_mm[nearest], slices[nearest]
            ),
        )
        if distance_mm >= DISPLACED_MM:
            displaced[int(index)] = distance_mm
    return displaced


def _distance_from_axis_mm(
    centre_mm: NDArray[np.float64],
    index: int,
    axis_centres_mm: NDArray[np.float64],
    axis_slices: NDArray[np.int64],
) -> float:
    """Return the distance of a slice's centre from the Theil-Sen line through others.

    Args:
        centre_mm: Centre `(2,)` of the slice in its plane.
        index: Index of the slice.
        axis_centres_mm: Centres `(N, 2)` that the line is put through.
        axis_slices: Indices `(N,)` of their slices.
    """
    slopes = np.array(
        [stats.theilslopes(centres, axis_slices)[0] for centres in axis_centres_mm.T]
    )  # (2,)
    intercept = np.median(axis_centres_mm - axis_slices[:, None] * slopes, axis=0)
    return float(np.linalg.norm(centre_mm - (intercept + index * slopes)))


def enclosed_fraction(mask: NDArray[np.uint8], structure: str) -> float | None:
    """Compute the fraction of a cavity's border that touches the myocardium, scar included.

    The myocardium encloses the left ventricular cavity and touches the right one on one side alone.
    Where the right one is enclosed better, the labels are swapped.

    Args:
        mask: Mask `(..., H, W)`; the border is counted within the planes.
        structure: Name of the cavity.

    Returns:
        Fraction in [0, 1], or None where the mask has no such cavity.
    """
    planes = mask.reshape(-1, *mask.shape[-2:])  # (N, H, W)
    myocardium = np.isin(planes, STRUCTURE_VALUES["myo"])
    cavity = planes == STRUCTURES[structure]
    neighbours = ndimage.generate_binary_structure(2, 1)[None]  # (1, 3, 3)
    border = ndimage.binary_dilation(cavity, neighbours) & ~cavity
    if not border.any():
        return None
    return float((border & myocardium).sum() / border.sum())


def bright_cavity_fraction(series: Series, frame: int) -> float | None:
    """Compute the fraction of a cavity that is brighter than the median of the myocardium.

    Blood is bright on a cine. A fraction near one half, as by chance, says that the mask does not
    lie on the heart that it was drawn on.

    Args:
        series: Cine series with a mask.
        frame: Frame to look at.

    Returns:
        The smaller fraction of both ventricles, or None without a cavity or without myocardium.
    """
    assert series.mask is not None
    image = np.asarray(series.image[:, frame], dtype=np.float32)  # (Z, H, W)
    mask = series.mask[:, frame]
    myocardium = image[mask == STRUCTURES["myo"]]
    if not myocardium.size:
        return None

    threshold = np.median(myocardium)
    cavities = [image[mask == STRUCTURES[name]] for name in ("lv", "rv")]
    fractions = [float((cavity > threshold).mean()) for cavity in cavities if cavity.size]
    return min(fractions, default=None)


def find_label_error(mask: NDArray[np.uint8]) -> str | None:
    """Describe what is wrong with the labels of a short-axis mask `(..., H, W)`, or return None."""
    left, right = enclosed_fraction(mask, "lv"), enclosed_fraction(mask, "rv")
    if left is None or not (mask == STRUCTURES["myo"]).any():
        return None
    if right is not None and right > left:
        return (
            f"the myocardium encloses the right cavity ({right:.0%}) better than the left one "
            f"({left:.0%})"
        )
    if left < _LEAST_ENCLOSED_FRACTION:
        return f"the myocardium encloses {left:.0%} of the left cavity"
    return None


def find_enclosed_right_cavity(mask: NDArray[np.uint8]) -> str | None:
    """Describe a right cavity `(..., H, W)` within the wall, as scars are, or return None."""
    right = enclosed_fraction(mask, "rv")
    if right is None or right <= _MOST_ENCLOSED_FRACTION:
        return None
    return f"the myocardium encloses {right:.0%} of the right cavity, which lies beside it"
