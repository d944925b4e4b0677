"""Asks a model every question about every study, one study at a time, under one condition.

A study is answered by itself, with all its questions as one batch. What is said about it then cannot depend on its
neighbours, on the loader's batch size or on the number of workers, to the last bit.
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

from cmrvlm.batch import Batch
from cmrvlm.errors import CmrvlmError
from cmrvlm.evaluation.conditions import Condition, askable, blackened, with_images_of
from cmrvlm.figures import mask_panel
from cmrvlm.inference import answer_batch
from cmrvlm.models.cmrvlm import CMRVLM
from cmrvlm.study import Study
from cmrvlm.tasks.base import Answer, Case, Instruction, Task
from cmrvlm.text.collate import Collator

PANEL_STUDIES = 4


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
    """

    model: CMRVLM
    collator: Collator
    tasks: Mapping[str, Task]
    max_new_tokens: int
    cases_per_task: int | None
    load: Callable[[str], Study]
    partners: Mapping[str, str]

    def ask(self, studies: DataLoader[Any], condition: Condition, panel: Path | None = None) -> Asked:
        """All answers of the studies that a loader gives as lists of (study, instructions)."""
        asked = Asked(condition)
        panels: list[tuple[Batch, list[Answer]]] = []
        for study, instructions in track(_samples(studies), description=f"Asking: {condition.name}",
                                         total=_count(studies), transient=True):  # fmt: skip
            wanted = self._chosen(instructions)
            try:
                shown, wanted, changed = self._under(condition, study, wanted)
                if not wanted:
                    continue
                batch = self.collator([(shown, wanted)], blind=condition.probe == "prompt")
            except CmrvlmError as error:
                asked.failures[study.study_id] = str(error)
                continue
            found = answer_batch(self.model, self.collator, batch, self.max_new_tokens)
            if panel and len(panels) < PANEL_STUDIES:
                panels.append((batch, found))
            asked.answers += found
            asked.patients += [study.patient_id] * len(found)
            asked.changed += changed
        if panel:
            mask_panel(panels, panel)
        return asked

    def _chosen(self, instructions: Sequence[Instruction]) -> list[Instruction]:
        """The questions of the tasks; of each task and study at most `cases_per_task`, chosen by a hash of its key."""
        by_task: dict[str, list[Instruction]] = defaultdict(list)
        for one in instructions:
            if one.task in self.tasks:
                by_task[one.task].append(one)
        chosen: list[Instruction] = []
        for own in by_task.values():
            ranked = sorted(own, key=lambda one: zlib.crc32(f"{one.study_id}/{one.case.key}".encode()))
            kept = {id(one) for one in ranked[: self.cases_per_task]}
            chosen += [one for one in own if id(one) in kept]
        return chosen

    def _under(self, condition: Condition, study: Study, wanted: list[Instruction]
               ) -> tuple[Study, list[Instruction], list[bool | None]]:  # fmt: skip
        nothing: list[bool | None] = [None] * len(wanted)
        if condition.probe == "blind":
            return blackened(study), wanted, nothing
        if condition.probe != "swapped":
            return study, wanted, nothing
        if study.study_id not in self.partners:
            raise CmrvlmError("there is no other patient", field="probes", remedy="Leave the probe `swapped` out.")
        other = self.load(self.partners[study.study_id])
        shown = with_images_of(study, other)
        kept = [one for one in wanted if askable(one, shown)]
        return shown, kept, self._changes(other, kept)

    def _changes(self, other: Study, wanted: Sequence[Instruction]) -> list[bool | None]:
        """Whether the right answer to each question would be another on the other study."""
        there: dict[tuple[str, frozenset[str]], dict[str, Case]] = {}
        result: list[bool | None] = []
        for one in wanted:
            shown = frozenset(view.sequence for view in one.case.views) or frozenset(other.series)
            if (one.task, shown) not in there:
                names = [name for name in other.series if name in shown]
                cases = self.tasks[one.task].cases(other, names)
                there[one.task, shown] = {case.key: case for case in cases}
            case = there[one.task, shown].get(one.case.key)
            if case is None or not one.case.views:
                result.append(None)
            elif one.case.truth is not None:
                result.append(case.truth != one.case.truth)
            else:
                task = self.tasks[one.task]
                result.append(task.word(other, case, one.language).reference != one.reference)
        return result


def _samples(loader: Iterable[Any]) -> Iterable[tuple[Study, list[Instruction]]]:
    for group in loader:
        yield from group


def _count(loader: DataLoader[Any]) -> int:
    return len(loader.dataset)  # type: ignore[arg-type]


def unchanged(asked: Asked, full: Asked, rows: Collection[int]) -> list[float | None]:
    """For each of the rows whether the text is the one given with the patient's own images.

    None for questions about no image, and for those whose truth the probe does not change.
    """
    known = {_key(answer): answer.text for answer in full.answers}
    result: list[float | None] = []
    for row in rows:
        answer, changed = asked.answers[row], asked.changed[row]
        about_images = bool(answer.instruction.case.views)
        counts = about_images and (changed is True if asked.condition.probe == "swapped" else True)
        before = known.get(_key(answer))
        result.append(float(answer.text == before) if counts and before is not None else None)
    return result


def _key(answer: Answer) -> tuple[str, str, str]:
    one = answer.instruction
    return one.study_id, one.task, one.case.key
