"""Read trigger times in ms where a tool wrote them in seconds or in microseconds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from cmrvlm.study.frame_times import ONE_CYCLE_MS
from data_modules.dicom.image import Image
from data_modules.dicom.likeness import plain_name
from data_modules.dicom.timing import CINE_PHASES, LONGEST_BEAT_MS

# No heart beats faster: a pulse of 200 a minute.
_SHORTEST_BEAT_MS = ONE_CYCLE_MS[0]
# Frames of a cine follow one another within this; those of a slow dynamic series do not.
_LONGEST_FRAME_MS = 200.0
# Factors to ms, and the unit that each is of.
UNITS = {1000.0: "seconds", 0.001: "microseconds"}


def in_milliseconds(images: Sequence[Image]) -> tuple[list[Image], dict[str, float]]:
    """Return images with trigger times in ms.

    A beat of 0.3 to 2.5 "ms" is of seconds, one of 300,000 to 2,500,000 "ms" is of microseconds.

    Args:
        images: Images of a study.

    Returns:
        The images, and name of a series to the factor by which its times were multiplied.
    """
    factors = _factors(images)
    if not factors:
        return list(images), {}
    converted = []
    for image in images:
        factor = factors.get(plain_name(image))
        time = image.times.get("trigger_time_ms")
        if factor is not None and time is not None:
            image = replace(image, times=image.times | {"trigger_time_ms": time * factor})
        converted.append(image)
    return converted, factors


def unit_note(images: Sequence[Image], factors: Mapping[str, float]) -> tuple[str, ...]:
    """Return what is said of a stack whose times were converted, nothing for others."""
    factor = factors.get(plain_name(images[0]))
    if factor is None:
        return ()
    return (f"trigger times are read as {UNITS[factor]}",)


def _factors(images: Sequence[Image]) -> dict[str, float]:
    """Return name of a series to the factor of its times, without those that are in ms.

    Series of one name are judged together, as each may hold one phase of the beat.
    """
    by_place: dict[str, dict[tuple[float, ...], set[float]]] = defaultdict(dict)
    clocks: dict[str, dict[tuple[float, ...], list[float]]] = defaultdict(dict)
    for image in images:
        time = image.times.get("trigger_time_ms")
        if time is None or image.position_mm is None:
            continue
        place = tuple(np.round((*image.position_mm, *image.normal), 1).tolist())
        by_place[plain_name(image)].setdefault(place, set()).add(time)
        clocks[plain_name(image)].setdefault(place, []).append(_clock_s(image))
    factors: dict[str, float] = {}
    for name, places in by_place.items():
        usual = [np.sort(list(times)) for times in places.values() if len(times) >= CINE_PHASES]
        if not usual:
            continue
        frame = float(np.median([np.median(np.diff(times)) for times in usual]))
        beat = frame + float(np.median([times[-1] - times[0] for times in usual]))
        # Images that were made over as long a time as they state are of a slow dynamic series.
        made_over_s = float(np.median([np.ptp(own) for own in clocks[name].values()]))
        if made_over_s * 1000 >= beat / 2 and beat > LONGEST_BEAT_MS:
            continue
        for factor in UNITS:
            is_beat = _SHORTEST_BEAT_MS <= beat * factor <= LONGEST_BEAT_MS
            if is_beat and frame * factor <= _LONGEST_FRAME_MS:
                factors[name] = factor
    return factors


def _clock_s(image: Image) -> float:
    """Return when an image was made, in seconds of the day; 0 where nothing states it."""
    return image.times.get("content_time_s", image.times.get("acquisition_time_s", 0.0))
