"""Checks of a series: grey values, geometry, and the mask on its image."""

from __future__ import annotations

import numpy as np

from cmrvlm.study.measurements import FEWEST_SLICES
from cmrvlm.study.study import Series
from cmrvlm.study.vocabulary import CINE, NOT_ANNOTATED, STRUCTURES
from data_modules.checking.faults import FaultLog
from data_modules.sources.mask_checks import (
    bright_cavity_fraction,
    displaced_slices,
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


def check_mask(sequence: str, series: Series, log: FaultLog) -> None:
    """Log the faults of a series' mask; a series without a mask has none.

    Args:
        sequence: Name of the series, such as `sax`.
        series: Series with an image (Z, T, H, W) and perhaps a mask on the same grid.
        log: Log that faults are added to.
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
        problem = find_label_error(np.asarray(series.mask[:, frame]))
        if problem:
            log.warning("anatomy", f"{sequence}, frame {frame}: {problem}")
            break
    share = bright_cavity_fraction(series, annotated[0])
    if sequence in CINE and share is not None and share < _LEAST_BRIGHTER:
        log.warning(
            "off_image",
            f"{sequence}: {share:.0%} of a cavity is brighter than the wall; "
            "does the mask lie on the image?",
        )
    for index, distance_mm in displaced_slices(series, annotated[0]).items():
        log.warning(
            "displaced", f"{sequence}: slice {index} lies {distance_mm:.0f} mm beside the axis"
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
