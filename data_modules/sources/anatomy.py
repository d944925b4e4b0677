"""What masks of the heart have in common, whichever data set they come from."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from cmrvlm.errors import CmrvlmError
from cmrvlm.quantification.segments import level_of_slices
from cmrvlm.quantification.ventricles import quantify
from cmrvlm.study.files import read_image
from cmrvlm.study.measurements import MEASUREMENTS
from cmrvlm.study.orientation import flip_slices, levels_run_to_apex
from cmrvlm.study.structures import STRUCTURE_VALUES
from cmrvlm.study.study import Series
from cmrvlm.study.vocabulary import NOT_ANNOTATED, STRUCTURES

_LEFT_VENTRICLE = (*STRUCTURE_VALUES["lv"], *STRUCTURE_VALUES["myo"])
_FEWEST_FOR_AXIS, _DISPLACED_MM = 4, 5.0
_LEAST_ENCLOSED = 0.5  # of the cavity's border; at the base the outflow tract is open


def canonical(
    values: NDArray[np.generic], label_map: Mapping[int, str], path: Path
) -> NDArray[np.uint8]:
    """Values of a data set's masks as canonical ones.

    Args:
        values: Mask of any shape.
        label_map: Value to structure, all values that may occur.
        path: The file, for the error.

    Raises:
        CmrvlmError: Another value occurs.
    """
    found = np.unique(values)
    unknown = [value.item() for value in found if value not in label_map]
    if unknown:
        known = ", ".join(f"{value} {name}" for value, name in label_map.items())
        raise CmrvlmError(
            f"unknown label values {unknown}",
            file=path,
            field="mask",
            remedy=f"Known here: {known}.",
        )
    result = np.zeros(values.shape, dtype=np.uint8)
    for value in found:
        result[values == value] = STRUCTURES[label_map[int(value)]]
    return result


def canonical_or_unknown(
    values: NDArray[np.generic], label_map: Mapping[int, str], path: Path
) -> NDArray[np.uint8]:
    """`canonical` for masks in which 255 is not annotated; an empty map stands for the canonical values."""
    own_names = {value: name for name, value in STRUCTURES.items()}
    known = {0: "background"} | dict(label_map) if label_map else own_names
    mask = canonical(np.where(values == NOT_ANNOTATED, 0, values), known, path)
    mask[values == NOT_ANNOTATED] = NOT_ANNOTATED
    return mask


def check_structures(label_map: Mapping[int, str]) -> None:
    """Refuse a label map that names something else than a structure.

    Raises:
        CmrvlmError: A name is unknown.
    """
    unknown = [name for name in label_map.values() if name not in STRUCTURES]
    if unknown:
        raise CmrvlmError(
            f"unknown structure '{unknown[0]}'",
            field="data.source.label_map",
            remedy=f"Known: {', '.join(STRUCTURES)}.",
        )


def read_mask(
    path: Path, shape: tuple[int, ...], affine: NDArray[np.float64], sequence: str
) -> NDArray[np.generic]:
    """Read the values (Z, T, H, W) of a mask file, as they stand there, that lie on the grid of their image.

    Args:
        path: The file.
        shape: Of the image, in the one layout.
        affine: Of the image, in the one layout.
        sequence: What the image shows.

    Raises:
        CmrvlmError: Shape or affine is another, by more than a fiftieth of a voxel at a corner.
    """
    values, own = read_image(path, sequence)
    check_grid(path, values.shape, own, shape, affine)
    return values


def check_grid(
    path: Path,
    own_shape: tuple[int, ...],
    own: NDArray[np.float64],
    shape: tuple[int, ...],
    affine: NDArray[np.float64],
) -> None:
    """Refuse a file that does not lie on the grid of the image that it belongs to.

    Args:
        path: The file.
        own_shape: Its shape.
        own: Its affine.
        shape: Of the image.
        affine: Of the image.

    Raises:
        CmrvlmError: Shape or affine is another, by more than a fiftieth of a voxel at a corner.
    """
    if own_shape != shape or _farthest_corner_mm(own - affine, shape) > _off_grid_mm(affine):
        raise CmrvlmError(
            f"this and its image do not lie on one grid: {own_shape} and {shape}, affines "
            f"{own.round(3).tolist()} and {affine.round(3).tolist()}",
            file=path,
            field="mask",
            remedy="Write the mask on the grid of its image.",
        )


def _farthest_corner_mm(difference: NDArray[np.float64], shape: tuple[int, ...]) -> float:
    """Return how far two affines with this difference (4, 4) put a corner of a series (Z, T, H, W) apart."""
    ends = [(0, shape[3] - 1), (0, shape[2] - 1), (0, shape[0] - 1)]
    corners = np.array([[*one, 1] for one in itertools.product(*ends)], dtype=np.float64)  # (8, 4)
    return float(np.linalg.norm((corners @ difference.T)[:, :3], axis=1).max())


def _off_grid_mm(affine: NDArray[np.float64]) -> float:
    """Return a fiftieth of the smallest spacing: quaternions in a header are rounded more than matrices are."""
    return float(np.linalg.norm(affine[:3, :3], axis=0).min() / 50)


def measure_masks(series: Series) -> dict[str, float]:
    """Volumes in ml and ejection fractions in %, as far as the masks say them, by the names of measurements."""
    return {name: value for name, value in quantify(series).values.items() if name in MEASUREMENTS}


def measure_labelled(series: Series, file: Path, remedy: str) -> dict[str, float]:
    """`measure_masks`, where ED and ES are what the data set says they are.

    Args:
        series: With masks at ED and ES.
        file: That says which frames these are, for the error.
        remedy: For the error.

    Raises:
        CmrvlmError: The left ventricle is not larger at ED than at ES.
    """
    assert series.mask is not None
    ed, es = (
        (series.mask[:, series.phases[phase]] == STRUCTURES["lv"]).sum(dtype=np.int64)
        for phase in ("ed", "es")
    )
    if es >= ed:
        raise CmrvlmError(
            "the left ventricle is not larger at ED than at ES",
            file=file,
            field="ED",
            remedy=remedy,
        )
    return measure_masks(series)


def displaced_slices(series: Series, frame: int) -> dict[int, float]:
    """Slices that lie beside the ventricle's axis, and by how many mm, as when breath was held differently.

    The axis is the Theil-Sen line through the centres of the left ventricle with its wall, so that one displaced slice
    does not bend it: that through all slices and that through the nearest four, whichever is nearer, for ventricles are
    bent too. Nothing is moved: volumes do not depend on where in its plane a slice lies.
    """
    assert series.mask is not None
    heart = np.isin(series.mask[:, frame], _LEFT_VENTRICLE)  # (Z, H, W)
    rows = np.flatnonzero(heart.any(axis=(1, 2)))
    if len(rows) <= _FEWEST_FOR_AXIS:
        return {}
    _, row_mm, column_mm = series.spacing_mm
    places = np.array([ndimage.center_of_mass(heart[row]) for row in rows]) * (
        row_mm,
        column_mm,
    )  # (n, 2)
    found = {}
    for index, row in enumerate(rows):
        nearest = np.argsort(np.abs(rows - row), kind="stable")[1 : 1 + _FEWEST_FOR_AXIS]
        off_mm = min(
            _off_axis(places[index], int(row), places[own], rows[own])
            for own in (slice(None), nearest)
        )
        if off_mm >= _DISPLACED_MM:
            found[int(row)] = off_mm
    return found


def _off_axis(
    place: NDArray[np.float64], row: int, others: NDArray[np.float64], rows: NDArray[np.int64]
) -> float:
    """Distance of a centre (2,) in mm from the Theil-Sen line through others (n, 2) at their rows (n,)."""
    slopes = np.array([stats.theilslopes(values, rows)[0] for values in others.T])
    expected = np.median(others - rows[:, None] * slopes, axis=0) + row * slopes
    return float(np.linalg.norm(place - expected))


def base_first(series: Series) -> Series:
    """Basal slice first, decided by the mask: the ventricles are wider at the base; levels are thirds of the wall."""
    frame = series.phases.get("ed", 0)
    levels = level_of_slices(replace(series, levels=()), frame)
    series = replace(series, levels=tuple(levels))
    return flip_slices(series) if levels_run_to_apex(levels) is False else series


def enclosed_share(mask: NDArray[np.uint8], structure: str) -> float | None:
    """Share of a cavity's border that touches the myocardium, scar included; None without a cavity.

    Counted in the planes (H, W) of a mask of any shape. The myocardium encloses the left ventricular cavity and touches
    the right one on one side only: where the right one is enclosed better, the labels are mixed up.
    """
    planes = mask.reshape(-1, *mask.shape[-2:])
    wall = np.isin(planes, STRUCTURE_VALUES["myo"])
    cavity = planes == STRUCTURES[structure]
    cross = ndimage.generate_binary_structure(2, 1)[None]
    border = ndimage.binary_dilation(cavity, cross) & ~cavity
    return float((border & wall).sum() / border.sum()) if border.any() else None


def brighter_share(series: Series, frame: int) -> float | None:
    """Share of a cavity that is brighter than the wall's median, the lesser of both cavities; None without them.

    Blood is bright on a cine: where no more than chance is, the mask lies beside what it was drawn on.
    """
    assert series.mask is not None
    image, mask = np.asarray(series.image[:, frame], dtype=np.float32), series.mask[:, frame]
    wall = image[mask == STRUCTURES["myo"]]
    cavities = [image[mask == STRUCTURES[name]] for name in ("lv", "rv")]
    shares = [float((one > np.median(wall)).mean()) for one in cavities if one.size and wall.size]
    return min(shares, default=None)


def mixed_up(mask: NDArray[np.uint8]) -> str | None:
    """What is wrong with the labels of a short-axis mask, None when nothing is."""
    left, right = enclosed_share(mask, "lv"), enclosed_share(mask, "rv")
    if left is None or not (mask == STRUCTURES["myo"]).any():
        return None
    if right is not None and right > left:
        return f"the myocardium encloses the right cavity ({right:.0%}) better than the left one ({left:.0%})"
    if left < _LEAST_ENCLOSED:
        return f"the myocardium encloses {left:.0%} of the left cavity"
    return None
