"""Define a question together with its right answer, as it is trained and scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from cmrvlm.instructions.question import Question
from cmrvlm.reports.numbers import fill_quotes
from cmrvlm.study.study import UserQuestion


@dataclass(frozen=True, kw_only=True)
class Instruction(Question):
    """A question and its right answer.

    Attributes:
        answer: Right answer, with marks in place of numbers that a read-out fills in.
        truth: Canonical code of the right answer for closed tasks; several codes are joined with `+`.
        values: True numbers of the study by name.
        source: Question of the data set that this instruction repeats, None for one that follows from labels.
    """

    answer: str
    truth: str | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    source: UserQuestion | None = None

    @classmethod
    def of(cls, question: Question, **target: Any) -> Instruction:
        """Return a question with its right answer.

        Args:
            question: The question.
            **target: The attributes that an instruction has beyond a question.
        """
        asked = {part.name: getattr(question, part.name) for part in fields(Question)}
        return cls(**asked, **target)

    @property
    def reference(self) -> str:
        """Right answer with its numbers filled in."""
        return fill_quotes(self.answer, self.values, self.language)
