"""Checks of a series: grey values, geometry, and the mask on its image."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cmrvlm.study.measurements import FEWEST_SLICES
from cmrvlm.study.study import Series
from cmrvlm.study.vocabulary import CINE, NOT_ANNOTATED, STRUCTURES
from data_modules.checking.faults import FaultLog
from data_modules.sources.mask_checks import (
    DISPLACED_MM,
    bright_cavity_fraction,
    displaced_slices,
    find_enclosed_right_cavity,
    find_label_error,
)

# Outside of these the unit is likely to be wrong.
_PLAUSIBLE_SLICE_MM = (2.0, 25.0)
_PLAUSIBLE_IN_PLANE_MM = (0.4, 4.0)
# Largest cosine between two axes; rounding of a sound affine stays far below.
_RIGHT_ANGLE = 1e-4
# Share of a cavity that is brighter than the wall's median: at ED 25 ACDC patients have 0.82 or
# more, and 0.53 or less with swapped axes.
_LEAST_BRIGHTER = 0.7
# Largest pixels in which the border of a right cavity tells where it lies.
_FINE_MM = 3.0
# Frames that a message names.
_MOST_FRAMES_NAMED = 5


def check_image(sequence: str, series: Series, log: FaultLog) -> None:
    """Log the faults of a series' image and geometry.

    Args:
        sequence: Name of the series, such as `sax`.
        series: Series with an image (Z, T, H, W).
        log: Log that faults are added to.
    """
    _check_grey_values(sequence, series, log)
    _check_spacing(sequence, series, log)
    _check_axes(sequence, series, log)
    if series.slice_places_mm is not None:
        gaps_mm = np.diff(series.slice_places_mm)
        log.warning("irregular", f"{sequence}: slices are {gaps_mm.round(1).tolist()} mm apart")
    slices = series.image.shape[0]
    if sequence == "sax" and slices < FEWEST_SLICES:
        log.warning("few_slices", f"{sequence} has {slices} slices: no volume follows from them")


def check_mask(
    sequence: str, series: Series, log: FaultLog, label_map: Mapping[int, str] | None = None
) -> None:
    """Log the faults of a series' mask; a series without a mask has none.

    Args:
        sequence: Name of the series, such as `sax`.
        series: Series with an image (Z, T, H, W) and perhaps a mask on the same grid.
        log: Log that faults are added to.
        label_map: Structure by label value as the user states it, empty where nothing is stated;
            None where the values of the data set are fixed.
    """
    if series.mask is None:
        return
    values = sorted(int(value) for value in np.unique(series.mask))
    known = {*STRUCTURES.values(), NOT_ANNOTATED}
    unknown = [value for value in values if value not in known]
    if unknown:
        log.error("label_values", f"{sequence}: mask values {unknown} are none of the project's")
    annotated = series.annotated_frames()
    if not annotated:
        log.warning("empty_mask", f"{sequence}: the mask holds nothing")
        return

    for frame in annotated:
        mask = np.asarray(series.mask[:, frame])  # (Z, H, W)
        problem = find_label_error(mask)
        # Scars are in late enhancement alone; in coarse pixels a thin cavity is all border.
        if not problem and sequence == "lge" and max(series.spacing_mm[1:]) <= _FINE_MM:
            problem = find_enclosed_right_cavity(mask)
        if problem:
            remedy = "" if label_map is None else f"; {_ask_label_map(label_map)}"
            log.warning("anatomy", f"{sequence}, frame {frame}: {problem}{remedy}")
            # Where structures may be mixed up, all that follows from them is of no use.
            return
    share = bright_cavity_fraction(series, annotated[0])
    if sequence in CINE and share is not None and share < _LEAST_BRIGHTER:
        log.warning(
            "off_image",
            f"{sequence}: {share:.0%} of a cavity is brighter than the wall; "
            "does the mask lie on the image?",
        )
    _check_places(sequence, series, log)


def _ask_label_map(label_map: Mapping[int, str]) -> str:
    """Return the question whether values of a mask mean other structures than they are read as."""
    stated = "null"
    read_as = {value: name for name, value in STRUCTURES.items() if value}
    if label_map:
        read_as = dict(label_map)
        stated = "set"
    values = ", ".join(f"{value}: {name}" for value, name in read_as.items())
    return (
        f"do its values mean other structures? data.source.label_map is {stated}, "
        f"which reads {{{values}}}"
    )


def _check_places(sequence: str, series: Series, log: FaultLog) -> None:
    """Log slices whose ventricle lies beside that of their neighbours."""
    annotated = series.annotated_frames()
    stated = sorted(set(series.phases.values()) & set(annotated))
    displaced = displaced_slices(series, stated or annotated[:1])
    if not displaced:
        return
    places = ", ".join(f"slice {index} lies {mm:.1f} mm" for index, mm in displaced.items())
    log.warning(
        "displaced",
        f"{sequence}: {places} beside the long axis of the ventricle (usual is less than "
        f"{DISPLACED_MM:g} mm): look whether the picture shows it, as where the breath was held "
        "differently; volumes do not depend on it",
    )


def _check_grey_values(sequence: str, series: Series, log: FaultLog) -> None:
    """Log values that are no numbers, and images or frames of one grey value."""
    image = np.asarray(series.image)
    if not np.isfinite(image).all():
        log.error("not_finite", f"{sequence} holds values that are no numbers")
        return
    if image.max() == image.min():
        log.error("constant", f"{sequence} has one grey value everywhere")
        return
    constant = []
    for frame in range(image.shape[1]):
        stack = image[:, frame]  # (Z, H, W)
        if stack.max() == stack.min():
            constant.append(frame)
    if constant:
        named = constant[:_MOST_FRAMES_NAMED]
        log.warning("constant_frame", f"{sequence}: frames {named} have one grey value")


def _check_spacing(sequence: str, series: Series, log: FaultLog) -> None:
    """Log spacings that are no usual ones."""
    slice_mm, *in_plane_mm = (float(value) for value in series.spacing_mm)
    spacings = (
        ("slice", slice_mm, _PLAUSIBLE_SLICE_MM),
        ("in_plane", max(in_plane_mm), _PLAUSIBLE_IN_PLANE_MM),
        ("in_plane", min(in_plane_mm), _PLAUSIBLE_IN_PLANE_MM),
    )
    for direction, spacing_mm, (low, high) in spacings:
        if not low <= spacing_mm <= high:
            log.warning("spacing", f"{sequence}: {spacing_mm:g} mm is no usual {direction} spacing")


def _check_axes(sequence: str, series: Series, log: FaultLog) -> None:
    """Log axes that are not at right angles to each other."""
    axes = series.affine[:3, :3]
    directions = axes / np.linalg.norm(axes, axis=0)  # (3, 3)
    cosines = directions.T @ directions - np.eye(3)
    if np.abs(cosines).max() > _RIGHT_ANGLE:
        log.warning("oblique", f"{sequence}: the axes are not at right angles")
