"""Masks of any data set: map their values, check their grid, measure them, order their slices."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmrvlm.errors import CmrvlmError
from cmrvlm.quantification.segments import level_of_slices
from cmrvlm.quantification.ventricles import quantify
from cmrvlm.study.measurements import MEASUREMENTS
from cmrvlm.study.orientation import flip_slices, levels_run_to_apex
from cmrvlm.study.reading_settings import NOTHING_STATED, ReadingSettings
from cmrvlm.study.series_files import read_label_values
from cmrvlm.study.structures import STRUCTURE_VALUES
from cmrvlm.study.study import Series, StudyLabels
from cmrvlm.study.vocabulary import NOT_ANNOTATED, STRUCTURES

# Quaternions in a header are rounded more than matrices are, so that grids may differ by this share
# of a voxel.
_GRID_TOLERANCE = 1 / 50
# Label values that a message names.
_MOST_VALUES_NAMED = 10


def remap_labels(
    values: NDArray[np.generic], label_map: Mapping[int, str], path: Path
) -> NDArray[np.uint8]:
    """Map the label values of a data set to those of `STRUCTURES`.

    Args:
        values: Mask of any shape, such as `(Z, T, H, W)`.
        label_map: Label value to structure, for all values that may occur.
        path: File of the mask, for the error message.

    Returns:
        Mask of the same shape with the values of `STRUCTURES`.

    Raises:
        CmrvlmError: Another value occurs.
    """
    unknown, problem = _unknown_values(values, label_map)
    if unknown:
        raise CmrvlmError(
            problem,
            file=path,
            field="mask",
            remedy=f"Masks of this data set hold {_named(label_map)}. Restore the file, or read it "
            "with data=nifti or data=manifest, where data.source.label_map says what values mean.",
        )

    present = np.unique(values)
    mask = np.zeros(values.shape, dtype=np.uint8)
    for value in present:
        mask[values == value] = STRUCTURES[label_map[int(value)]]
    return mask


def remap_partial_labels(
    values: NDArray[np.generic], label_map: Mapping[int, str], path: Path
) -> NDArray[np.uint8]:
    """Map the label values of a mask of any shape in which 255 marks voxels that nobody annotated.

    Args:
        values: Mask of any shape, such as `(Z, T, H, W)`.
        label_map: Label value to structure, without the background; an empty one says that the mask
            has the values of `STRUCTURES` already.
        path: File of the mask, for the error message.

    Returns:
        Mask of the same shape with the values of `STRUCTURES` and 255.

    Raises:
        CmrvlmError: Another value occurs.
    """
    known = {0: "background"} | dict(label_map)
    stated = "data.source.label_map"
    if not label_map:
        known = {value: name for name, value in STRUCTURES.items()}
        stated = "data.source.label_map is null, which"

    annotated = np.where(values == NOT_ANNOTATED, 0, values)
    unknown, problem = _unknown_values(annotated, known)
    if unknown:
        raise CmrvlmError(
            problem,
            file=path,
            field="data.source.label_map",
            remedy=f"Here {stated} reads {_named(known)}: say in it what each value is, "
            "as in data.source.label_map={1: rv, 2: myo, 3: lv}.",
        )
    mask = remap_labels(annotated, known, path)
    mask[values == NOT_ANNOTATED] = NOT_ANNOTATED
    return mask


def _unknown_values(
    values: NDArray[np.generic], known: Mapping[int, str]
) -> tuple[list[float], str]:
    """Return the label values of a mask of any shape that are not known, and that in words."""
    present = [value.item() for value in np.unique(values)]
    unknown = [value for value in present if value not in known]
    return unknown, f"unknown label values {_listed(unknown)} among {_listed(present)}"


def _listed(values: Sequence[float]) -> str:
    """Return label values as text; an image in the place of a mask has thousands."""
    listed = ", ".join(f"{value:g}" for value in values[:_MOST_VALUES_NAMED])
    if len(values) <= _MOST_VALUES_NAMED:
        return f"[{listed}]"
    return f"[{listed}, …] ({len(values)})"


def _named(label_map: Mapping[int, str]) -> str:
    """Return label values with their structures as text."""
    return ", ".join(f"{value} {name}" for value, name in label_map.items())


def check_label_map(label_map: Mapping[int, str]) -> None:
    """Refuse a label map with a name that is not a structure.

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
    path: Path,
    image_shape: tuple[int, ...],
    image_affine: NDArray[np.float64],
    sequence: str,
    settings: ReadingSettings = NOTHING_STATED,
) -> NDArray[np.generic]:
    """Read the label values of a mask file, and check that they lie on their image's grid.

    Args:
        path: File of the mask.
        image_shape: Shape `(Z, T, H, W)` of the image, after reorientation.
        image_affine: Affine `(4, 4)` of the image, after reorientation.
        sequence: Sequence of the image.
        settings: What the user states about files.

    Returns:
        Label values `(Z, T, H, W)`, reoriented like the image.

    Raises:
        CmrvlmError: The file cannot be read, or lies on another grid.
    """
    values, affine = read_label_values(path, sequence, settings, frames=image_shape[1])
    check_grid(path, values.shape, affine, image_shape, image_affine)
    return values


def read_mask_of(
    series: Series, path: Path, sequence: str, settings: ReadingSettings
) -> NDArray[np.generic]:
    """Read the label values `(Z, T, H, W)` of a mask that belongs to a series; see `read_mask`."""
    return read_mask(path, series.image.shape, series.affine, sequence, settings)


