"""Recognise the short-axis cine, the four-chamber cine and the late enhancement among stacks.

Geometry and physics come first, words second, and a user's rules go before both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from data_modules.dicom.image import Vector
from data_modules.dicom.late import Score, explicit_words, score_late, without_repeats
from data_modules.dicom.physics import (
    SAX_DEGREES,
    degrees_between,
    degrees_from_heart_axis,
    is_phase_picture,
    is_transverse,
    lies_within,
    reason_no_cine,
)
from data_modules.dicom.stacks import Stack
from data_modules.dicom.study_words import StudyWords, description_of
from data_modules.dicom.timing import CINE_PHASES, Keep
from data_modules.dicom.word_table import (
    CINE,
    LOCALIZER,
    OTHER_KIND,
    OTHER_VIEW,
    REAL_TIME,
)
from data_modules.dicom.words import NO_SEQUENCE, Vocabulary

_SAX_SLICES = 3
# Usual angles of a short axis with base to apex in its usual place.
_USUAL_DEGREES = 45.0
# A runner-up with fewer points less than this is as likely as the best.
_MARGIN = 0.5
_BY_RULE = 100.0


@dataclass(frozen=True)
class Decision:
    """Result of the recognition of a stack.

    Attributes:
        stack: The stack.
        sequence: `sax`, `lax_4ch`, `lge`, or empty for a stack that is left out.
        reasons: Reasons in words.
        ambiguous: Signals disagree, or another stack is as likely.
        is_cine: Its frames are a heart beat.
        doubt: What somebody should look at, in words, empty for nothing.
    """

    stack: Stack
    sequence: str
    reasons: tuple[str, ...]
    ambiguous: bool = False
    is_cine: bool = False
    doubt: str = ""


def recognise(
    stacks: Sequence[Stack], vocabulary: Vocabulary | None = None, keep: Keep = "later"
) -> list[Decision]:
    """Decide which sequence each stack is; each sequence is given to one stack at most.

    Args:
        stacks: Stacks of one study.
        vocabulary: Words for views, and a user's rules; None takes the words that are known.
        keep: Repeat of a slice of late enhancement that is kept.

    Returns:
        A decision for each stack, in their order.
    """
    return _Recognition(stacks, vocabulary or Vocabulary(), keep).decisions()


class _Recognition:
    """Recognition of the stacks of one study.

    Args:
        stacks: The stacks.
        vocabulary: Words for views, and a user's rules.
        keep: Repeat of a slice of late enhancement that is kept.
    """

    def __init__(self, stacks: Sequence[Stack], vocabulary: Vocabulary, keep: Keep) -> None:
        self.words = StudyWords(stacks, vocabulary)
        self.stacks = [without_repeats(stack, self.words, keep) for stack in stacks]
        self.rules = {id(stack): vocabulary.rule(description_of(stack)) for stack in self.stacks}
        self.cines: list[Stack] = []
        self.stills: list[Stack] = []
        self.left_out: dict[int, tuple[str, ...]] = {}
        for stack in self.stacks:
            self._sort(stack)

    def decisions(self) -> list[Decision]:
        """Return a decision for each stack, in their order."""
        chosen: dict[int, Decision] = {}
        sax = self._choose("sax", self.cines, self._score_sax, chosen)
        # Of a study without a short axis only descriptions and the body's directions tell the
        # rest.
        axis = sax.first.normal if sax is not None else None
        others = [stack for stack in self.cines if stack is not sax]
        self._choose("lax_4ch", others, lambda stack: self._score_four_chamber(stack, axis), chosen)
        late = self._choose(
            "lge", self.stills, lambda stack: score_late(stack, self.words, axis), chosen
        )
        for stack in self.stacks:
            if id(stack) not in chosen:
                decision = self._left_out(stack, axis, late)
                if decision.is_cine and sax is not None and self._may_belong(stack, sax):
                    doubt = "a cine that was left out lies within the short axis, parallel to it"
                    decision = replace(decision, ambiguous=True, doubt=doubt)
                chosen[id(stack)] = decision
        return [chosen[id(stack)] for stack in self.stacks]

    def _sort(self, stack: Stack) -> None:
        """Sort a stack into cines, stills, and those that are neither for a reason."""
        rule = self.rules[id(stack)]
        if rule == NO_SEQUENCE:
            self.left_out[id(stack)] = ("a rule leaves it out",)
        elif rule is None and self._is_localizer(stack):
            self.left_out[id(stack)] = ("localizer",)
        elif stack.phases < CINE_PHASES:
            self.stills.append(stack)
        else:
            reason = reason_no_cine(stack)
            if rule is None and reason:
                self.left_out[id(stack)] = ("no cine", reason)
            else:
                self.cines.append(stack)

    def _choose(
        self,
        sequence: str,
        stacks: Sequence[Stack],
        score: Callable[[Stack], Score],
        chosen: dict[int, Decision],
    ) -> Stack | None:
        """Choose the stack with most points for a sequence, of equal ones that with most images.

        Args:
            sequence: The sequence.
            stacks: Stacks that may be it.
            score: Function from a stack to its points.
            chosen: Decisions so far by the `id` of their stack; that about the best is added.
        """
        scores = [self._with_rule(score(stack), sequence) for stack in stacks]
        candidates = [entry for entry in scores if entry.points > 0]
        candidates.sort(key=lambda entry: (entry.points, len(entry.stack.images)), reverse=True)
        if not candidates:
            return None
        best = candidates[0]
        reasons = list(best.reasons)
        ambiguous = bool(best.doubt) or self._disagrees(best.stack, sequence)
        if len(candidates) > 1 and best.points - candidates[1].points < _MARGIN:
            ambiguous = True
            reasons.append("another stack is as likely")
        stack = best.stack
        is_cine = stack.phases >= CINE_PHASES
        chosen[id(stack)] = Decision(
            stack, sequence, tuple(reasons), ambiguous, is_cine, best.doubt
        )
        return stack

    def _with_rule(self, score: Score, sequence: str) -> Score:
        """Return a score that a user's rule decides, where there is one for the stack."""
        rule = self.rules[id(score.stack)]
        if rule is None:
            return score
        if rule == sequence:
            return Score(score.stack, _BY_RULE, (*score.reasons, "a rule says so"))
        return Score(score.stack, -_BY_RULE, score.reasons)

    def _names(self, stack: Stack, meaning: str) -> bool:
        """Return whether the description of a stack holds a word for a meaning."""
        return self.words.names(stack, meaning)

    def _names_other(self, stack: Stack) -> bool:
        """Return whether the description names a view or a kind that is none of the sequences."""
        return self._names(stack, OTHER_VIEW) or self._names(stack, OTHER_KIND)

    def _is_localizer(self, stack: Stack) -> bool:
        if "LOCALIZER" in stack.first.image_type:
            return True
        is_late = stack.phases < CINE_PHASES and bool(explicit_words(stack, self.words))
        return self._names(stack, LOCALIZER) and not is_late

    def _disagrees(self, stack: Stack, sequence: str) -> bool:
        """Return whether the description of a stack names something else than the sequence."""
        # What disagrees with late enhancement is a doubt of its score.
        if self.rules[id(stack)] is not None or sequence == "lge":
            return False
        others = {"sax": ("lax_4ch", "lge"), "lax_4ch": ("sax", "lge")}[sequence]
        if any(self._names(stack, other) for other in others) or self._names(stack, OTHER_KIND):
            return True
        return self._names(stack, OTHER_VIEW) and not self._names(stack, sequence)

    def _score_sax(self, stack: Stack) -> Score:
        """Score a cine as the short axis."""
        normal = stack.first.normal
        reasons = [f"{stack.phases} phases", f"{stack.slices} parallel slices"]
        points = -1.0
        described = self._names(stack, "sax")
        angle = degrees_from_heart_axis(normal)
        if is_transverse(normal):
            if not described:
                reasons.append("the planes are transverse to the body")
                return Score(stack, -1.0, tuple(reasons))
        elif angle > SAX_DEGREES:
            reasons.append(f"its normal is {angle:.0f} degrees off base to apex")
            return Score(stack, -1.0, tuple(reasons))
        elif angle > _USUAL_DEGREES:
            points -= (angle - _USUAL_DEGREES) / (SAX_DEGREES - _USUAL_DEGREES)
            reasons.append(f"its normal is {angle:.0f} degrees off base to apex")
        if described:
            points += 2.0
            reasons.append("the description says short axis")
        if stack.slices >= _SAX_SLICES:
            # Of two stacks that are alike the one with more slices is taken.
            points += 2.0 + 0.01 * stack.slices
        points += self._points_of_words(stack, "lax_4ch", reasons)
        return Score(stack, points, tuple(reasons))

    def _points_of_words(self, stack: Stack, other: str, reasons: list[str]) -> float:
        """Return points for words beside the view's own, and add their reasons."""
        points = 0.0
        if self._names(stack, CINE):
            points += 0.6
        if self._names(stack, other) or self._names(stack, OTHER_VIEW):
            points -= 2.5
            reasons.append("the description says another view")
        if self._names(stack, OTHER_KIND):
            points -= 2.5
            reasons.append("the description says another kind of series")
        if is_phase_picture(stack):
            points -= 2.5
            reasons.append("phase images")
        if self._names(stack, REAL_TIME):
            # Of two cines the one that was gated by the heart is sharper.
            points -= 0.6
            reasons.append("the description says real time")
        if stack.first.facts.inversion_time_ms:
            points -= 1.0
            reasons.append("an inversion time")
        if "DERIVED" in stack.first.image_type:
            points -= 0.3
        return points

    def _score_four_chamber(self, stack: Stack, axis: Vector | None) -> Score:
        """Score a cine as the four-chamber view.

        Args:
            stack: A cine.
            axis: (3,) normal of the short axis, None where there is none.
        """
        normal = stack.first.normal
        reasons = [f"{stack.phases} phases", f"{stack.slices} slices"]
        points = -1.5
        if axis is not None:
            angle = degrees_between(normal, axis)
            reasons.append(f"{angle:.0f} degrees between its plane and the short axis")
            if angle < 60:
                return Score(stack, -1.0, tuple(reasons))
            points += 0.5

        # Views of two and of three chambers do not hold the left-right direction.
        sideways = degrees_between(normal, np.array([1.0, 0.0, 0.0]))
        reasons.append(f"its plane holds the left-right direction to {90 - sideways:.0f} degrees")
        if sideways > 60:
            points += 1.0 + (sideways - 60) / 30
        if self._names(stack, "lax_4ch"):
            points += 1.0
            reasons.append("the description says four chambers")
        elif self._names(stack, OTHER_VIEW):
            points -= 1.5
            reasons.append("the description says another view")
        if self._names(stack, OTHER_KIND) or is_phase_picture(stack):
            points -= 2.5
            reasons.append("another kind of series")
        return Score(stack, points, tuple(reasons))

    def _may_belong(self, stack: Stack, sax: Stack) -> bool:
        """Return whether a cine that was left out may be slices of the short axis.

        It lies within it and is named nothing else.
        """
        if self.rules[id(stack)] is not None or self._names_other(stack):
            return False
        if self._names(stack, REAL_TIME) or is_phase_picture(stack):
            return False
        return lies_within(stack, sax)

    def _left_out(self, stack: Stack, axis: Vector | None, late: Stack | None) -> Decision:
        """Build the decision about a stack that is none of the sequences.

        Args:
            stack: The stack.
            axis: (3,) normal of the short axis, None where there is none.
            late: The stack that is the late enhancement, None where none is.
        """
        if id(stack) in self.left_out:
            return Decision(stack, "", self.left_out[id(stack)])
        if stack.phases < CINE_PHASES:
            score = score_late(stack, self.words, axis)
            is_open = late is None and self.rules[id(stack)] is None
            doubt = score.doubt if is_open else ""
            reasons = ("stills that are no late enhancement", *score.reasons)
            return Decision(stack, "", reasons, ambiguous=bool(doubt), doubt=doubt)
        score = self._score_four_chamber(stack, axis)
        reason = "a cine of another view"
        if score.points > 0:
            reason = "another stack shows four chambers better"
        # The user should look at a stack that calls itself a four-chamber view.
        ambiguous = self._names(stack, "lax_4ch")
        return Decision(stack, "", (reason, *score.reasons), ambiguous, is_cine=True)
