"""Divide images into series, and put series together that are slices or phases of one stack."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_modules.dicom.image import Image
from data_modules.dicom.likeness import counts_at_positions, is_alike, plain_name
from data_modules.dicom.phases import phases_together

# Between two slices of one stack that are series of their own lie at most this many others;
# numbers of series cannot tell, as some scanners count them by thousands.
_SERIES_BETWEEN = 10
# A stack of fewer slices may be a repeat of slices of a larger one.
_WHOLE_STACK = 3
# Numbers of frames, and lengths of the beat, of slices of one stack differ by less than this.
_SAME_TIMES_RATIO = 1.5


def _series_of(images: Sequence[Image]) -> list[list[Image]]:
    """Divide images by series, and those of a series by direction, size and picture type."""
    series: list[list[Image]] = []
    for image in images:
        for group in series:
            if group[0].series == image.series and is_alike(group[0], image):
                group.append(image)
                break
        else:
            series.append([image])
    return series


def merged_series(images: Sequence[Image]) -> list[list[Image]]:
    """Divide images by series, and put series together that are slices of one stack.

    Scanners write one series for each slice, for each breath hold, or for each phase.
    """
    in_order = sorted(_series_of(images), key=lambda group: _series_number(group[0]))
    merged: list[list[Image]] = []
    last_ranks: list[int] = []
    for rank, group in enumerate(phases_together(in_order)):
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


def _belong_together(stack: Sequence[Image], group: Sequence[Image]) -> bool:
    """Check that a series is a slice, or some slices, of a stack that others began.

    Their geometry, size and kind are alike, and they have one name but for its numbers. Both are
    cines, or both are stills of other places: a second whole stack of stills is another
    acquisition. Stacks that a file itself keeps apart stay apart, but for those of one slice each.
    """
    image = stack[0]
    other = group[0]
    if _series_without_stack(image) == _series_without_stack(other):
        return is_alike(image, other) and _are_single_slices(stack, group)
    if not is_alike(image, other) or plain_name(image) != plain_name(other):
        return False
    images_at_position = counts_at_positions(stack, image.normal)
    other_images_at_position = counts_at_positions(group, image.normal)
    is_cine = max(images_at_position.values()) > 1
    if is_cine != (max(other_images_at_position.values()) > 1):
        return False
    if is_cine:
        return True
    is_repeat = bool(images_at_position.keys() & other_images_at_position.keys())
    return not is_repeat or min(len(stack), len(group)) < _WHOLE_STACK


def _are_single_slices(stack: Sequence[Image], group: Sequence[Image]) -> bool:
    """Check that a file calls each slice a stack: each is at another place, with the same times."""
    normal = stack[0].normal
    by_stack: dict[str, list[Image]] = {}
    for image in (*stack, *group):
        by_stack.setdefault(image.series, []).append(image)
    places: set[int] = set()
    for images in by_stack.values():
        own = counts_at_positions(images, normal).keys()
        if len(own) > 1 or own & places:
            return False
        places |= own
    return _have_same_times(stack, group)


def _have_same_times(stack: Sequence[Image], group: Sequence[Image]) -> bool:
    """Check that a stack's slices have as many images as a slice, over a beat that is as long."""
    of_stack = [image for image in stack if image.series == stack[0].series]
    if max(len(of_stack), len(group)) > _SAME_TIMES_RATIO * min(len(of_stack), len(group)):
        return False
    spans_ms = []
    for images in (of_stack, group):
        times = [image.times.get("trigger_time_ms") for image in images]
        known = [time for time in times if time is not None]
        spans_ms.append(max(known) - min(known) if known else 0.0)
    # Times that nothing states, or that are all alike, tell nothing.
    return min(spans_ms) == 0 or max(spans_ms) <= _SAME_TIMES_RATIO * min(spans_ms)


def _series_without_stack(image: Image) -> str:
    return image.series.rpartition("/")[0]