def check_grid(
    path: Path,
    shape: tuple[int, ...],
    affine: NDArray[np.float64],
    image_shape: tuple[int, ...],
    image_affine: NDArray[np.float64],
) -> None:
    """Refuse a file that does not lie on the grid of the image that it belongs to.

    Args:
        path: The file.
        shape: Its shape `(Z, T, H, W)`.
        affine: Its affine `(4, 4)`.
        image_shape: Shape `(Z, T, H, W)` of the image.
        image_affine: Affine `(4, 4)` of the image.

    Raises:
        CmrvlmError: The shapes differ, or a corner is off by more than a fiftieth of a voxel.
    """
    if shape != image_shape or not _is_one_grid(affine, image_affine, image_shape):
        raise CmrvlmError(
            f"this and its image do not lie on one grid: {shape} and {image_shape}, affines "
            f"{affine.round(3).tolist()} and {image_affine.round(3).tolist()}",
            file=path,
            field="mask",
            remedy="Write the mask on the grid of its image.",
        )


def check_frames(
    path: Path,
    shape: tuple[int, ...],
    affine: NDArray[np.float64],
    other_shape: tuple[int, ...],
    other_affine: NDArray[np.float64],
) -> None:
    """Refuse a file whose frames do not lie where those of another file of the series do.

    Args:
        path: The file.
        shape: Its shape `(Z, T, H, W)`, of any number of frames.
        affine: Its affine `(4, 4)`.
        other_shape: Shape `(Z, T, H, W)` of the other file.
        other_affine: Affine `(4, 4)` of the other file.

    Raises:
        CmrvlmError: Slices, rows or columns differ in number, or a corner is off by more than a
            fiftieth of a voxel.
    """
    is_one_shape = (shape[0], *shape[2:]) == (other_shape[0], *other_shape[2:])
    if is_one_shape and _is_one_grid(affine, other_affine, other_shape):
        return
    raise CmrvlmError(
        f"this file and another of its series do not lie on one grid: {shape} and {other_shape}, "
        f"affines {affine.round(3).tolist()} and {other_affine.round(3).tolist()}",
        file=path,
        field="srow",
        remedy="Restore the files of this study from the data set.",
    )


def _is_one_grid(
    affine: NDArray[np.float64], other: NDArray[np.float64], shape: tuple[int, ...]
) -> bool:
    """Return whether two affines put a series of `(Z, T, H, W)` in the same place."""
    tolerance_mm = float(np.linalg.norm(other[:3, :3], axis=0).min() * _GRID_TOLERANCE)
    return _largest_corner_distance_mm(affine - other, shape) <= tolerance_mm


def _largest_corner_distance_mm(difference: NDArray[np.float64], shape: tuple[int, ...]) -> float:
    """Return how far apart two affines put a corner of a series.

    Args:
        difference: Difference `(4, 4)` of the affines.
        shape: Shape `(Z, T, H, W)` of the series.
    """
    depth, _, height, width = shape
    ends = [(0, width - 1), (0, height - 1), (0, depth - 1)]
    corners = np.array(
        [[*corner, 1] for corner in itertools.product(*ends)], dtype=np.float64
    )  # (8, 4)
    return float(np.linalg.norm((corners @ difference.T)[:, :3], axis=1).max())


def measure_masks(series: Series) -> dict[str, float]:
    """Compute the volumes in ml and ejection fractions in % that the masks of a series allow.

    Returns:
        Value by name of `MEASUREMENTS`.
    """
    values = quantify(series).values
    return {name: value for name, value in values.items() if name in MEASUREMENTS}


def with_findings_of_masks(labels: StudyLabels, series: Mapping[str, Series]) -> StudyLabels:
    """Return labels that say of late enhancement what the masks of a study show.

    A mask with scar shows that there is late enhancement; one without shows that there is none only
    where scars were looked for everywhere. What labels state themselves remains.

    Args:
        labels: Labels as the data states them.
        series: Sequence to series, some with masks.
    """
    lge = series.get("lge")
    if lge is None or lge.mask is None or labels.findings.get("lv_lge") is not None:
        return labels
    is_scarred = bool(np.isin(lge.mask, STRUCTURE_VALUES["scar"]).any())
    was_searched = "scar" in lge.drawn and not (lge.mask == NOT_ANNOTATED).any()
    if not is_scarred and not was_searched:
        return labels
    return replace(labels, findings={**labels.findings, "lv_lge": is_scarred})


def measure_labelled_phases(series: Series, path: Path, remedy: str) -> dict[str, float]:
    """Measure masks at the ED and ES frames that a data set states, and check these frames.

    Args:
        series: Short-axis series with masks at ED and ES.
        path: File that states the frames, for the error message.
        remedy: Remedy of the error.

    Returns:
        Value by name of `MEASUREMENTS`; see `measure_masks`.

    Raises:
        CmrvlmError: The left ventricle is not larger at ED than at ES.
    """
    if _cavity_voxels(series, "es") >= _cavity_voxels(series, "ed"):
        raise CmrvlmError(
            "the left ventricle is not larger at ED than at ES",
            file=path,
            field="ED",
            remedy=remedy,
        )
    return measure_masks(series)


def _cavity_voxels(series: Series, phase: str) -> int:
    """Count the voxels of the left ventricular cavity in the frame of a phase."""
    assert series.mask is not None
    cavity = series.mask[:, series.phases[phase]] == STRUCTURES["lv"]  # (Z, H, W)
    return int(cavity.sum(dtype=np.int64))


def order_base_to_apex(series: Series) -> Series:
    """Put the basal slice first and name the level of each slice, both by the mask at end-diastole.

    The ventricles are wider at the base; levels are thirds of the myocardium.
    """
    frame = series.phases.get("ed", 0)
    levels = level_of_slices(replace(series, levels=()), frame)
    series = replace(series, levels=tuple(levels))
    if levels_run_to_apex(levels) is False:
        return flip_slices(series)
    return series
