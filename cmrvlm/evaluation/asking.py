"""Ask a model every question about every study under one condition.

A fixed number of studies is answered at a time, in their order, whatever the loader's batch size and the number of
workers are: the same evaluation gives the same answers to the last bit.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.progress import track
from torch.utils.data import DataLoader

from cmrvlm.errors import CmrvlmError
from cmrvlm.evaluation.conditions import Condition, askable, blackened, with_images_of
from cmrvlm.inference.answering import answer_batch
from cmrvlm.inference.mask_reading import MaskReading
from cmrvlm.inference.panels import mask_panel
from cmrvlm.instructions.answer import AnswerWithTruth
from cmrvlm.instructions.batch import Batch
from cmrvlm.instructions.collate import Collator
from cmrvlm.instructions.instruction import Instruction
from cmrvlm.language_model.decoding import Decode
from cmrvlm.models.vision_language_model import VisionLanguageModel
from cmrvlm.reports.numbers import has_quotes
from cmrvlm.study.study import Study
from cmrvlm.tasks.base import Task

# Batches whose masks are drawn.
PANEL_BATCHES = 4
Panels = list[tuple[Batch, list[AnswerWithTruth]]]


@dataclass
class Asked:
    """Answers under one condition.

    Attributes:
        condition: The condition.
        answers: All answers, study by study.
        patients: Patient of each answer's study.
        failures: Study to reason, for studies that could not be asked.
        changed: For each answer whether the truth of the same question on the images shown is another; only under
            the probe `swapped`, None where that study has no such question.
    """

    condition: Condition
    answers: list[AnswerWithTruth] = field(default_factory=list)
    patients: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    changed: list[bool | None] = field(default_factory=list)

    def by_task(self) -> dict[str, list[int]]:
        """Return the rows of each task's answers."""
        rows: dict[str, list[int]] = defaultdict(list)
        for row, answer in enumerate(self.answers):
            rows[answer.instruction.task].append(row)
        return rows


@dataclass(frozen=True)
class _Prepared:
    """A study as it is asked under a condition.

    Attributes:
        study: The study itself.
        shown: The study with the images that are shown.
        instructions: What is asked.
        changed: See `Asked`.
    """

    study: Study
    shown: Study
    instructions: list[Instruction]
    changed: list[bool | None]


