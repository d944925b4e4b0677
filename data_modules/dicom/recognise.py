"""Which stack is the short-axis cine, the four-chamber cine and the late enhancement, and why."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from data_modules.dicom.scan import Vector
from data_modules.dicom.stacks import Stack

CINE_PHASES = 5  # fewer are no cine
_SAX_SLICES = 3
_NULLING_MS = (120.0, 700.0)  # inversion times at which normal myocardium is nulled
_LOCALIZER = re.compile(r"scout|locali[sz]er|survey|plan(ning)?\b|3[- ]?plane", re.IGNORECASE)
_WORDS = {
    "sax": re.compile(r"\bsax\b|short[ _-]?ax|sa[ _-]stack|\bsa\b|kurzachse", re.IGNORECASE),
    "lax_4ch": re.compile(r"4[ _-]?ch|four[ _-]?ch|\bhla\b|4[ _-]?chamber", re.IGNORECASE),
    "lge": re.compile(
        r"\blge\b|late|delayed|psir|\bde[_ -]|enhanc|viab|\bmde\b|tfi_?psir|_ir\b", re.IGNORECASE
    ),
}
_OTHER_VIEW = re.compile(
    r"\blax|long[ _-]?ax|2[ _-]?ch|3[ _-]?ch|rvot|lvot|\bvla\b|aorta|perf|\bt[12]\b|map|tagg|flow|venc",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Decision:
    """What became of a stack.

    Attributes:
        stack: The stack.
        sequence: `sax`, `lax_4ch`, `lge`, or nothing for what is left out.
        reasons: Why, in words.
        ambiguous: Signals disagree.
    """

    stack: Stack
    sequence: str
    reasons: tuple[str, ...]
    ambiguous: bool = False


def recognise(stacks: Sequence[Stack]) -> list[Decision]:
    """One decision for each stack; each sequence is given to one stack at most."""
    decided: dict[int, Decision] = {}
    for stack in stacks:
        reason = _localizer(stack)
        if reason:
            decided[id(stack)] = Decision(stack, "", (reason,))
    rest = [stack for stack in stacks if id(stack) not in decided]
    cines = [stack for stack in rest if stack.phases >= CINE_PHASES]
    sax = _best([(stack, _sax(stack)) for stack in cines])
    axis = sax.first.normal if sax is not None else None
    four = _best([(stack, _four_chamber(stack, axis)) for stack in cines if stack is not sax])
    stills = [stack for stack in rest if stack.phases < CINE_PHASES]
    late = _best([(stack, _late(stack, axis)) for stack in stills])
    chosen = {
        id(stack): name
        for name, stack in (("sax", sax), ("lax_4ch", four), ("lge", late))
        if stack is not None
    }
    reasons: dict[str, Callable[[Stack], Score]] = {
        "sax": _sax,
        "lax_4ch": partial(_four_chamber, axis=axis),
        "lge": partial(_late, axis=axis),
    }
    for stack in rest:
        name = chosen.get(id(stack), "")
        if name:
            decided[id(stack)] = Decision(
                stack, name, reasons[name](stack)[1], _ambiguous(stack, name)
            )
        else:
            decided[id(stack)] = _left_out(stack, axis)
    return [decided[id(stack)] for stack in stacks]


def _said(stack: Stack, name: str) -> bool:
    return bool(_WORDS[name].search(stack.first.facts["description"]))


def _localizer(stack: Stack) -> str:
    first = stack.first
    if "LOCALIZER" in first.image_type or _LOCALIZER.search(first.facts["description"]):
        return "localizer"
    return ""


def _across(normal: Vector, axis: Vector) -> float:
    """Angle between two planes' normals in degrees, 0 to 90."""
    return float(np.degrees(np.arccos(min(1.0, abs(float(normal @ axis))))))


Score = tuple[float, tuple[str, ...]]  # a positive score is a candidate


def _sax(stack: Stack) -> Score:
    reasons = [f"{stack.phases} phases", f"{stack.slices} parallel slices"]
    score = 0.0
    if stack.slices >= _SAX_SLICES:
        score += 2.0 + 0.01 * stack.slices
    if _said(stack, "sax"):
        score += 2.0
        reasons.append("the description says short axis")
    normal = stack.first.normal
    if abs(normal[2]) > 0.95 and not _said(stack, "sax"):
        return -1.0, (*reasons, "the planes are transverse to the body")
    if _said(stack, "lax_4ch") or _OTHER_VIEW.search(stack.first.facts["description"]):
        score -= 2.5
        reasons.append("the description says another view")
    return score - 1.0, tuple(reasons)


def _four_chamber(stack: Stack, axis: Vector | None) -> Score:
    normal = stack.first.normal
    reasons = [f"{stack.phases} phases", f"{stack.slices} slices"]
    score = -1.5
    sideways = _across(normal, np.array([1.0, 0.0, 0.0]))
    if axis is not None:
        angle = _across(normal, axis)
        reasons.append(f"{angle:.0f} degrees between its plane and the short axis")
        if angle < 60:
            return -1.0, tuple(reasons)
        score += 0.5
    reasons.append(f"its plane holds the left-right direction to {90 - sideways:.0f} degrees")
    if sideways > 60:
        score += 1.0 + (sideways - 60) / 30
    if _said(stack, "lax_4ch"):
        score += 1.0
        reasons.append("the description says four chambers")
    elif _OTHER_VIEW.search(stack.first.facts["description"]):
        score -= 1.5
        reasons.append("the description says another view")
    return score, tuple(reasons)


def _late(stack: Stack, axis: Vector | None) -> Score:
    facts, reasons, score = stack.first.facts, [f"{stack.slices} slices, one image each"], -1.5
    inversion = facts["inversion_time_ms"]
    if inversion is not None and _NULLING_MS[0] <= inversion <= _NULLING_MS[1]:
        score += 1.0
        reasons.append(f"inversion time {inversion:.0f} ms")
    if _said(stack, "lge"):
        score += 1.0
        reasons.append("the description says late enhancement")
    if axis is not None and _across(stack.first.normal, axis) < 20:
        score += 1.0
        reasons.append("parallel to the short-axis cine")
    if stack.slices >= _SAX_SLICES:
        score += 0.5
    if "P" in stack.first.image_type or "PHASE" in stack.first.image_type:
        score -= 1.5
        reasons.append("phase image")
    return score, tuple(reasons)


def _best(candidates: Sequence[tuple[Stack, Score]]) -> Stack | None:
    able = [(score, stack) for stack, (score, _) in candidates if score > 0]
    return max(able, key=lambda one: (one[0], len(one[1].images)))[1] if able else None


def _ambiguous(stack: Stack, name: str) -> bool:
    described = stack.first.facts["description"]
    other = [one for one in _WORDS if one != name and _said(stack, one)]
    return bool(other or (_OTHER_VIEW.search(described) and not _said(stack, name)))


def _left_out(stack: Stack, axis: Vector | None) -> Decision:
    if stack.phases < CINE_PHASES:
        return Decision(stack, "", ("stills that are no late enhancement", *_late(stack, axis)[1]))
    score, reasons = _four_chamber(stack, axis)
    claimed = _said(stack, "lax_4ch")
    why = "another stack shows four chambers better" if score > 0 else "a cine of another view"
    return Decision(stack, "", (why, *reasons), ambiguous=claimed)
