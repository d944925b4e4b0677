"""The one layout of rows, columns and slices that every series is brought to, and the inverse.

The same heart is stored in many orders: scanners, converters and viewers transpose and reverse axes
and change the affine to match. Images are brought to one layout by their affine when they are read,
and masks that are written for them are brought back to the order of their file. Only whole axes are
moved, so no grey value changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff
from numpy.typing import NDArray

from cmrvlm.study.study import Series, Study
from cmrvlm.study.vocabulary import LEVELS

# Directions in a heart in its usual place, in RAS axes: the apex points to the left, forward and
# down, and the lateral wall lies to the left of the septum and behind it.
BASE_TO_APEX_RAS = np.array([-0.66, 0.55, -0.51])
SEPTUM_TO_LATERAL_RAS = np.array([-0.6, -0.78, -0.05])
# As `preprocessing.json` of a run states it.
LAYOUT = (
    "slices base to apex; columns septum to lateral wall; "
    "rows anterior to inferior, in lax_4ch apex to base"
)
# Cosine with a world axis from which an axis counts as lying along it.
_ALONG_WORLD_AXIS = 0.999
# Times the next smaller spacing from which an axis counts as that of the slices.
_CLEARLY_THICKER = 1.05

Orientation = NDArray[np.float64]


def _directions(sequence: str) -> NDArray[np.float64]:
    """Return RAS unit vectors (3, 3) along the layout's columns, rows and slices, one a row."""
    apex = BASE_TO_APEX_RAS / np.linalg.norm(BASE_TO_APEX_RAS)
    lateral = SEPTUM_TO_LATERAL_RAS - apex * (SEPTUM_TO_LATERAL_RAS @ apex)
    lateral /= np.linalg.norm(lateral)
    anterior = np.cross(apex, lateral)
    if sequence == "lax_4ch":
        return np.stack([lateral, -apex, anterior])
    return np.stack([lateral, -anterior, apex])


def is_oriented(affine: NDArray[np.float64]) -> bool:
    """Return whether an affine has a scanner's orientation.

    Where all axes lie along world axes, as in ACDC, the orientation was lost: planes of a heart
    never do.

    Args:
        affine: (4, 4), voxel index to RAS in mm.
    """
    units = np.abs(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))
    return bool(units.max(axis=0).min() < _ALONG_WORLD_AXIS)


def points_to_apex(direction_ras: NDArray[np.float64]) -> bool:
    """Return whether a direction (3,) in RAS axes points from base to apex."""
    return bool(direction_ras @ BASE_TO_APEX_RAS >= 0)


def runs_to_apex(affine: NDArray[np.float64]) -> bool | None:
    """Return whether slices of an affine (4, 4) go from base to apex; None without orientation."""
    return points_to_apex(affine[:3, 2]) if is_oriented(affine) else None


def levels_run_to_apex(levels: Sequence[str | None]) -> bool | None:
    """Return whether the levels of slices go from base to apex; None where they do not differ.

    Args:
        levels: `basal`, `mid`, `apical` or None for each slice.
    """
    known = [LEVELS.index(level) for level in levels if level is not None]
    if not known or known[0] == known[-1]:
        return None
    return known[0] < known[-1]


def orientation_of(
    affine: NDArray[np.float64], shape: tuple[int, int, int], sequence: str
) -> Orientation | None:
    """Return how the axes of a stored volume become columns, rows and slices.

    Args:
        affine: (4, 4) of the volume, voxel index to RAS in mm.
        shape: Voxels along its three axes.
        sequence: `sax`, `lax_4ch` or `lge`.

    Returns:
        (3, 2) as in `nibabel.orientations`: new position of each stored axis, and -1 where it is
        reversed. None where the affine has no orientation, so that the volume stays as it is
        stored.
    """
    if not is_oriented(affine):
        return None
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    stored = (affine[:3, :3] / lengths).T  # (3, 3), a stored axis in each row
    layout = _directions(sequence)
    agreement = stored @ layout.T  # (stored axis, axis of the layout)

    slices = _slice_axis(shape, lengths, stored @ layout[2])
    columns, rows = (axis for axis in range(3) if axis != slices)
    as_stored = abs(agreement[columns, 0]) + abs(agreement[rows, 1])
    swapped = abs(agreement[rows, 0]) + abs(agreement[columns, 1])
    if swapped > as_stored:
        columns, rows = rows, columns

    orientation = np.zeros((3, 2))
    for position, axis in enumerate((columns, rows, slices)):
        sign = -1.0 if agreement[axis, position] < 0 else 1.0
        orientation[axis] = position, sign
    return orientation


