"""Ask a model every question about every study under one condition.

A fixed number of studies is answered at a time, in their order, whatever the loader's batch size
and the number of workers are: the same evaluation gives the same answers to the last bit.
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
from cmrvlm.inference.texts import each_limited_to_shown
from cmrvlm.instructions.answer import AnswerWithTruth
from cmrvlm.instructions.batch import Batch
from cmrvlm.instructions.collate import Collator
from cmrvlm.instructions.instruction import Instruction
from cmrvlm.language_model.decoding import Decode
from cmrvlm.models.vision_language_model import VisionLanguageModel
from cmrvlm.reports.numbers import has_quotes
from cmrvlm.study.study import Study
from cmrvlm.tasks.base import Task

# Batches whose masks are drawn; the panel shows the first studies only.
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
        changed: For each answer whether the truth of the same question on the images shown is
            another; only under the probe `swapped`, None where that study has no such question.
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
            task = answer.instruction.task
            rows[task].append(row)
        return rows


@dataclass(frozen=True)
class _Prepared:
    """A study prepared for a condition.

    Attributes:
        study: The study itself.
        shown: The study with the images that are shown.
        instructions: The questions about it.
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
        at_once: Studies that are answered together; long answers of several cost little more than
            those of one.
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
            full: Answers with everything shown; where questions are limited in number, others are
                not asked.
            panel: File for a picture of the first studies' masks; None draws none.
        """
        only = None
        # Under every condition the same questions count, for differences in pairs.
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
            # A picture of an earlier evaluation would be taken for that of this one.
            panel.unlink(missing_ok=True)
            mask_panel(panels, panel)
        return asked

    def _answer(self, group: Sequence[_Prepared], asked: Asked, panels: Panels) -> None:
        """Answer some studies together.

        When one of them breaks, each is answered by itself, so that it alone fails.

        Args:
            group: The studies.
            asked: Their answers and failures are added here.
            panels: Batches to draw; the first ones are added here.
        """
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
        # Under a probe too, what may be said is what the patient's own series show.
        studies = [prepared.study for prepared in group for _ in prepared.instructions]
        asked.answers += each_limited_to_shown(answers, studies)
        for prepared in group:
            patient = prepared.study.patient_id
            asked.patients += [patient] * len(prepared.instructions)
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
            ranks = [_rank(instruction) for instruction in of_task]
            ranked = sorted(range(len(of_task)), key=ranks.__getitem__)
            # Chosen by hash, but asked in their own order.
            kept = sorted(ranked[: self.cases_per_task])
            chosen += [of_task[index] for index in kept]
        return chosen

    def _prepared(
        self, condition: Condition, study: Study, instructions: list[Instruction]
    ) -> _Prepared:
        """Prepare a study for a condition.

        Raises:
            CmrvlmError: There is no other patient whose images could be shown.
        """
        if condition.probe == "swapped":
            return self._prepared_swapped(study, instructions)
        unknown: list[bool | None] = [None] * len(instructions)
        shown = study
        if condition.probe == "blind":
            shown = blackened(study)
        return _Prepared(study, shown, instructions, unknown)

    def _prepared_swapped(self, study: Study, instructions: list[Instruction]) -> _Prepared:
        """Prepare a study with another patient's images.

        Raises:
            CmrvlmError: There is no other patient.
        """
        if study.study_id not in self.partners:
            raise CmrvlmError(
                "there is no other patient", field="probes", remedy="Leave the probe `swapped` out."
            )
        partner = self.partners[study.study_id]
        other = self.load(partner)
        shown = with_images_of(study, other)
        kept = [instruction for instruction in instructions if askable(instruction, shown)]
        changes = self._changes(other, kept)
        return _Prepared(study, shown, kept, changes)

    def _changes(self, other: Study, instructions: Sequence[Instruction]) -> list[bool | None]:
        """Compare the right answers with those on another study.

        Args:
            other: The other study.
            instructions: Questions with their right answers.

        Returns:
            For each question whether the right answers differ; None where the other has none.
        """
        changes: list[bool | None] = []
        for instruction in instructions:
            other_truth = None
            if instruction.views:
                other_truth = self.tasks[instruction.task].truth_on(other, instruction)
            truth = instruction.truth
            if truth is None:
                truth = instruction.reference
            if other_truth is None:
                changes.append(None)
            else:
                changes.append(other_truth != truth)
        return changes


def _rank(instruction: Instruction) -> int:
    """Return a number that orders the questions of a study, the same in every run."""
    # Python's own hash of a string changes from process to process.
    name = f"{instruction.study_id}/{instruction.key}"
    return zlib.crc32(name.encode())


def _samples(loader: Iterable[Any]) -> Iterable[tuple[Study, list[Instruction]]]:
    """Yield the samples of a loader's batches, each a study with its instructions."""
    for group in loader:
        yield from group


def _count(loader: DataLoader[Any]) -> int:
    """Return the number of studies that a loader gives."""
    return len(loader.dataset)  # type: ignore[arg-type]


def unchanged(asked: Asked, full: Asked, rows: Collection[int]) -> list[float | None]:
    """Compare answers under a probe with those given to the patient's own images.

    Left out are questions about no image, those whose truth the probe does not change, and texts
    that quote numbers: any pixel changes a digit, so that such texts say nothing about what was
    read.

    Args:
        asked: Answers under a probe.
        full: Answers with everything shown.
        rows: Rows of `asked`.

    Returns:
        For each row 1 when the text is the same and 0 otherwise; None when it is left out.
    """
    text_of = {answer.question.identity: answer.text for answer in full.answers}
    is_swapped = asked.condition.probe == "swapped"
    result: list[float | None] = []
    for row in rows:
        answer = asked.answers[row]
        instruction = answer.instruction
        counts = bool(instruction.views) and not has_quotes(instruction.answer)
        if is_swapped:
            counts = counts and asked.changed[row] is True
        earlier_text = text_of.get(answer.question.identity)
        if counts and earlier_text is not None:
            is_same = answer.text == earlier_text
            result.append(float(is_same))
        else:
            result.append(None)
    return result
