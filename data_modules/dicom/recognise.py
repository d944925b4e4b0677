"""Recognise the short-axis cine, the four-chamber cine and the late enhancement among stacks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_modules.dicom.image import Vector
from data_modules.dicom.stacks import Stack

# A stack with fewer phases is no cine.
CINE_PHASES = 5
_SAX_SLICES = 3
# Inversion times at which normal myocardium is nulled.
_NULLING_MS = (120.0, 700.0)
# Largest component of a normal along the body for planes that are not transverse to it.
_TRANSVERSE = 0.95
_LOCALIZER = re.compile(r"scout|locali[sz]er|survey|plan(ning)?\b|3[- ]?plane", re.IGNORECASE)
_WORDS = {
    "sax": re.compile(r"\bsax\b|short[ _-]?ax|sa[ _-]stack|\bsa\b|kurzachse", re.IGNORECASE),
    "lax_4ch": re.compile(r"4[ _-]?ch|four[ _-]?ch|\bhla\b|4[ _-]?chamber", re.IGNORECASE),
    "lge": re.compile(
        r"\blge\b|late|delayed|psir|\bde[_ -]|enhanc|viab|\bmde\b|tfi_?psir|_ir\b", re.IGNORECASE
    ),
}
_OTHER_VIEW = re.compile(
    r"\blax|long[ _-]?ax|2[ _-]?ch|3[ _-]?ch|rvot|lvot|\bvla\b|aorta"
    r"|perf|\bt[12]\b|map|tagg|flow|venc",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Decision:
    """Result of the recognition of a stack.

    Attributes:
        stack: The stack.
        sequence: `sax`, `lax_4ch`, `lge`, or empty for a stack that is left out.
        reasons: Reasons in words.
        ambiguous: Signals disagree.
    """

    stack: Stack
    sequence: str
    reasons: tuple[str, ...]
    ambiguous: bool = False


@dataclass(frozen=True)
class _Score:
    """Points of a stack for a sequence.

    Attributes:
        stack: The stack.
        points: Sum of the points; a stack with more than none is a candidate.
        reasons: Reasons in words.
    """

    stack: Stack
    points: float
    reasons: tuple[str, ...]


def recognise(stacks: Sequence[Stack]) -> list[Decision]:
    """Decide which sequence each stack is; each sequence is given to one stack at most.

    Args:
        stacks: Stacks of one study.

    Returns:
        A decision for each stack, in their order.
    """
    decisions: dict[int, Decision] = {}
    cines = []
    stills = []
    for stack in stacks:
        if _is_localizer(stack):
            decisions[id(stack)] = Decision(stack, "", ("localizer",))
        elif stack.phases >= CINE_PHASES:
            cines.append(stack)
        else:
            stills.append(stack)

    sax = _best([_score_sax(stack) for stack in cines])
    # Of a study without a short axis only descriptions and the body's directions tell the rest.
    axis = sax.stack.first.normal if sax is not None else None
    others = [stack for stack in cines if sax is None or stack is not sax.stack]
    four_chamber = _best([_score_four_chamber(stack, axis) for stack in others])
    late = _best([_score_late(stack, axis) for stack in stills])
    for sequence, score in (("sax", sax), ("lax_4ch", four_chamber), ("lge", late)):
        if score is not None:
            ambiguous = _is_ambiguous(score.stack, sequence)
            decision = Decision(score.stack, sequence, score.reasons, ambiguous)
            decisions[id(score.stack)] = decision

    for stack in (*cines, *stills):
        if id(stack) not in decisions:
            decisions[id(stack)] = _left_out(stack, axis)
    return [decisions[id(stack)] for stack in stacks]


def _is_described_as(stack: Stack, sequence: str) -> bool:
    """Check that the description of a stack names a sequence."""
    description = stack.first.facts["description"]
    return bool(_WORDS[sequence].search(description))


def _is_described_as_other(stack: Stack) -> bool:
    """Check that the description of a stack names a view that is none of the sequences."""
    description = stack.first.facts["description"]
    return bool(_OTHER_VIEW.search(description))


def _is_localizer(stack: Stack) -> bool:
    first = stack.first
    if "LOCALIZER" in first.image_type:
        return True
    return bool(_LOCALIZER.search(first.facts["description"]))


def _angle_between(first: Vector, second: Vector) -> float:
    """Return the angle between planes with these normals (3,) in degrees, 0 to 90."""
    cosine = abs(float(first @ second))
    # Rounding can make it more than 1.
    return float(np.degrees(np.arccos(min(1.0, cosine))))


def _score_sax(stack: Stack) -> _Score:
    """Score a cine as the short axis."""
    reasons = [f"{stack.phases} phases", f"{stack.slices} parallel slices"]
    points = -1.0
    described = _is_described_as(stack, "sax")
    if described:
        points += 2.0
        reasons.append("the description says short axis")
    elif abs(stack.first.normal[2]) > _TRANSVERSE:
        reasons.append("the planes are transverse to the body")
        return _Score(stack, -1.0, tuple(reasons))
    if stack.slices >= _SAX_SLICES:
        # Of two stacks that are alike the one with more slices is taken.
        points += 2.0 + 0.01 * stack.slices
    if _is_described_as(stack, "lax_4ch") or _is_described_as_other(stack):
        points -= 2.5
        reasons.append("the description says another view")
    return _Score(stack, points, tuple(reasons))


def _score_four_chamber(stack: Stack, axis: Vector | None) -> _Score:
    """Score a cine as the four-chamber view.

    Args:
        stack: A cine.
        axis: (3,) normal of the short axis, None where there is none.
    """
    normal = stack.first.normal
    reasons = [f"{stack.phases} phases", f"{stack.slices} slices"]
    points = -1.5
    if axis is not None:
        angle = _angle_between(normal, axis)
        reasons.append(f"{angle:.0f} degrees between its plane and the short axis")
        if angle < 60:
            return _Score(stack, -1.0, tuple(reasons))
        points += 0.5

    # Views of two and of three chambers do not hold the left-right direction.
    left_right = np.array([1.0, 0.0, 0.0])
    sideways = _angle_between(normal, left_right)
    reasons.append(f"its plane holds the left-right direction to {90 - sideways:.0f} degrees")
    if sideways > 60:
        points += 1.0 + (sideways - 60) / 30
    if _is_described_as(stack, "lax_4ch"):
        points += 1.0
        reasons.append("the description says four chambers")
    elif _is_described_as_other(stack):
        points -= 1.5
        reasons.append("the description says another view")
    return _Score(stack, points, tuple(reasons))


def _score_late(stack: Stack, axis: Vector | None) -> _Score:
    """Score stills as the late enhancement.

    Args:
        stack: Slices with one image each.
        axis: (3,) normal of the short axis, None where there is none.
    """
    first = stack.first
    reasons = [f"{stack.slices} slices, one image each"]
    points = -1.5
    inversion_ms = first.facts["inversion_time_ms"]
    shortest_ms, longest_ms = _NULLING_MS
    if inversion_ms is not None and shortest_ms <= inversion_ms <= longest_ms:
        points += 1.0
        reasons.append(f"inversion time {inversion_ms:.0f} ms")
    if _is_described_as(stack, "lge"):
        points += 1.0
        reasons.append("the description says late enhancement")
    if axis is not None and _angle_between(first.normal, axis) < 20:
        points += 1.0
        reasons.append("parallel to the short-axis cine")
    if stack.slices >= _SAX_SLICES:
        points += 0.5
    if {"P", "PHASE"} & set(first.image_type):
        points -= 1.5
        reasons.append("phase image")
    return _Score(stack, points, tuple(reasons))


def _best(scores: Sequence[_Score]) -> _Score | None:
    """Return the score with most points, of equal ones that with most images, or None."""
    candidates = [score for score in scores if score.points > 0]
    return max(
        candidates,
        key=lambda score: (score.points, len(score.stack.images)),
        default=None,
    )


def _is_ambiguous(stack: Stack, sequence: str) -> bool:
    """Check whether the description of a stack names something else than the sequence."""
    for other in _WORDS:
        if other != sequence and _is_described_as(stack, other):
            return True
    return _is_described_as_other(stack) and not _is_described_as(stack, sequence)


def _left_out(stack: Stack, axis: Vector | None) -> Decision:
    """Build the decision about a stack that is none of the sequences."""
    if stack.phases < CINE_PHASES:
        reasons = _score_late(stack, axis).reasons
        return Decision(stack, "", ("stills that are no late enhancement", *reasons))
    score = _score_four_chamber(stack, axis)
    reason = "a cine of another view"
    if score.points > 0:
        reason = "another stack shows four chambers better"
    # The user should look at a stack that calls itself a four-chamber view.
    ambiguous = _is_described_as(stack, "lax_4ch")
    return Decision(stack, "", (reason, *score.reasons), ambiguous)
