"""Order the frames of slices in time, and put each frame where its time puts it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.frame_times import ONE_CYCLE_MS
from data_modules.dicom.image import TIME_KEYS, UNIFORM_KEYS, Image, Vector

# A stack with fewer phases is no cine.
CINE_PHASES = 5
# Trigger times of one heart beat span no more than this.
LONGEST_BEAT_MS = ONE_CYCLE_MS[1]
# A frame that lies this near to where one is wanted, in frame intervals, is taken as it is.
_SAME_TIME = 0.25
# A slice that lacks more frames than this share cannot be completed.
_MOST_MISSING = 0.5
# Trigger times are filled in where at least this share of the images has one.
_LEAST_KNOWN_TIMES = 0.5
Keep = Literal["later", "first"]
# How a slice with other frames than most is treated.
UnevenFrames = Literal["resample", "drop", "error"]


def most_common(counts: Iterable[int]) -> int:
    """Return the number that occurs most often, of several the first."""
    return Counter(counts).most_common(1)[0][0]


def time_key_of(slices: Sequence[Sequence[Image]]) -> str:
    """Return the best time key that orders one heart beat in every slice.

    A key that is the same for frames of a slice, such as a TemporalPositionIdentifier of 1
    throughout or trigger times of 0, does not order them. Of trigger times that span several
    heart beats another key is taken where there is one.

    Raises:
        CmrvlmError: There is no such key.
    """
    orders = [key for key in TIME_KEYS if all(_is_different(key, images) for images in slices)]
    within_beat = [key for key in orders if key != "trigger_time_ms" or _is_one_beat(slices)]
    for key in (*within_beat, *orders):
        return key
    raise CmrvlmError(
        "frames of a slice cannot be told apart in time",
        file=f"file {slices[0][0].file_number}",
        field="TriggerTime",
        remedy="Leave the series out.",
    )


def _is_different(key: str, images: Sequence[Image]) -> bool:
    """Check that a time key differs between all frames of a slice."""
    values = [image.times.get(key) for image in images]
    if None in values:
        return False
    return len(set(values)) == len(values)


def _is_one_beat(slices: Sequence[Sequence[Image]]) -> bool:
    """Check that the trigger times of each slice span one heart beat at most."""
    return all(trigger_span_ms(images) <= LONGEST_BEAT_MS for images in slices)


def trigger_span_ms(images: Sequence[Image]) -> float:
    """Return the time from the first to the last trigger time of a slice."""
    times = [image.times["trigger_time_ms"] for image in images]
    return max(times) - min(times)


def in_time(images: Sequence[Image], time_key: str) -> tuple[Image, ...]:
    """Return images in the order of a time key; without a key they stay as they are."""
    return tuple(sorted(images, key=lambda image: image.times.get(time_key, 0.0)))


def with_trigger_times(frames: Sequence[Sequence[Image]]) -> list[tuple[Image, ...]] | None:
    """Return images of which some lack a trigger time with those of other slices at their place.

    A time that several frames of a slice state, such as 0 throughout, is that of none.

    Args:
        frames: Images of each slice, in the order of another key.

    Returns:
        The same images, all with trigger times; None where a slice with other frames than most
        lacks times, a time is nowhere stated, or the times that are stated go another way than the
        images.
    """
    count = most_common(len(images) for images in frames)
    stated = [_stated_times_ms(images) for images in frames]
    # (Z, T), NaN where a time is missing.
    whole = np.array([times for times in stated if len(times) == count])
    known = np.isfinite(whole)
    if count < CINE_PHASES or known.mean() < _LEAST_KNOWN_TIMES or not known.any(axis=0).all():
        return None
    usual = np.nanmedian(whole, axis=0)  # (T,)
    timed = []
    for images, times in zip(frames, stated, strict=True):
        filled = np.where(np.isfinite(times), times, usual) if len(times) == count else times
        # Comparisons with NaN are false.
        if not ((np.diff(filled) > 0).all() and filled[-1] - filled[0] <= LONGEST_BEAT_MS):
            return None
        timed.append(
            tuple(
                replace(image, times=image.times | {"trigger_time_ms": float(time)})
                for image, time in zip(images, filled, strict=True)
            )
        )
    return timed


def _stated_times_ms(images: Sequence[Image]) -> Vector:
    """Return the trigger times (T,) of a slice, NaN where one is missing or that of several."""
    times = [image.times.get("trigger_time_ms", np.nan) for image in images]
    counts = Counter(times)
    return np.array([time if counts[time] == 1 else np.nan for time in times])


def slice_times(slices: Sequence[Sequence[Image]], time_key: str) -> list[Vector]:
    """Return for each slice the times (T,) of its frames in units of its key.

    They begin at 0 in each slice where the slices begin at different times, as when the clock runs
    on from slice to slice, and at 0 in the earliest one elsewhere: a first frame that is lost is
    then known to be lost.
    """
    times = [np.array([image.times[time_key] for image in images]) for images in slices]
    starts = np.array([values[0] for values in times])
    interval = _interval(times)
    begin_together = np.median(np.abs(starts - np.median(starts))) < interval / 2
    if begin_together:
        return [values - starts.min() for values in times]
    return [values - values[0] for values in times]


def _interval(times: Sequence[Vector]) -> float:
    """Return the usual distance of two frames; 1 where no slice has two."""
    gaps = [np.diff(values) for values in times if len(values) > 1]
    if not gaps:
        return 1.0
    return float(np.median(np.concatenate(gaps)))


def frame_weights(
    slices: Sequence[Sequence[Image]], time_key: str, count: int
) -> list[NDArray[np.float32]]:
    """Return how the frames of each slice make up those of the whole stack.

    Frames of slices that have as many as most stay as they are. Those of others lie where their
    times put them, and frames that are missing there are interpolated between their neighbours in
    the heart beat; where no key tells times, frames are spread over the beat by their number.

    Args:
        slices: Images of each slice, in time.
        time_key: Key by which they are ordered.
        count: Frames T of the stack.

    Returns:
        For each slice (T, own frames); a row with a single 1 takes a frame as it is.
    """
    if all(len(images) == count for images in slices):
        return [np.eye(count, dtype=np.float32) for _ in slices]
    wanted, times, beat = _times_of_whole_slices(slices, time_key, count)
    weights = []
    for index, images in enumerate(slices):
        if len(images) == count:
            weights.append(np.eye(count, dtype=np.float32))
        else:
            weights.append(_interpolated(wanted, times[index], beat))
    return weights


def _times_of_whole_slices(
    slices: Sequence[Sequence[Image]], time_key: str, count: int
) -> tuple[Vector, list[Vector], float]:
    """Return the times (T,) of the stack, those of each slice, and the length of the beat."""
    if time_key not in UNIFORM_KEYS:
        times = [np.arange(len(images)) / len(images) for images in slices]
        return np.arange(count) / count, times, 1.0
    times = slice_times(slices, time_key)
    whole = [values for values in times if len(values) == count]
    wanted = np.median(whole, axis=0)
    return wanted, times, float(wanted[-1] + _interval(whole))


def _interpolated(wanted: Vector, times: Vector, beat: float) -> NDArray[np.float32]:
    """Return weights (T, N) by which N frames at some times are seen at T wanted times of a beat."""
    weights = np.zeros((len(wanted), len(times)), dtype=np.float32)
    if len(times) == 1:
        weights[:] = 1.0
        return weights
    interval = float(np.median(np.diff(times)))
    # The beat begins anew after its last frame.
    around = np.concatenate([times[-1:] - beat, times, times[:1] + beat])
    indices = np.concatenate([[len(times) - 1], np.arange(len(times)), [0]])
    for row, time in enumerate(wanted):
        after = int(np.clip(np.searchsorted(around, time), 1, len(around) - 1))
        before = after - 1
        span = around[after] - around[before]
        share = 1.0 if span <= 0 else float(np.clip((time - around[before]) / span, 0, 1))
        nearest = before if share < 0.5 else after
        if abs(around[nearest] - time) <= _SAME_TIME * interval:
            weights[row, indices[nearest]] = 1.0
            continue
        weights[row, indices[before]] += 1.0 - share
        weights[row, indices[after]] += share
    return weights


def too_few_frames(own_count: int, count: int) -> bool:
    """Return whether a slice lacks more frames of a stack than can be filled in."""
    return own_count < (1 - _MOST_MISSING) * count
