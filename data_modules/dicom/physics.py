"""Tell from times, inversion and echo times and counts what kind of acquisition a stack is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cmrvlm.study.orientation import BASE_TO_APEX_RAS
from data_modules.dicom.geometry import LPS_TO_RAS
from data_modules.dicom.image import Image, Vector
from data_modules.dicom.stacks import Stack
from data_modules.dicom.timing import CINE_PHASES, LONGEST_BEAT_MS, trigger_span_ms

# First passes of contrast have a few slices and many measurements of them.
_PERFUSION_SLICES = 4
_PERFUSION_MEASUREMENTS = 30
# Seconds between measurements from which each is a heart beat of its own.
_BEAT_S = 0.4
# Largest component of a normal along the body for planes that are not transverse to it.
_TRANSVERSE = 0.95
# Frames of a heart beat span no less than this, are no nearer to each other, and have one echo time.
_SHORTEST_SPAN_MS = 100.0
_SHORTEST_FRAME_MS = 5.0
_SAME_ECHO_MS = 0.5
# Slices of one stack are planned together; repeated long axes differ by more.
SAME_STACK_DEGREES = 5.0
# A slice that belongs to a stack lies no more than this many of its gaps beyond its ends.
_GAPS_BEYOND = 1.5
_USUAL_GAP_MM = 10.0
# Largest angle of a short axis with base to apex in its usual place. Long axes are at 70 degrees
# and more; a real heart was seen at 54.
SAX_DEGREES = 65.0
# Inversion times at which normal myocardium is nulled, and echo times of T2-weighted images.
_NULLING_MS = (120.0, 700.0)
_LONG_ECHO_MS = 20.0


def reason_no_cine(stack: Stack) -> str:
    """Return why frames of a stack are no heart beat, empty where they may be.

    A cine's trigger times spread over one heart beat. Mapping has several inversion or echo times,
    tagging and velocity encoding say what they are, perfusion has a beat for each measurement.
    """
    facts = [image.facts for image in stack.images]
    if stack.phases < CINE_PHASES:
        return f"{stack.phases} phases"
    if facts[0].tagged:
        return "tagged"
    if any(fact.velocity_encoded for fact in facts) or "VELOCITY" in _types(stack):
        return "velocity encoded"
    inversions_ms = {fact.inversion_time_ms for fact in facts} - {None}
    if len(inversions_ms) > 1 or facts[0].several_inversion_times:
        return f"{max(len(inversions_ms), 2)} inversion times"
    echoes = max(_echo_times(images) for images in stack.frames)
    if echoes > 1:
        return f"{echoes} echo times"
    timed = [images for images in stack.frames if _has_triggers(images)]
    # A file or a slice without a time tells nothing of the others.
    if len(timed) > stack.slices / 2:
        return _reason_no_beat(stack, timed)
    # Some tools count images in the time of acquisition, so that it alone tells nothing.
    few_slices = stack.slices <= _PERFUSION_SLICES
    if few_slices and stack.phases >= _PERFUSION_MEASUREMENTS and _seconds_apart(stack):
        return f"{stack.slices} slices with {stack.phases} measurements, a heart beat each"
    return ""


def _reason_no_beat(stack: Stack, timed: Sequence[Sequence[Image]]) -> str:
    """Return why trigger times go through no heart beat, empty where they do.

    Measurements of a beat each are triggered at about the same time of it, which jitters.

    Args:
        stack: The stack.
        timed: Images of the slices that have trigger times.
    """
    spans_ms = [trigger_span_ms(images) for images in timed]
    span_ms = float(np.median(spans_ms))
    if span_ms > LONGEST_BEAT_MS:
        return f"its trigger times span {span_ms:.0f} ms, more than one heart beat"
    step_ms = float(np.median(np.array(spans_ms) / [len(images) - 1 for images in timed]))
    if span_ms < _SHORTEST_SPAN_MS or step_ms < _SHORTEST_FRAME_MS:
        return f"its trigger times span {span_ms:.0f} ms, no heart beat"
    if _seconds_apart(stack) and not all(map(_rises, timed)):
        return "its frames are a heart beat apart, and their trigger times do not rise"
    return ""


def _rises(images: Sequence[Image]) -> bool:
    """Return whether trigger times rise from one measurement to the next."""
    in_order = sorted(images, key=lambda image: image.times["acquisition_time_s"])
    times_ms = [image.times["trigger_time_ms"] for image in in_order]
    return bool((np.diff(times_ms) > 0).all())


def _echo_times(images: Sequence[Image]) -> int:
    """Return the number of echo times that images of a slice state."""
    echoes_ms = {image.facts.echo_time_ms for image in images} - {None}
    in_order = np.sort(np.array(list(echoes_ms), dtype=float))
    return 1 + int((np.diff(in_order) > _SAME_ECHO_MS).sum())


def has_one_echo(stack: Stack) -> bool:
    """Return whether the images of a slice have one echo time, so that they may be repeats."""
    return all(_echo_times(images) == 1 for images in stack.frames)


def is_beat(stack: Stack) -> bool:
    """Return whether trigger times go through a heart beat."""
    timed = [images for images in stack.frames if _has_triggers(images)]
    return len(timed) > stack.slices / 2 and not _reason_no_beat(stack, timed)


def _types(stack: Stack) -> set[str]:
    return set(stack.first.image_type)


def _has_triggers(images: Sequence[Image]) -> bool:
    """Return whether all frames of a slice have trigger times, and these differ."""
    times = {image.times.get("trigger_time_ms") for image in images}
    return None not in times and len(times) > 1


def _seconds_apart(stack: Stack) -> bool:
    """Return whether the frames of slices were acquired a heart beat or more apart."""
    gaps = []
    for images in stack.frames:
        times = [image.times.get("acquisition_time_s") for image in images]
        if None in times:
            return False
        gaps.append(float(np.median(np.diff(sorted(time for time in times if time is not None)))))
    return float(np.median(gaps)) >= _BEAT_S


def is_nulled(stack: Stack) -> bool | None:
    """Return whether an inversion time nulls normal myocardium, None where none is stated."""
    inversion_ms = stack.first.facts.inversion_time_ms
    if not inversion_ms:
        return None
    return _NULLING_MS[0] <= inversion_ms <= _NULLING_MS[1]


def is_t2_weighted(stack: Stack) -> bool:
    """Return whether the echo time is that of T2-weighted images, such as STIR."""
    echo_ms = stack.first.facts.echo_time_ms
    return echo_ms is not None and echo_ms > _LONG_ECHO_MS


def is_phase_picture(stack: Stack) -> bool:
    """Return whether the images show phase and not magnitude."""
    return bool({"P", "PHASE"} & _types(stack))


def is_transverse(normal: Vector) -> bool:
    """Return whether planes with a normal (3,) in LPS lie across the body."""
    return bool(abs(normal[2]) > _TRANSVERSE)


def degrees_between(first: Vector, second: Vector) -> float:
    """Return the angle between planes with these normals (3,), 0 to 90 degrees."""
    cosine = abs(float(first @ second))
    # Rounding can make it more than 1.
    return float(np.degrees(np.arccos(min(1.0, cosine))))


def degrees_from_heart_axis(normal: Vector) -> float:
    """Return the angle of a normal (3,) in LPS with base to apex in its usual place, in degrees."""
    apex = BASE_TO_APEX_RAS / np.linalg.norm(BASE_TO_APEX_RAS)
    return degrees_between(LPS_TO_RAS @ normal, apex)


def lies_within(stack: Stack, other: Stack) -> bool:
    """Return whether a stack is parallel to another and lies between its ends or just beyond."""
    normal = other.first.normal
    if degrees_between(stack.first.normal, normal) > SAME_STACK_DEGREES:
        return False
    heights_mm = np.array([_centre_mm(images[0]) @ normal for images in stack.frames])
    others_mm = np.array([_centre_mm(images[0]) @ normal for images in other.frames])
    gap_mm = _USUAL_GAP_MM
    if other.slices > 1:
        gap_mm = float(np.ptp(others_mm)) / (other.slices - 1)
    beyond_mm = np.maximum(others_mm.min() - heights_mm, heights_mm - others_mm.max())
    return bool((beyond_mm <= _GAPS_BEYOND * gap_mm).any())


def _centre_mm(image: Image) -> Vector:
    """Return the centre (3,) of an image, its first pixel where the size of pixels is unknown."""
    position_mm = np.asarray(image.position_mm, dtype=float)
    if image.spacing_mm is None:
        return position_mm
    down_mm, along_mm = np.array(image.spacing_mm) * (np.array(image.shape) - 1) / 2
    return position_mm + image.column_direction * down_mm + image.row_direction * along_mm
