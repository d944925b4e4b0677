"""Recognise late enhancement of the short axis among stills."""

from __future__ import annotations

from dataclasses import dataclass, replace

from data_modules.dicom.image import Vector
from data_modules.dicom.physics import (
    SAX_DEGREES,
    degrees_between,
    degrees_from_heart_axis,
    has_one_echo,
    is_beat,
    is_nulled,
    is_phase_picture,
    is_t2_weighted,
    is_transverse,
)
from data_modules.dicom.stacks import Stack
from data_modules.dicom.study_words import StudyWords
from data_modules.dicom.timing import CINE_PHASES, Keep
from data_modules.dicom.word_table import (
    CINE,
    LOCALIZER,
    OF_LATE_TOO,
    OTHER_KIND,
    OTHER_VIEW,
    WEAK_LATE,
)

_STACK_SLICES = 3
# Angles to the short-axis cine of stacks that are parallel to it, and of such as may be tilted.
_PARALLEL_DEGREES = 20.0
_TILTED_DEGREES = 35.0


@dataclass(frozen=True)
class Score:
    """Points of a stack for a sequence.

    Attributes:
        stack: The stack.
        points: Sum of the points; a stack with more than none is a candidate.
        reasons: Reasons in words.
        doubt: What somebody should look at, in words, empty for nothing.
    """

    stack: Stack
    points: float
    reasons: tuple[str, ...]
    doubt: str = ""


def without_repeats(stack: Stack, words: StudyWords, keep: Keep) -> Stack:
    """Return late enhancement with one image for each slice, and any other stack as it is.

    Several images of a slice that go through no heart beat are repeats of it.

    Args:
        stack: A stack.
        words: Words of its study.
        keep: Repeat that is kept.
    """
    counts = [len(images) for images in stack.frames]
    if max(counts) == 1 or not has_one_echo(stack):
        return stack
    is_explicit = bool(explicit_words(stack, words))
    if not is_explicit and not is_nulled(stack):
        return stack
    if max(counts) >= CINE_PHASES and _may_be_other(stack, words, is_explicit):
        return stack
    index = -1 if keep == "later" else 0
    note = f"slices have up to {max(counts)} images, which are repeats: the {keep} one is kept"
    frames = tuple((images[index],) for images in stack.frames)
    others = [other for other in stack.notes if not other.startswith("frames ordered")]
    return replace(stack, frames=frames, time_key="", notes=(*others, note))


def _may_be_other(stack: Stack, words: StudyWords, is_explicit: bool) -> bool:
    """Return whether many images of a slice may be a cine, or a search for the inversion time."""
    if is_beat(stack) or len({image.facts.inversion_time_ms for image in stack.images}) > 2:
        return True
    return words.names(stack, CINE) and not is_explicit


def explicit_words(stack: Stack, words: StudyWords) -> frozenset[str]:
    """Return the words for late enhancement that no other series bears."""
    return words.held(stack, "lge") - WEAK_LATE


def score_late(stack: Stack, words: StudyWords, axis: Vector | None) -> Score:
    """Score stills as the late enhancement of the short axis.

    Args:
        stack: Slices with one image each.
        words: Words of its study.
        axis: (3,) normal of the short axis, None where there is none.
    """
    if stack.phases > 1:
        reason = f"{stack.slices} slices, {stack.phases} images each"
        return Score(stack, -1.0, (reason,))
    reasons = [f"{stack.slices} slices, one image each"]
    points = -1.5
    described = words.names(stack, "lge")
    nulled = is_nulled(stack)
    if nulled:
        points += 1.0
        reasons.append(f"inversion time {stack.first.facts.inversion_time_ms:.0f} ms")
    if described:
        points += 1.2
        reasons.append("the description says late enhancement")
    if axis is not None and degrees_between(stack.first.normal, axis) < _PARALLEL_DEGREES:
        points += 1.0
        reasons.append("parallel to the short-axis cine")
    if stack.slices >= _STACK_SLICES:
        points += 0.5
    if is_t2_weighted(stack):
        points -= 3.0
        reasons.append(f"echo time {stack.first.facts.echo_time_ms:.0f} ms")
    if is_phase_picture(stack):
        points -= 1.5
        reasons.append("phase image")
    if not nulled and not described:
        points = min(points, -0.5)
    score = _with_other_kind(Score(stack, points, tuple(reasons)), words)
    return _with_view(score, words, axis)


def _with_other_kind(score: Score, words: StudyWords) -> Score:
    """Return a score that counts words for another kind of series.

    Late enhancement that calls itself so and whose inversion time nulls myocardium is it, whatever
    else its name holds; with words alone it is in doubt; without them the other kind is as likely.
    """
    stack = score.stack
    explicit = explicit_words(stack, words)
    nulled = is_nulled(stack)
    others = words.held(stack, OTHER_KIND) | words.held(stack, LOCALIZER)
    if explicit or nulled:
        others -= OF_LATE_TOO
    if not others:
        return score
    reason = "the description says another kind of series"
    doubt = ""
    if explicit and nulled:
        points = score.points - 0.2
    elif explicit:
        points = score.points - 0.4
        doubt = f"late enhancement is named, and {reason}"
    else:
        # The other kind is not written as late enhancement, and neither is it left out silently.
        points = min(score.points - 2.5, -0.5)
        if nulled and score.points > 0:
            doubt = f"an inversion time nulls myocardium, and {reason}"
    return replace(score, points=points, reasons=(*score.reasons, reason), doubt=doubt)


def _with_view(score: Score, words: StudyWords, axis: Vector | None) -> Score:
    """Return a score by which views other than the short axis are no candidates."""
    stack = score.stack
    named_sax = words.names(stack, "sax")
    named_other = words.names(stack, "lax_4ch") or words.names(stack, OTHER_VIEW)
    normal = stack.first.normal
    if axis is None:
        angle, most = degrees_from_heart_axis(normal), SAX_DEGREES
        is_off = angle > most or is_transverse(normal)
        is_off = is_off and not (named_sax and is_transverse(normal))
        reason = f"its normal is {angle:.0f} degrees off base to apex"
    else:
        angle, most = degrees_between(normal, axis), _TILTED_DEGREES
        is_off = angle > most
        reason = f"{angle:.0f} degrees between its plane and the short axis"
    if is_off:
        doubt = "late enhancement is named a short axis, which its plane is not"
        doubt = doubt if named_sax and score.points > 0 else ""
        return Score(stack, -1.0, (*score.reasons, reason), doubt)
    if named_sax or not named_other or score.points <= 0:
        return score
    reason = "the description says another view"
    doubt = "late enhancement is named another view, and its plane is that of a short axis"
    points = score.points - 0.6
    if axis is None:
        points = -1.0
    return Score(stack, points, (*score.reasons, reason), doubt)