@dataclass(frozen=True)
class Questioner:
    """Asks a model about studies, under any condition.

    Attributes:
        model: In evaluation mode.
        collator: The run's collator.
        tasks: Tasks by name; questions of others are left out.
        max_new_tokens: Longest answer.
        cases_per_task: Most questions of a task about a study, None for all.
        load: Returns a study by its id, for the probe that shows another patient's images.
        partners: Study to that other study.
        at_once: Studies that are answered together; long answers of several cost little more than those of one.
        decode: Way of decoding; None takes the likeliest token each time.
        reading: Way of reading masks; None takes them as they are.
        lowercase: Overlap scores compare texts in lower case.
    """

    model: VisionLanguageModel
    collator: Collator
    tasks: Mapping[str, Task]
    max_new_tokens: int
    cases_per_task: int | None
    load: Callable[[str], Study]
    partners: Mapping[str, str]
    at_once: int = 1
    decode: Decode | None = None
    reading: MaskReading | None = None
    lowercase: bool = False

    def ask(
        self,
        studies: DataLoader[Any],
        condition: Condition,
        full: Asked | None = None,
        panel: Path | None = None,
    ) -> Asked:
        """Return all answers about the studies of a loader.

        Args:
            studies: Gives lists of (study, instructions).
            condition: Condition under which to ask.
            full: Answers with everything shown; where questions are limited in number, others are not asked.
            panel: File for a picture of the first studies' masks; None draws none.
        """
        only = None
        if full is not None and self.cases_per_task:
            only = {answer.question.identity for answer in full.answers}
        asked = Asked(condition)
        panels: Panels = []
        waiting: list[_Prepared] = []
        samples = track(
            _samples(studies),
            description=f"Asking: {condition.name}",
            total=_count(studies),
            transient=True,
        )
        for study, instructions in samples:
            try:
                prepared = self._prepared(condition, study, self._chosen(instructions, only))
            except CmrvlmError as error:
                asked.failures[study.study_id] = error.without_folders()
                continue
            if prepared.instructions:
                waiting.append(prepared)
            if len(waiting) == self.at_once:
                self._answer(waiting, asked, panels)
                waiting = []
        if waiting:
            self._answer(waiting, asked, panels)
        if panel:
            mask_panel(panels, panel)
        return asked

    def _answer(self, group: Sequence[_Prepared], asked: Asked, panels: Panels) -> None:
        """Answer some studies together; when one of them breaks, each by itself, so that it alone fails."""
        try:
            batch = self.collator(
                [(prepared.shown, prepared.instructions) for prepared in group],
                blind=asked.condition.probe == "prompt",
            )
            answers = answer_batch(
                self.model,
                self.collator,
                batch,
                self.max_new_tokens,
                self.decode,
                self.reading,
                lowercase=self.lowercase,
            )
        except CmrvlmError as error:
            if len(group) == 1:
                asked.failures[group[0].study.study_id] = error.without_folders()
                return
            for prepared in group:
                self._answer([prepared], asked, panels)
            return
        if len(panels) < PANEL_BATCHES:
            panels.append((batch, answers))
        asked.answers += answers
        for prepared in group:
            asked.patients += [prepared.study.patient_id] * len(prepared.instructions)
            asked.changed += prepared.changed

    def _chosen(
        self, instructions: Sequence[Instruction], only: Collection[tuple[str, str, str]] | None
    ) -> list[Instruction]:
        """Return the instructions of the tasks that are asked.

        Of each task and study there are at most `cases_per_task`, chosen by a hash of their key.

        Args:
            instructions: Everything that can be asked about a study.
            only: Identities of the questions to keep; None chooses anew.
        """
        if only is not None:
            return [instruction for instruction in instructions if instruction.identity in only]
        by_task: dict[str, list[Instruction]] = defaultdict(list)
        for instruction in instructions:
            if instruction.task in self.tasks:
                by_task[instruction.task].append(instruction)
        chosen: list[Instruction] = []
        for of_task in by_task.values():
            ranked = sorted(range(len(of_task)), key=lambda index: _rank(of_task[index]))
            kept = sorted(ranked[: self.cases_per_task])
            chosen += [of_task[index] for index in kept]
        return chosen

    def _prepared(
        self, condition: Condition, study: Study, instructions: list[Instruction]
    ) -> _Prepared:
        """Return a study as it is asked under a condition.

        Raises:
            CmrvlmError: There is no other patient whose images could be shown.
        """
        if condition.probe == "swapped":
            return self._prepared_swapped(study, instructions)
        unknown: list[bool | None] = [None] * len(instructions)
        shown = blackened(study) if condition.probe == "blind" else study
        return _Prepared(study, shown, instructions, unknown)

    def _prepared_swapped(self, study: Study, instructions: list[Instruction]) -> _Prepared:
        """Return a study with another patient's images."""
        if study.study_id not in self.partners:
            raise CmrvlmError(
                "there is no other patient", field="probes", remedy="Leave the probe `swapped` out."
            )
        other = self.load(self.partners[study.study_id])
        shown = with_images_of(study, other)
        kept = [instruction for instruction in instructions if askable(instruction, shown)]
        return _Prepared(study, shown, kept, self._changes(other, kept))

    def _changes(self, other: Study, instructions: Sequence[Instruction]) -> list[bool | None]:
        """Return whether each right answer would be another on the other study; None where it has none."""
        changes: list[bool | None] = []
        for instruction in instructions:
            other_truth = None
            if instruction.views:
                other_truth = self.tasks[instruction.task].truth_on(other, instruction)
            truth = instruction.truth
            if truth is None:
                truth = instruction.reference
            changes.append(None if other_truth is None else other_truth != truth)
        return changes


def _rank(instruction: Instruction) -> int:
    """Return a number that orders the questions of a study, the same in every run."""
    return zlib.crc32(f"{instruction.study_id}/{instruction.key}".encode())


def _samples(loader: Iterable[Any]) -> Iterable[tuple[Study, list[Instruction]]]:
    for group in loader:
        yield from group


def _count(loader: DataLoader[Any]) -> int:
    return len(loader.dataset)  # type: ignore[arg-type]


def unchanged(asked: Asked, full: Asked, rows: Collection[int]) -> list[float | None]:
    """Return for each of some rows whether the text is the one given with the patient's own images.

    None for questions about no image, for those whose truth the probe does not change, and for texts that
    quote numbers: any pixel changes a digit, so that such texts say nothing about what was read.

    Args:
        asked: Answers under a probe.
        full: Answers with everything shown.
        rows: Rows of `asked`.
    """
    text_of = {answer.question.identity: answer.text for answer in full.answers}
    is_swapped = asked.condition.probe == "swapped"
    result: list[float | None] = []
    for row in rows:
        answer = asked.answers[row]
        counts = bool(answer.instruction.views) and not has_quotes(answer.instruction.answer)
        if is_swapped:
            counts = counts and asked.changed[row] is True
        earlier_text = text_of.get(answer.question.identity)
        if counts and earlier_text is not None:
            result.append(float(answer.text == earlier_text))
        else:
            result.append(None)
    return result
