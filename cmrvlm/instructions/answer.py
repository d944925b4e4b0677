"""Define what a model answers, alone and beside the truth that it is scored against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from cmrvlm.instructions.instruction import Instruction
from cmrvlm.instructions.question import Question


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Answer of a model to one question.

    Attributes:
        question: The question.
        text: Generated answer, with numbers of the read-outs in place of their marks.
        mask: (Z, F, H, W) predicted structure in the F frames that were asked for; empty where the words say that it is
            not there, None when the words say neither.
        spacing_mm: Spacing of the mask along (Z, H, W) in mm.
        read_outs: Read-out to its values: probabilities for classes, standardised values for measurements. Empty when
            no whole series was shown.
        truncated: The text was cut at the limit of new tokens.
    """

    question: Question
    text: str
    mask: NDArray[np.bool_] | None = None
    spacing_mm: tuple[float, float, float] | None = None
    read_outs: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    truncated: bool = False


@dataclass(frozen=True, kw_only=True)
class AnswerWithTruth(Answer):
    """Answer of a model beside the instruction that it is scored against.

    Attributes:
        instruction: The question with its right answer.
        truth_mask: (Z, F, H, W) structure values on the model's grid, 255 not annotated; None without a mask.
        measures: Scores of its mask by name, None where undefined; empty for tasks without masks, and before
            `Task.measure` has been asked.
        lowercase: Overlap scores compare texts in lower case.
    """

    instruction: Instruction
    truth_mask: NDArray[np.uint8] | None = None
    measures: Mapping[str, float | None] = field(default_factory=dict)
    lowercase: bool = False

    @classmethod
    def of(
        cls,
        answer: Answer,
        instruction: Instruction,
        truth_mask: NDArray[np.uint8] | None = None,
        *,
        lowercase: bool = False,
    ) -> AnswerWithTruth:
        """Return an answer beside its truth.

        Args:
            answer: Answer of the model.
            instruction: The question with its right answer.
            truth_mask: (Z, F, H, W) structure values, or None.
            lowercase: Compare texts in lower case.
        """
        given = {part.name: getattr(answer, part.name) for part in fields(Answer)}
        return cls(**given, instruction=instruction, truth_mask=truth_mask, lowercase=lowercase)

    def compared_texts(self) -> tuple[str, str]:
        """Return the texts of answer and reference as overlap scores compare them."""
        answer = self.text
        reference = self.instruction.reference
        if self.lowercase:
            return answer.lower(), reference.lower()
        return answer, reference
