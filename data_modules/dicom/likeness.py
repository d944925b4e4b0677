"""Compare images of series: direction, size, picture type, name and positions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from data_modules.dicom.geometry import SAME_POSITION_MM, position_along
from data_modules.dicom.image import Image, Vector
from data_modules.dicom.words import plain_words

# In rad; breath holds are planned alike, scanners round to six digits.
_SAME_DIRECTION = 0.01
_SAME_SPACING_MM = 1e-3
# Components of the image type that make another picture: magnitude, phase, phase-sensitive; and
# what was computed from other images, which is no repeat of them.
_PICTURE_TYPES = {"M", "P", "R", "I", "PHASE", "PS", "PSIR", "MAGNITUDE", "SECONDARY"}

# Words by which the series of one stack differ, beside numbers: levels, slices and repeats.
_WORDS_OF_SLICES = frozenset(
    (
        *("basal", "base", "basis", "bas", "mid", "middle", "medial", "medio", "moyen", "mitte"),
        *("midventricular", "ventricular", "apical", "apikal", "apex", "spitze", "apice"),
        *("slice", "slices", "sl", "coupe", "corte", "schicht", "strato", "level"),
        *("repeat", "repeated", "rpt", "rep", "redo", "again", "wdh", "bis"),
        *("基底", "基底部", "中间", "中部", "中間", "心尖", "心尖部", "重复"),
    )
)


def is_alike(first: Image, second: Image) -> bool:
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


def plain_name(image: Image) -> str:
    """Return the description of a series without numbers, levels of slices, or words for repeats."""
    words = plain_words(re.sub(r"\d+", " ", image.facts.description)).split()
    return " ".join(word for word in words if word not in _WORDS_OF_SLICES)


def counts_at_positions(images: Sequence[Image], normal: Vector) -> Counter[int]:
    """Return the number of images at each position along a normal (3,)."""
    counts: Counter[int] = Counter()
    for image in images:
        counts[round(position_along(image, normal) / SAME_POSITION_MM)] += 1
    return counts
