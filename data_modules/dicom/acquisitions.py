"""Tell the acquisitions of one slice apart, so that a repeat makes no second heart beat."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from data_modules.dicom.geometry import SAME_POSITION_MM, position_along
from data_modules.dicom.image import Image
from data_modules.dicom.timing import CINE_PHASES, most_common

# Acquisitions of one slice have about as many images as each other.
_LEAST_BLOCK_RATIO = 0.8
_MOST_BLOCK_RATIO = 1.25
# Acquisitions of one slice share at least this much of the longest beat.
_SHARED_BEAT = 0.5
# Times are even steps of one beat where the longest is at most so many times the shortest.
_EVEN_STEPS = 1.5
# A breath is taken between acquisitions: at least so long, and so many times a frame's interval.
_LEAST_PAUSE_S = 5.0
_LEAST_PAUSE_INTERVALS = 10.0
# A slice is hardly acquired more often.
_MOST_ACQUISITIONS = 4
# Times that go through the beat and begin again with every acquisition.
_BEAT_KEYS = ("trigger_time_ms", "temporal_position")
_Blocks = list[list[Image]]


def usual_frames(slices: Iterable[Sequence[Image]]) -> int:
    """Return the number of images of one series that most slices have.

    A stack that was acquired twice as a whole, in two series, has twice as many in every slice.
    """
    counts: list[int] = []
    for images in slices:
        counts += Counter(image.series for image in images).values()
    return most_common(counts)


def acquisitions_of(images: list[Image], usual_count: int) -> list[list[Image]]:
    """Divide the images of a slice into its acquisitions, in the order of their time.

    A slice was acquired more than once when it has more images than most slices, or several at one
    trigger time. Acquisitions are told apart by series, by number, by time, by a pause, by
    instance numbers or by their place, whichever divides the images into blocks of the expected
    size: a number that counts images, say, divides them into blocks of one image.

    Where all slices were acquired more than once no size is expected: there the blocks themselves
    have to be heart beats, of about as many images each.

    Args:
        images: Images of one slice.
        usual_count: Number of images that most slices have.
    """
    distinct_times = _distinct_trigger_times(images)
    expected = usual_count
    if 1 < distinct_times <= len(images) // 2:
        expected = distinct_times
    if expected < len(images):
        for divide in _WAYS_BY_SIZE:
            blocks = divide(images, expected)
            if _are_of_size(blocks, expected):
                return sorted(blocks, key=_acquisition_order)
    if len(images) < 2 * CINE_PHASES:
        return [images]
    for blocks in _possible_blocks(images):
        if _are_beats(blocks):
            return sorted(blocks, key=_acquisition_order)
    return [images]


def _are_of_size(blocks: _Blocks, expected: float) -> bool:
    """Check that there are several blocks and each has about as many images as expected."""
    ratios = [len(block) / expected for block in blocks]
    if len(ratios) < 2:
        return False
    return min(ratios) >= _LEAST_BLOCK_RATIO and max(ratios) <= _MOST_BLOCK_RATIO


def _possible_blocks(images: list[Image]) -> Iterator[_Blocks]:
    """Yield the ways to divide the images of a slice of which no size is known."""
    yield _blocks(images, lambda image: image.acquisition[0])
    yield _blocks(images, lambda image: image.acquisition[1])
    yield _divided_by_place(images)
    for key in _BEAT_KEYS:
        yield _divided_at_first_times(images, key)
    for count in range(2, _MOST_ACQUISITIONS + 1):
        yield _divided_by_pauses(images, len(images) // count)


def _are_beats(blocks: _Blocks) -> bool:
    """Check that each block of images goes through the heart beat.

    Blocks that share no times are parts of one beat, and so are those whose times lie evenly
    between one another. Where no key tells times of the beat, a breath lies between acquisitions.
    """
    mean_size = sum(len(block) for block in blocks) / len(blocks)
    if not _are_of_size(blocks, mean_size) or min(map(len, blocks)) < CINE_PHASES:
        return False
    images = [image for block in blocks for image in block]
    key = _beat_key(images)
    if not key:
        return _are_paused(blocks)
    times = [np.sort([image.times[key] for image in block]) for block in blocks]
    shared = min(own[-1] for own in times) - max(own[0] for own in times)
    if shared < _SHARED_BEAT * max(own[-1] - own[0] for own in times):
        return False
    steps = np.diff(np.sort(np.concatenate(times)))
    return bool(steps.max() > _EVEN_STEPS * steps.min())


def _beat_key(images: Sequence[Image]) -> str:
    """Return the key of times in the beat that all images state, empty without one."""
    for key in _BEAT_KEYS:
        times = {image.times.get(key) for image in images}
        if None not in times and len(times) >= CINE_PHASES:
            return key
    return ""


def _are_paused(blocks: _Blocks) -> bool:
    """Check that a pause lies between blocks, much longer than between images of a block."""
    for key in ("content_time_s", "acquisition_time_s"):
        if any(key not in image.times for block in blocks for image in block):
            continue
        times_s = sorted(
            (np.sort([image.times[key] for image in block]) for block in blocks),
            key=lambda own: float(own[0]),
        )
        pauses_s = [later[0] - earlier[-1] for earlier, later in pairwise(times_s)]
        interval_s = max(float(np.diff(own).max()) for own in times_s)
        if min(pauses_s) >= max(_LEAST_PAUSE_S, _LEAST_PAUSE_INTERVALS * interval_s):
            return True
    return False


def _distinct_trigger_times(images: Sequence[Image]) -> int:
    """Return the number of different trigger times; 0 where an image states none."""
    times = [image.times.get("trigger_time_ms") for image in images]
    if None in times:
        return 0
    return len(set(times))


def _acquisition_order(block: Sequence[Image]) -> tuple[float, ...]:
    """Return a sort key by which an acquisition comes before its repeats."""
    first = min(block, key=lambda image: image.times.get("instance_number", 0.0))
    return (
        first.acquisition[1],
        first.acquisition[0],
        first.facts.series_number or 0.0,
        first.times.get("instance_number", 0.0),
        first.file_number,
    )


def _blocks(images: Sequence[Image], key: Callable[[Image], object]) -> list[list[Image]]:
    """Return images in blocks that have one value of a key."""
    blocks: dict[object, list[Image]] = defaultdict(list)
    for image in images:
        blocks[key(image)].append(image)
    return list(blocks.values())


def _divided_by_pauses(images: list[Image], expected: int) -> list[list[Image]]:
    """Divide images at the longest pauses between the times at which they were made."""
    for key in ("content_time_s", "acquisition_time_s"):
        if any(key not in image.times for image in images):
            continue
        in_time = sorted(images, key=lambda image: image.times[key])
        pauses_s = np.diff([image.times[key] for image in in_time])
        count = round(len(images) / expected)
        if count > 1 and len(set(pauses_s.round(4))) > 1:
            ends = np.sort(np.argsort(pauses_s)[-(count - 1) :]) + 1
            return [list(block) for block in _split(in_time, ends.tolist())]
    return [images]


def _divided_by_number(images: list[Image], expected: int) -> list[list[Image]]:
    """Divide images in the order of their instance numbers where the trigger times begin anew."""
    if any("instance_number" not in image.times for image in images):
        return [images]
    in_order = sorted(images, key=lambda image: image.times["instance_number"])
    times_ms = [image.times.get("trigger_time_ms") for image in in_order]
    ends = list(range(expected, len(images), expected))
    if None not in times_ms and len(set(times_ms)) > 1:
        ends = (np.flatnonzero(np.diff(np.array(times_ms, dtype=float)) <= 0) + 1).tolist()
    return [list(block) for block in _split(in_order, ends)]


def _divided_at_first_times(images: list[Image], key: str) -> _Blocks:
    """Divide images in the order of their instance numbers where times of the beat begin anew."""
    if any(key not in image.times or "instance_number" not in image.times for image in images):
        return [images]
    in_order = sorted(images, key=lambda image: image.times["instance_number"])
    steps = np.diff([image.times[key] for image in in_order])
    return [list(block) for block in _split(in_order, (np.flatnonzero(steps <= 0) + 1).tolist())]


def _divided_by_place(images: list[Image], expected: int = 0) -> _Blocks:
    """Divide images of one slice that lie at several places; the size is not needed."""
    normal = images[0].normal
    in_place = sorted(images, key=lambda image: position_along(image, normal))
    steps_mm = np.diff([position_along(image, normal) for image in in_place])
    ends = np.flatnonzero(steps_mm > SAME_POSITION_MM) + 1
    return [list(block) for block in _split(in_place, ends.tolist())]


def _split(images: Sequence[Image], ends: Sequence[int]) -> list[Sequence[Image]]:
    """Cut images at some indices."""
    bounds = [0, *ends, len(images)]
    return [images[bounds[index] : bounds[index + 1]] for index in range(len(bounds) - 1)]


_WAYS_BY_SIZE: tuple[Callable[[list[Image], int], _Blocks], ...] = (
    lambda images, size: _blocks(images, lambda image: image.series),
    lambda images, size: _blocks(images, lambda image: image.acquisition[0]),
    lambda images, size: _blocks(images, lambda image: image.acquisition[1]),
    _divided_by_pauses,
    _divided_by_number,
    _divided_by_place,
)
