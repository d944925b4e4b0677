"""Volume of structures in each frame of a series with masks, and the reasons why there is none.

Volumes are sums of discs: the voxels of a structure are counted in each slice and multiplied by the
volume of that slice's voxel. Slices count as they are annotated: a basal slice whose mask shows a
ventricle belongs to it, the apex ends with the last annotated slice, and papillary muscles belong
to the structure that the mask gives them.

A slightly larger gap between slices is counted with the slices beside it. There is no volume where
a slice is missing or a structure runs into voxels that are not annotated. Nothing is interpolated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from statistics import median_low

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cmrvlm.quantification.outliers import outliers_of_masks
from cmrvlm.study.measurements import FEWEST_SLICES
from cmrvlm.study.structures import STRUCTURE_VALUES
from cmrvlm.study.study import Series
from cmrvlm.study.vocabulary import NOT_ANNOTATED, STRUCTURES

WALL = STRUCTURE_VALUES["myo"]
SCAR = STRUCTURE_VALUES["scar"]
# Times the usual distance of slices: twice as far is a missing slice, half as far again an uneven
# stack.
_SLICE_MISSING = 1.75
# Neighbours of a voxel, (3, 3, 3) along (Z, H, W): the eight in its slice and the two across
# slices.
_VOXEL = np.pad(np.ones((1, 1), dtype=bool), 1)
NEIGHBOURS = np.stack([_VOXEL, np.ones((3, 3), dtype=bool), _VOXEL])
FloatArray = NDArray[np.float64]


def mask_of(series: Series) -> NDArray[np.uint8]:
    """Return the mask (Z, T, H, W) of a series that has one."""
    assert series.mask is not None
    return series.mask


def volume_curve_ml(series: Series, structures: tuple[int, ...]) -> FloatArray:
    """Count the volume of structures in each frame.

    Args:
        series: Series with masks.
        structures: Mask values that count.

    Returns:
        (T,) volumes in ml, NaN in frames that are not annotated in every annotated slice.
    """
    mask = mask_of(series)
    counts = np.isin(mask, structures).sum(axis=(2, 3), dtype=np.int64)  # (Z, T)
    complete = ~_unannotated(series).any(axis=0)
    annotated = (mask != NOT_ANNOTATED).any(axis=(0, 2, 3))
    return np.where(complete & annotated, counts.T @ series.slice_volumes_ml, np.nan)


def _unannotated(series: Series) -> NDArray[np.bool_]:
    """Return (Z, T): whether a slice is annotated in another frame but not in this one."""
    annotated = (mask_of(series) != NOT_ANNOTATED).any(axis=(2, 3))
    return np.asarray(annotated.any(axis=1, keepdims=True) & ~annotated)


def phases_of(curve_ml: FloatArray) -> dict[str, int]:
    """Return the frames of the largest (`ed`) and the smallest (`es`) volume.

    Args:
        curve_ml: (T,) volumes, NaN where unknown.

    Returns:
        Phase to frame; empty when fewer than two volumes are known or all are equal.
    """
    known = np.flatnonzero(~np.isnan(curve_ml))
    if len(known) < 2 or np.nanmax(curve_ml) == np.nanmin(curve_ml):
        return {}
    return {"ed": int(np.nanargmax(curve_ml)), "es": int(np.nanargmin(curve_ml))}


def phases_of_masks(series: Series) -> dict[str, int]:
    """Return `phases_of` the left ventricle in the masks, whatever phases the series states."""
    structures = (STRUCTURES["lv"],)
    curve_ml = volume_curve_ml(series, structures)
    return phases_of(without_frames(curve_ml, outliers_of_masks(series, structures, curve_ml)))


def without_frames(curve_ml: FloatArray, frames: Iterable[int]) -> FloatArray:
    """Return a curve (T,) with NaN in some frames."""
    kept = curve_ml.copy()
    kept[list(frames)] = np.nan
    return kept


def why_no_volume(series: Series, structures: tuple[int, ...], frame: int) -> str | None:
    """Return why the volume of structures in a frame cannot be counted, else None.

    Args:
        series: Series with masks.
        structures: Mask values that count.
        frame: Index of the frame.
    """
    return next(why_no_volumes(series, structures, [frame]))


def why_no_volumes(
    series: Series, structures: tuple[int, ...], frames: Iterable[int]
) -> Iterator[str | None]:
    """Yield `why_no_volume` of each frame; checks that do not depend on the frame are made once."""
    mask = mask_of(series)
    too_few = too_few_slices(series)
    unannotated = _unannotated(series)
    # Slices that show the structure in any frame: at end-systole they may be fewer.
    shown = np.flatnonzero(np.isin(mask, structures).any(axis=(1, 2, 3)))
    missing = _slice_missing(series, shown)
    for frame in frames:
        in_frame = mask[:, frame]
        yield (
            too_few
            or _slice_not_annotated(unannotated[:, frame])
            or _incomplete(in_frame, structures, len(shown))
            or _not_annotated_beside(in_frame, structures)
            or missing
        )


def too_few_slices(series: Series) -> str | None:
    """Return why a stack has too few slices for a volume, else None."""
    count = series.image.shape[0]
    if count >= FEWEST_SLICES:
        return None
    return f"{count} slices, at least {FEWEST_SLICES} are needed"


def _slice_missing(series: Series, shown: NDArray[np.intp]) -> str | None:
    """Return why a stack lacks a slice where it shows a structure or next to it, else None.

    Args:
        series: Series with the places of its slices.
        shown: (N,) indices of slices that show the structure, ascending.
    """
    if series.slice_places_mm is None or len(shown) < FEWEST_SLICES:
        return None
    gaps = np.diff(series.slice_places_mm)
    first = max(0, int(shown[0]) - 1)
    last = int(shown[-1])
    widest_mm = _SLICE_MISSING * median_low(gaps.tolist())
    wide = np.flatnonzero(gaps[first : last + 1] > widest_mm)
    if not len(wide):
        return None
    index = first + int(wide[0])
    return f"a slice is missing: {gaps[index]:.1f} mm lie between slices {index} and {index + 1}"


def _slice_not_annotated(unannotated: NDArray[np.bool_]) -> str | None:
    """Return which slice is annotated in other frames alone, else None.

    Args:
        unannotated: (Z,) whether a slice is so.
    """
    if not unannotated.any():
        return None
    return f"slice {int(unannotated.argmax())} is not annotated in this frame"


def _incomplete(mask: NDArray[np.uint8], structures: tuple[int, ...], shown: int) -> str | None:
    """Return why the slices of a frame do not show a structure without a gap, else None.

    Args:
        mask: (Z, H, W) mask of the frame.
        structures: Mask values of the structure.
        shown: Number of slices that show the structure in any frame.
    """
    in_slice = np.asarray(np.isin(mask, structures).any(axis=(1, 2)))  # (Z,)
    slices = np.flatnonzero(in_slice)
    if not len(slices):
        return "the structure is in no slice"
    if shown < FEWEST_SLICES:
        return f"the structure is in {shown} of the slices, at least {FEWEST_SLICES} are needed"

    first = int(slices[0])
    between = slice(first, int(slices[-1]) + 1)
    not_annotated = (mask[between] == NOT_ANNOTATED).all(axis=(1, 2))
    if not_annotated.any():
        return f"slice {first + int(not_annotated.argmax())} between others is not annotated"
    if not in_slice[between].all():
        return f"slice {first + int(in_slice[between].argmin())} between others lacks it"
    return None


def _not_annotated_beside(mask: NDArray[np.uint8], structures: tuple[int, ...]) -> str | None:
    """Return where a structure reaches voxels or slices that are not annotated, else None.

    Args:
        mask: (Z, H, W) mask of the frame, with the structure in it.
        structures: Mask values of the structure.
    """
    structure = np.isin(mask, structures)
    slices = np.flatnonzero(structure.any(axis=(1, 2)))
    not_annotated = mask == NOT_ANNOTATED
    for beside in (int(slices[0]) - 1, int(slices[-1]) + 1):
        if 0 <= beside < len(mask) and not_annotated[beside].all():
            return f"slice {beside} beside the structure is not annotated"

    # Dilation is slow, and most masks are annotated everywhere.
    if not not_annotated.any():
        return None
    reached = ndimage.binary_dilation(structure, NEIGHBOURS) & not_annotated
    in_slice = reached.any(axis=(1, 2))
    if not in_slice.any():
        return None
    return f"in slice {int(in_slice.argmax())} the structure runs into what is not annotated"
