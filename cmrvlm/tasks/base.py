"""A task is one clinical skill: it finds what can be asked about a study, words it, and scores the answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmrvlm.study import Study


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
    """The structure to segment, on which series and in which frames.

    Attributes:
        sequence: Series the mask lies on.
        structure: Name of the structure, for scores.
        values: Canonical mask values that count as the structure.
        frames: Frames asked for.
        phases: Phase of each of the frames where known, else None.
    """

    sequence: str
    structure: str
    values: tuple[int, ...]
    frames: tuple[int, ...]
    phases: tuple[str | None, ...]


@dataclass(frozen=True)
class Case:
    """One thing that can be asked about a study, before it is worded.

    Attributes:
        views: What is shown.
        truth: Canonical code of the right answer for closed tasks.
        mask: Segmentation target.
        diseases: Class vector over `cmrvlm.labels.DISEASES`.
    """

    views: tuple[View, ...]
    truth: str | None = None
    mask: MaskTarget | None = None
    diseases: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Instruction:
    """One question about one study, with its target."""

    study_id: str
    task: str
    language: str
    prompt: str
    answer: str
    case: Case


@dataclass
class Answer:
    """What the model said to an instruction.

    Attributes:
        instruction: The question.
        text: The generated answer.
        mask: Predicted structure (Z, F, H, W) for the frames asked, None when no mask was given.
        truth_mask: Values on the model's grid (Z, F, H, W), 255 not annotated.
        spacing_mm: Spacing of the mask along (Z, H, W).
        probabilities: Probability of each disease, None when the head had nothing to read.
    """

    instruction: Instruction
    text: str
    mask: NDArray[np.bool_] | None = None
    truth_mask: NDArray[np.uint8] | None = None
    spacing_mm: tuple[float, float, float] | None = None
    probabilities: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Score:
    """One metric over a set of answers.

    Attributes:
        value: None when nothing was defined.
        n: Answers that the value is over.
        undefined: Answers or classes that were left out because the metric is not defined for them.
    """

    value: float | None
    n: int
    undefined: int = 0


class Task(ABC):
    """Base of all tasks. A subclass sets `name` and `prompts` and implements three methods.

    Attributes:
        name: Name in configs and results.
        prompts: Language to wordings of the question, the first for evaluation; `{...}` are filled from `fields`.
    """

    name: str
    prompts: Mapping[str, Sequence[str]]

    @abstractmethod
    def cases(self, study: Study, shown: Collection[str]) -> list[Case]:
        """Everything this task can ask about the study when `shown` is shown; empty if nothing."""

    @abstractmethod
    def answer(self, study: Study, case: Case, language: str) -> str:
        """The right answer in words."""

    @abstractmethod
    def score(self, answers: Sequence[Answer]) -> dict[str, Score]:
        """Metrics over answers to this task."""

    def fields(self, case: Case, language: str) -> Mapping[str, str]:
        """Values for the `{...}` of the prompts."""
        return {}

    def word(self, study: Study, case: Case, language: str, wording: int = 0) -> Instruction:
        """The instruction for a case in a language, with one of the prompt's wordings."""
        variants = self.prompts[language]
        prompt = variants[wording % len(variants)].format(**self.fields(case, language))
        return Instruction(study.study_id, self.name, language, prompt, self.answer(study, case, language), case)


def whole_views(shown: Collection[str]) -> tuple[View, ...]:
    """Whole series of all shown sequences in their fixed order."""
    return tuple(View(sequence) for sequence in shown)
