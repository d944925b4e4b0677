"""A task is one clinical skill: it finds what can be asked about a study, words it, and scores the answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cmrvlm.metrics.statistic import Statistic
from cmrvlm.reports.numbers import fill_quotes
from cmrvlm.study.study import Study, UserQuestion


@dataclass(frozen=True)
class View:
    """What an instruction shows of a study: a whole series, or one frame or slice of it.

    Attributes:
        sequence: `sax`, `lax_4ch` or `lge`.
        frame: Frame index, None for all.
        slice: Slice index, None for all.
    """

    sequence: str
    frame: int | None = None
    slice: int | None = None

    @property
    def whole(self) -> bool:
        """True for a whole series."""
        return self.frame is None and self.slice is None


@dataclass(frozen=True)
class MaskTarget:
    """The structure to segment or to box, on which series and in which frames.

    Attributes:
        sequence: Series the mask lies on.
        structure: Name of the structure, for scores.
        values: Canonical mask values that count as the structure.
        frames: Frames asked for.
        phases: Phase of each of the frames where known, else None.
        as_box: The answer is the structure's box, not its mask.
    """

    sequence: str
    structure: str
    values: tuple[int, ...]
    frames: tuple[int, ...]
    phases: tuple[str | None, ...]
    as_box: bool = False


@dataclass(frozen=True)
class Case:
    """One thing that can be asked about a study, before it is worded.

    Attributes:
        views: What is shown; empty for questions about text alone.
        truth: Canonical code of the right answer for closed tasks.
        key: What tells this question from others of its task, the same for all studies: `lvef`, `mid slice 3`.
        mask: Segmentation or detection target.
        question: A question that came with the data.
    """

    views: tuple[View, ...]
    truth: str | None = None
    key: str = ""
    mask: MaskTarget | None = None
    question: UserQuestion | None = None


@dataclass(frozen=True)
class Instruction:
    """One question about one study, with its target.

    Attributes:
        study_id: The study.
        task: Name of the task.
        language: `en` or `zh`.
        prompt: The question.
        answer: The right answer, with marks for numbers that a head reads out.
        case: What is asked.
        values: True numbers of the study, by name.
        options: Choices that the prompt offers, in their order.
        allowed: All answers that a closed question allows, word for word; empty for an open one.
        outline: Headings that an answer has in this order, each with its colon and the space before it.
    """

    study_id: str
    task: str
    language: str
    prompt: str
    answer: str
    case: Case
    values: Mapping[str, float] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    outline: tuple[str, ...] = ()

    @property
    def whole_series(self) -> tuple[str, ...]:
        """Sequences that are shown whole."""
        return tuple(view.sequence for view in self.case.views if view.whole)

    @property
    def reference(self) -> str:
        """The right answer with its numbers."""
        return fill_quotes(self.answer, self.values, self.language)


@dataclass
class Answer:
    """What the model said to an instruction.

    Attributes:
        instruction: The question.
        text: The generated answer, with the numbers that heads read out in place of their marks.
        mask: Predicted structure (Z, F, H, W) for the frames asked, empty where it was said not to be there, None
            when neither was said.
        truth_mask: Values on the model's grid (Z, F, H, W), 255 not annotated.
        spacing_mm: Spacing of the mask along (Z, H, W).
        read_outs: Name of a head to its values; probabilities for `disease`, `findings` and `hazard`, standardised
            values for `measurements`. Empty when no whole series was shown.
        truncated: The answer was cut at the limit of new tokens, before the model ended it.
        lowercase: Overlap scores compare in lower case.
    """

    instruction: Instruction
    text: str
    mask: NDArray[np.bool_] | None = None
    truth_mask: NDArray[np.uint8] | None = None
    spacing_mm: tuple[float, float, float] | None = None
    read_outs: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    truncated: bool = False
    lowercase: bool = False

    def compared(self) -> tuple[str, str]:
        """The texts of answer and reference as overlap scores compare them."""
        texts = self.text, self.instruction.reference
        return (texts[0].lower(), texts[1].lower()) if self.lowercase else texts


class Task(ABC):
    """Base of all tasks. A subclass sets the attributes and implements three methods.

    Attributes:
        name: Name in configs and results.
        prompts: Language to wordings of the question, the first for evaluation; `{...}` are filled from `fields`.
        paraphrases: Wordings that training never shows, for the probe that asks with them.
        primary: The metric by which single answers are graded in tables of answers.
        balanced: In training each right answer is drawn as often as any other that a study has.
    """

    name: str
    prompts: Mapping[str, Sequence[str]]
    paraphrases: Mapping[str, Sequence[str]]
    primary: str
    balanced: bool = False

    @abstractmethod
    def cases(self, study: Study, shown: Collection[str]) -> list[Case]:
        """Everything this task can ask about the study when `shown` is shown; empty if nothing."""

    @abstractmethod
    def answer(self, study: Study, case: Case, language: str) -> str:
        """The right answer in words."""

    @abstractmethod
    def score(self, answers: Sequence[Answer]) -> dict[str, Statistic]:
        """Metrics over answers to this task."""

    def allowed(self, study: Study, case: Case, language: str) -> tuple[str, ...]:
        """All answers that a question allows; empty when the task does not list them."""
        return ()

    def outline(self, language: str) -> tuple[str, ...]:
        """Headings that every answer has, in their order; empty when it is free."""
        return ()

    def fields(self, study: Study, case: Case, language: str) -> Mapping[str, str]:
        """Values for the `{...}` of the prompts. They may say what is asked, never what is right."""
        return {}

    def truth_on(self, other: Study, instruction: Instruction) -> str | None:
        """The right answer to the very same question about another study; None when it has none there.

        A code where the task has codes, else the sentence.
        """
        shown = {view.sequence for view in instruction.case.views}
        cases = self.cases(other, [name for name in other.series if name in shown])
        case = next((one for one in cases if one.key == instruction.case.key), None)
        if case is None:
            return None
        return (
            case.truth
            if case.truth is not None
            else self.word(other, case, instruction.language).reference
        )

    def probabilities(self, answer: Answer) -> list[float] | None:
        """What a read-out says about the question itself, for the table of answers; None for tasks without one."""
        return None

    def values(self, study: Study) -> Mapping[str, float]:
        """True numbers that answers are scored against."""
        return study.labels.measurements

    def word(
        self,
        study: Study,
        case: Case,
        language: str,
        wording: int = 0,
        *,
        paraphrased: bool = False,
    ) -> Instruction:
        """The instruction for a case in a language, with one of the prompt's wordings."""
        variants = (self.paraphrases if paraphrased else self.prompts)[language]
        prompt = variants[wording % len(variants)].format(**self.fields(study, case, language))
        return Instruction(
            study.study_id,
            self.name,
            language,
            prompt,
            self.answer(study, case, language),
            case,
            values=self.values(study),
            allowed=self.allowed(study, case, language),
            outline=self.outline(language),
        )


def whole_views(shown: Collection[str]) -> tuple[View, ...]:
    """Whole series of all shown sequences in their fixed order."""
    return tuple(View(sequence) for sequence in shown)
