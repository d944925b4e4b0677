"""Ask a model every question about every study under one condition.

A fixed number of studies is answered at a time, in their order, whatever the loader's batch size
and the number of workers are: the same evaluation gives the same answers to the last bit.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.progress import track
from torch.utils.data import DataLoader

from cmrvlm.errors import CmrvlmError
from cmrvlm.evaluation.conditions import Condition, askable, blackened, with_images_of
from cmrvlm.evaluation.kept_answers import Identity, KeptAnswers
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
from cmrvlm.study.study import Study
from cmrvlm.tasks.base import Task

# Batches whose masks are drawn; the panel shows the first studies only.
PANEL_BATCHES = 4


class _Panel:
    """Picture of the masks of the first batches.

    Args:
        path: File of the picture; None draws none.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.is_done = path is None
        self._batches: list[tuple[Batch, list[AnswerWithTruth]]] = []

    def add(self, batch: Batch, answers: list[AnswerWithTruth]) -> None:
        """Add a batch, and draw when there are `PANEL_BATCHES`."""
        if self.is_done:
            return
        self._batches.append((batch, answers))
        if len(self._batches) == PANEL_BATCHES:
            self.draw()

    def draw(self) -> None:
        """Draw what was added, once."""
        if self.path is not None and not self.is_done:
            # A picture of an earlier evaluation would be taken for that of this one.
            self.path.unlink(missing_ok=True)
            mask_panel(self._batches, self.path)
        self._batches = []
        self.is_done = True


@dataclass(frozen=True)
class _Prepared:
    """A study prepared for a condition.

    Attributes:
        study: The study itself.
        shown: The study with the images that are shown.
        instructions: The questions about it.
        changed: See `cmrvlm.evaluation.kept_answers.Asked`.
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
        kept: KeptAnswers,
        only: Collection[Identity] | None = None,
        panel: Path | None = None,
    ) -> None:
        """Ask about the studies of a loader.

        Args:
            studies: Gives lists of (study, instructions).
            kept: Answers under the condition under which to ask; the answers are added here.
            only: Questions to ask; None asks all that are chosen.
            panel: File for a picture of the first studies' masks; None draws none.
        """
        picture = _Panel(panel)
        waiting: list[_Prepared] = []
        samples = track(
            _samples(studies),
            description=f"Asking: {kept.condition.name}",
            total=_count(studies),
            transient=True,
        )
        for study, instructions in samples:
            try:
                prepared = self._prepared(kept.condition, study, self._chosen(instructions, only))
            except CmrvlmError as error:
                kept.add_failure(study.study_id, error.without_folders())
                continue
            if not prepared.instructions:
                kept.add(study.study_id, study.patient_id, [], [])
                continue
            waiting.append(prepared)
            if len(waiting) < self.at_once:
                continue
            self._answer(waiting, kept, picture)
            waiting = []
            # Whoever goes on does not ask about the first studies again, so cannot draw them.
            if picture.is_done:
                kept.save_when_due()
        if waiting:
            self._answer(waiting, kept, picture)
        picture.draw()
        kept.save()

    def _answer(self, group: Sequence[_Prepared], kept: KeptAnswers, picture: _Panel) -> None:
        """Answer some studies together.

        When one of them breaks, each is answered by itself, so that it alone fails.

        Args:
            group: The studies.
            kept: Their answers and failures are added here.
            picture: Picture of the first batches.
        """
        try:
            batch = self.collator(
                [(prepared.shown, prepared.instructions) for prepared in group],
                blind=kept.condition.probe == "prompt",
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
                kept.add_failure(group[0].study.study_id, error.without_folders())
                return
            for prepared in group:
                self._answer([prepared], kept, picture)
            return
        picture.add(batch, answers)
        # Under a probe too, what may be said is what the patient's own series show.
        studies = [prepared.study for prepared in group for _ in prepared.instructions]
        limited = iter(each_limited_to_shown(answers, studies))
        for prepared in group:
            of_study = [self._measured(next(limited)) for _ in prepared.instructions]
            study = prepared.study
            kept.add(study.study_id, study.patient_id, of_study, prepared.changed)

    def _measured(self, answer: AnswerWithTruth) -> AnswerWithTruth:
        """Return an answer with the scores of its mask in place of the mask."""
        measures = self.tasks[answer.instruction.task].measure(answer)
        return replace(answer, measures=measures, mask=None, truth_mask=None)

    def _chosen(
        self, instructions: Sequence[Instruction], only: Collection[Identity] | None
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
