"""Put series together that are phases of one cine: each holds all slices at one time of the beat."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from data_modules.dicom.geometry import SAME_POSITION_MM, position_along
from data_modules.dicom.image import Image, Vector
from data_modules.dicom.likeness import is_alike, plain_name
from data_modules.dicom.timing import CINE_PHASES, LONGEST_BEAT_MS
from data_modules.dicom.words import plain_words

# Frames of a cine follow one another within these times.
_FRAME_MS = (5.0, 200.0)
# Gaps between frames, in usual gaps: some phases may be lost, none lies beside another.
_LEAST_GAP = 0.3
_MOST_GAP = 5.0
_SAME_ECHO_MS = 0.5
# Share of its slices that a series shares with the others.
_SHARED_SLICES = 0.5
# A number behind one of these words counts phases.
_PHASE_NUMBER = re.compile(
    r"(?<!\w)(?:ph|phase|phases|fase|fases|faza|frame|fr|phasen?|herzphase|相位|期相|心相|時相|时相|위상)"
    r" ?(\d+)"
)
Series = list[Image]
Times = Callable[[Image], float | None]


def phases_together(series: Sequence[Series]) -> list[Series]:
    """Put series together that are phases of one cine, and leave all others as they are.

    They show the same slices, once each, in pictures of one kind, and one of their times goes
    through a heart beat in even steps. Repeats at one time, and pictures with an inversion time or
    with other echo times, are no phases of a cine.

    Args:
        series: Images of each series, in the order of their numbers.
    """
    families: list[list[Series]] = []
    for images in series:
        for family in families:
            if _may_be_phases(family[0], images):
                family.append(images)
                break
        else:
            families.append([images])
    together: list[Series] = []
    for family in families:
        together += _cines_of(family)
    return together


def _may_be_phases(first: Series, second: Series) -> bool:
    """Check that two series show the same slices, once each, in pictures of one kind."""
    image = first[0]
    other = second[0]
    if image.series == other.series or plain_name(image) != plain_name(other):
        return False
    if not is_alike(image, other) or _has_inversion(image) or _has_inversion(other):
        return False
    echo_ms, other_echo_ms = image.facts.echo_time_ms, other.facts.echo_time_ms
    if abs((echo_ms or 0.0) - (other_echo_ms or 0.0)) > _SAME_ECHO_MS:
        return False
    positions = [_positions_mm(images, image.normal) for images in (first, second)]
    if any((np.diff(own) <= SAME_POSITION_MM).any() for own in positions):
        return False
    apart = np.abs(positions[0][:, None] - positions[1][None])
    shared = int((apart.min(axis=0) <= SAME_POSITION_MM).sum())
    return shared >= _SHARED_SLICES * max(len(first), len(second))


def _has_inversion(image: Image) -> bool:
    return bool(image.facts.inversion_time_ms) or image.facts.several_inversion_times


def _positions_mm(images: Series, normal: Vector) -> Vector:
    """Return the ascending positions (N,) of images along a normal (3,)."""
    return np.sort([position_along(image, normal) for image in images])


def _cines_of(family: list[Series]) -> list[Series]:
    """Return the cine that series make, the cines that their repeats make, or the series."""
    whole = _cine_of(family)
    if whole is not None:
        return [whole]
    cines = [_cine_of(repeat) for repeat in _repeats(family)]
    if len(cines) > 1 and None not in cines:
        return [cine for cine in cines if cine is not None]
    return family


def _cine_of(family: list[Series]) -> Series | None:
    """Return the images of all series as those of one, None where they are no phases of a cine."""
    if len(family) < CINE_PHASES:
        return None
    if _make_beat(family, _trigger_time_ms, *_FRAME_MS):
        return _as_one_series(family)
    if _make_beat(family, _temporal_position):
        return _as_one_series(family)
    if _make_beat(family, _named_phase):
        return _as_one_series(family, by_name=True)
    return None


def _repeats(family: list[Series]) -> list[list[Series]]:
    """Divide series, in the order of their numbers, where their times begin anew."""
    for time_of in (_trigger_time_ms, _temporal_position, _named_phase):
        repeats: list[list[Series]] = []
        last = np.inf
        for images in family:
            time = time_of(images[0])
            if time is None:
                break
            if time <= last:
                repeats.append([])
            repeats[-1].append(images)
            last = time
        else:
            if len(repeats) <= len(family) // CINE_PHASES:
                return repeats
    return []


def _trigger_time_ms(image: Image) -> float | None:
    return image.times.get("trigger_time_ms")


def _temporal_position(image: Image) -> float | None:
    return image.times.get("temporal_position")


def _named_phase(image: Image) -> float | None:
    """Return the number of the phase that the name of the series states, None without one."""
    found = _PHASE_NUMBER.search(plain_words(image.facts.description))
    return float(found[1]) if found else None


def _make_beat(
    family: list[Series], time_of: Times, least: float = 0.0, most: float = np.inf
) -> bool:
    """Check that in every slice the times go through one heart beat in even steps.

    Args:
        family: Series with the same slices.
        time_of: Function from an image to its time.
        least: Smallest usual step.
        most: Largest usual step.
    """
    normal = family[0][0].normal
    at_slice: dict[int, list[float]] = {}
    places_mm = max((_positions_mm(images, normal) for images in family), key=len)
    for images in family:
        for image in images:
            time = time_of(image)
            if time is None:
                return False
            index = int(np.abs(places_mm - position_along(image, normal)).argmin())
            at_slice.setdefault(index, []).append(time)
    # A slice with fewer phases than others tells nothing of the steps.
    whole = [times for times in at_slice.values() if len(times) >= CINE_PHASES]
    return bool(whole) and all(_is_even(np.sort(times), least, most) for times in whole)


def _is_even(times: Vector, least: float, most: float) -> bool:
    """Check that ascending times (T,) go through one heart beat in steps that are much alike."""
    steps = np.diff(times)
    usual = float(np.median(steps))
    if usual <= 0 or not least <= usual <= most or steps.sum() > LONGEST_BEAT_MS:
        return False
    return bool(steps.min() >= _LEAST_GAP * usual and steps.max() <= _MOST_GAP * usual)


def _as_one_series(family: list[Series], *, by_name: bool = False) -> Series:
    """Return the images of all series as those of the first.

    Args:
        family: Series that are phases of one cine.
        by_name: The names of series alone number the phases.
    """
    images = []
    for image in (image for series in family for image in series):
        times = image.times
        if by_name:
            times = times | {"temporal_position": _named_phase(image) or 0.0}
        images.append(replace(image, series=family[0][0].series, times=times))
    return images