def _slice_axis(
    shape: tuple[int, int, int], lengths: NDArray[np.float64], along: NDArray[np.float64]
) -> int:
    """Return the stored axis of the slices: of one voxel, else coarsest, else as the layout's.

    Args:
        shape: Voxels along the stored axes.
        lengths: (3,) spacing along the stored axes in mm.
        along: (3,) cosine of each stored axis with the layout's direction of slices.
    """
    single = [axis for axis in range(3) if shape[axis] == 1]
    if len(single) == 1:
        return single[0]
    finest_first = np.argsort(lengths)
    if lengths[finest_first[2]] > _CLEARLY_THICKER * lengths[finest_first[1]]:
        return int(finest_first[2])
    return int(np.abs(along).argmax())


def to_layout(
    image: NDArray[Any], affine: NDArray[np.float64], sequence: str
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Bring an image to the one layout; it stays as it is where its affine has no orientation.

    Args:
        image: (Z, T, H, W) as it is stored.
        affine: (4, 4), voxel index (w, h, z) to RAS in mm.
        sequence: `sax`, `lax_4ch` or `lge`.

    Returns:
        Image (Z, T, H, W) and affine.
    """
    shape = (image.shape[3], image.shape[2], image.shape[0])
    orientation = orientation_of(affine, shape, sequence)
    if orientation is None:
        return image, affine
    moved = apply_orientation(image.transpose(3, 2, 0, 1), orientation)  # (x, y, z, t)
    moved_affine = affine @ inv_ornt_aff(orientation, shape)
    return np.ascontiguousarray(moved.transpose(2, 3, 1, 0)), moved_affine  # (Z, T, H, W)


def from_layout(
    array: NDArray[Any], affine: NDArray[np.float64], shape: tuple[int, int, int], sequence: str
) -> NDArray[Any]:
    """Bring an array back to the order in which a volume is stored: the inverse of `to_layout`.

    Args:
        array: (Z, T, H, W) in the one layout.
        affine: (4, 4) of the stored volume.
        shape: Voxels along its three axes.
        sequence: `sax`, `lax_4ch` or `lge`.

    Returns:
        (x, y, z, t) as stored.
    """
    volume = array.transpose(3, 2, 0, 1)  # (w, h, z, t)
    orientation = orientation_of(affine, shape, sequence)
    if orientation is None:
        return volume
    inverse = np.zeros_like(orientation)
    for axis, (position, sign) in enumerate(orientation):
        inverse[int(position)] = axis, sign
    return np.asarray(apply_orientation(volume, inverse))


def reverses_slices(affine: NDArray[np.float64], sequence: str) -> bool:
    """Return whether `to_layout` reverses slices along the third axis of an affine (4, 4)."""
    return is_oriented(affine) and float(affine[:3, 2] @ _directions(sequence)[2]) < 0


def flip_slices(series: Series) -> Series:
    """Return the series with its slices in reverse order and the affine that belongs to it."""
    affine = series.affine.copy()
    # The last slice becomes the first, so the origin moves to it.
    affine[:3, 3] += affine[:3, 2] * (series.image.shape[0] - 1)
    affine[:3, 2] *= -1
    return replace(
        series,
        image=np.ascontiguousarray(series.image[::-1]),
        affine=affine,
        mask=None if series.mask is None else np.ascontiguousarray(series.mask[::-1]),
        levels=series.levels[::-1],
        slice_places_mm=reversed_places(series.slice_places_mm),
    )


def reversed_places(places: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """Return positions of slices along the stack in mm, ascending, measured from its other end."""
    if places is None:
        return None
    return tuple(places[-1] - place for place in reversed(places))


def study_to_layout(study: Study) -> Study:
    """Return a study whose series, stored slice by slice, are in the one layout."""
    moved = {name: _series_to_layout(series, name) for name, series in study.series.items()}
    return study.with_series(moved)


def _series_to_layout(series: Series, sequence: str) -> Series:
    """Return a series, stored slice by slice, in the one layout."""
    if reverses_slices(series.affine, sequence):
        # Levels and positions of slices turn with them, which `to_layout` alone would not do.
        series = flip_slices(series)
    image, affine = to_layout(series.image, series.affine, sequence)
    mask = None
    if series.mask is not None:
        mask, _ = to_layout(series.mask, series.affine, sequence)
    return replace(series, image=image, affine=affine, mask=mask)
