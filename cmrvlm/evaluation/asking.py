"""Asks a model every question about every study under one condition.

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
from cmrvlm.instructions.batch import Batch
from cmrvlm.instructions.collate import Collator
from cmrvlm.language_model.decoding import Decode
from cmrvlm.models.vision_language_model import CMRVLM
from cmrvlm.reports.numbers import has_quotes
from cmrvlm.study.study import Study
from cmrvlm.tasks.base import Answer, Instruction, Task

PANEL_BATCHES = 4


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
    answers: list[Answer] = field(default_factory=list)
    patients: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    changed: list[bool | None] = field(default_factory=list)

    def by_task(self) -> dict[str, list[int]]:
        """Task to the rows of its answers."""
        rows: dict[str, list[int]] = defaultdict(list)
        for row, answer in enumerate(self.answers):
            rows[answer.instruction.task].append(row)
        return rows


@dataclass(frozen=True)
class _Prepared:
    """A study as it is asked: what is shown of it, the questions, and whether the truth of each is another."""

    study: Study
    shown: Study
    wanted: list[Instruction]
    changed: list[bool | None]


@dataclass(frozen=True)
class Questioner:
    """What asking needs beside a condition.

    Attributes:
        model: In evaluation mode.
        collator: The run's.
        tasks: Tasks by name; questions of others are left out.
        max_new_tokens: Longest answer.
        cases_per_task: Most questions of a task about a study, None for all.
        load: Study id to study, for the probe that shows another patient's images.
        partners: Study to that other study.
        at_once: Studies that are answered together; long answers of several cost little more than those of one.
        decode: How answers are decoded; None takes the likeliest token each time.
        reading: How masks are read; None takes them as they are.
    """

    model: CMRVLM
    collator: Collator
    tasks: Mapping[str, Task]
    max_new_tokens: int
    cases_per_task: int | None
    load: Callable[[str], Study]
    partners: Mapping[str, str]
    at_once: int = 1
    decode: Decode | None = None
    reading: MaskReading | None = None

    def ask(
        self,
        studies: DataLoader[Any],
        condition: Condition,
        full: Asked | None = None,
        panel: Path | None = None,
    ) -> Asked:
        """All answers of the studies that a loader gives as lists of (study, instructions).

        Args:
            studies: The loader.
            condition: Under what condition to ask.
            full: Answers with everything shown; where questions are limited in number, others are not asked.
            panel: Where a picture of the first studies' masks goes.
        """
        only = (
            {question_of(answer) for answer in full.answers}
            if full and self.cases_per_task
            else None
        )
        asked = Asked(condition)
        panels: list[tuple[Batch, list[Answer]]] = []
        waiting: list[_Prepared] = []
        for study, instructions in track(
            _samples(studies),
            description=f"Asking: {condition.name}",
            total=_count(studies),
            transient=True,
        ):
            try:
                one = _Prepared(
                    study, *self._under(condition, study, self._chosen(instructions, only))
                )
            except CmrvlmError as error:
                asked.failures[study.study_id] = error.without_folders()
                continue
            waiting += [one] if one.wanted else []
            if len(waiting) == self.at_once:
                self._answer(waiting, asked, panels)
                waiting = []
        if waiting:
            self._answer(waiting, asked, panels)
        if panel:
            mask_panel(panels, panel)
        return asked

    def _answer(
        self, group: Sequence[_Prepared], asked: Asked, panels: list[tuple[Batch, list[Answer]]]
    ) -> None:
        """Answer some studies together; when one of them breaks, each by itself, so that it alone fails."""
        try:
            batch = self.collator(
                [(one.shown, one.wanted) for one in group], blind=asked.condition.probe == "prompt"
            )
            found = answer_batch(
                self.model, self.collator, batch, self.max_new_tokens, self.decode, self.reading
            )
        except CmrvlmError as error:
            if len(group) == 1:
                asked.failures[group[0].study.study_id] = error.without_folders()
                return
            for one in group:
                self._answer([one], asked, panels)
            return
        if len(panels) < PANEL_BATCHES:
            panels.append((batch, found))
        asked.answers += found
        for one in group:
            asked.patients += [one.study.patient_id] * len(one.wanted)
            asked.changed += one.changed

    def _chosen(
        self, instructions: Sequence[Instruction], only: Collection[tuple[str, str, str]] | None
    ) -> list[Instruction]:
        """The questions of the tasks; of each task and study at most `cases_per_task`, chosen by a hash of its key."""
        if only is not None:
            return [one for one in instructions if (one.study_id, one.task, one.case.key) in only]
        by_task: dict[str, list[Instruction]] = defaultdict(list)
        for one in instructions:
            if one.task in self.tasks:
                by_task[one.task].append(one)
        chosen: list[Instruction] = []
        for own in by_task.values():
            ranked = sorted(
                own, key=lambda one: zlib.crc32(f"{one.study_id}/{one.case.key}".encode())
            )
            kept = {id(one) for one in ranked[: self.cases_per_task]}
            chosen += [one for one in own if id(one) in kept]
        return chosen

    def _under(
        self, condition: Condition, study: Study, wanted: list[Instruction]
    ) -> tuple[Study, list[Instruction], list[bool | None]]:
        nothing: list[bool | None] = [None] * len(wanted)
        if condition.probe == "blind":
            return blackened(study), wanted, nothing
        if condition.probe != "swapped":
            return study, wanted, nothing
        if study.study_id not in self.partners:
            raise CmrvlmError(
                "there is no other patient", field="probes", remedy="Leave the probe `swapped` out."
            )
        other = self.load(self.partners[study.study_id])
        shown = with_images_of(study, other)
        kept = [one for one in wanted if askable(one, shown)]
        return shown, kept, self._changes(other, kept)

    def _changes(self, other: Study, wanted: Sequence[Instruction]) -> list[bool | None]:
        """Whether the right answer to each question would be another on the other study; None where it has none."""
        result: list[bool | None] = []
        for one in wanted:
            there = self.tasks[one.task].truth_on(other, one) if one.case.views else None
            here = one.case.truth if one.case.truth is not None else one.reference
            result.append(None if there is None else there != here)
        return result


def _samples(loader: Iterable[Any]) -> Iterable[tuple[Study, list[Instruction]]]:
    for group in loader:
        yield from group


def _count(loader: DataLoader[Any]) -> int:
    return len(loader.dataset)  # type: ignore[arg-type]


def unchanged(asked: Asked, full: Asked, rows: Collection[int]) -> list[float | None]:
    """For each of the rows whether the text is the one given with the patient's own images.

    None for questions about no image, for those whose truth the probe does not change, and for texts that quote
    numbers: any pixel changes a digit, so that such texts say nothing about what was read.
    """
    known = {question_of(answer): answer.text for answer in full.answers}
    result: list[float | None] = []
    for row in rows:
        answer, changed = asked.answers[row], asked.changed[row]
        telling = bool(answer.instruction.case.views) and not has_quotes(answer.instruction.answer)
        counts = telling and (changed is True if asked.condition.probe == "swapped" else True)
        before = known.get(question_of(answer))
        result.append(float(answer.text == before) if counts and before is not None else None)
    return result


def question_of(answer: Answer) -> tuple[str, str, str]:
    """Study, task and key: what tells a question from all others."""
    one = answer.instruction
    return one.study_id, one.task, one.case.key
