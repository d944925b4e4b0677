"""Divide images into series, and put series together that are slices of one stack."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from data_modules.dicom.geometry import SAME_POSITION_MM, position_along
from data_modules.dicom.image import Image, Vector

# In rad; breath holds are planned alike, scanners round to six digits.
_SAME_DIRECTION = 0.01
_SAME_SPACING_MM = 1e-3
# Components of the image type that make another picture: magnitude, phase, phase-sensitive.
_PICTURE_TYPES = {"M", "P", "R", "I", "PHASE", "PS", "PSIR", "MAGNITUDE"}
# Between two slices of one stack that are series of their own lie at most this many others;
# numbers of series cannot tell, as some scanners count them by thousands.
_SERIES_BETWEEN = 10
# A stack of fewer slices may be a repeat of slices of a larger one.
_WHOLE_STACK = 3


def _series_of(images: Sequence[Image]) -> list[list[Image]]:
    """Divide images by series, and those of a series by direction, size and picture type."""
    series: list[list[Image]] = []
    for image in images:
        for group in series:
            if group[0].series == image.series and _is_alike(group[0], image):
                group.append(image)
                break
        else:
            series.append([image])
    return series


def merged_series(images: Sequence[Image]) -> list[list[Image]]:
    """Divide images by series, and put series together that are slices of one stack.

    Scanners write one series for each slice, or for each breath hold.
    """
    in_order = sorted(_series_of(images), key=lambda group: _series_number(group[0]))
    merged: list[list[Image]] = []
    last_ranks: list[int] = []
    for rank, group in enumerate(in_order):
        for index, stack in enumerate(merged):
            if rank - last_ranks[index] <= _SERIES_BETWEEN and _belong_together(stack, group):
                stack += group
                last_ranks[index] = rank
                break
        else:
            merged.append(list(group))
            last_ranks.append(rank)
    return merged


def _series_number(image: Image) -> float:
    """Return the number of an image's series; series without one come last."""
    number = image.facts.series_number
    return np.inf if number is None else number


def _is_alike(first: Image, second: Image) -> bool:
    """Check that two images have the direction, size and picture type that a stack shares."""
    return (
        _same_direction(first.row_direction, second.row_direction)
        and _same_direction(first.column_direction, second.column_direction)
        and first.shape == second.shape
        and _same_spacing(first.spacing_mm, second.spacing_mm)
        and _picture_types(first) == _picture_types(second)
    )


def _same_direction(first: Vector, second: Vector) -> bool:
    """Check that two unit vectors (3,) point in one direction."""
    return bool(np.linalg.norm(first - second) < _SAME_DIRECTION)


def _same_spacing(
    first_mm: tuple[float, float] | None, second_mm: tuple[float, float] | None
) -> bool:
    """Check that two distances of rows and columns differ by rounding at most."""
    if first_mm is None or second_mm is None:
        return first_mm is second_mm
    return bool(np.allclose(first_mm, second_mm, rtol=0, atol=_SAME_SPACING_MM))


def _picture_types(image: Image) -> set[str]:
    return _PICTURE_TYPES & set(image.image_type)


def _belong_together(stack: Sequence[Image], group: Sequence[Image]) -> bool:
    """Check that a series is a slice, or some slices, of a stack that others began.

    Their geometry, size and kind are alike, and they have one name but for its numbers. Both are
    cines, or both are stills of other places: a second whole stack of stills is another
    acquisition. Stacks that a file itself keeps apart stay apart.
    """
    image = stack[0]
    other = group[0]
    if _series_without_stack(image) == _series_without_stack(other):
        return False
    if not _is_alike(image, other) or _name(image) != _name(other):
        return False
    images_at_position = _counts_at_positions(stack, image.normal)
    other_images_at_position = _counts_at_positions(group, image.normal)
    is_cine = max(images_at_position.values()) > 1
    if is_cine != (max(other_images_at_position.values()) > 1):
        return False
    if is_cine:
        return True
    is_repeat = bool(images_at_position.keys() & other_images_at_position.keys())
    return not is_repeat or min(len(stack), len(group)) < _WHOLE_STACK


def _series_without_stack(image: Image) -> str:
    return image.series.rpartition("/")[0]


def _name(image: Image) -> str:
    """Return the description of a series without its numbers."""
    return re.sub(r"[\W\d_]+", " ", image.facts.description.casefold()).strip()


def _counts_at_positions(images: Sequence[Image], normal: Vector) -> Counter[int]:
    """Return the number of images at each position along a normal (3,)."""
    counts: Counter[int] = Counter()
    for image in images:
        counts[round(position_along(image, normal) / SAME_POSITION_MM)] += 1
    return counts
