"""Answer everything about one study at once, and bring its masks back to its own grid."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmrvlm.errors import CmrvlmError
from cmrvlm.inference.answering import answer_questions, device_of
from cmrvlm.inference.label_maps import begun_later, label_map, shown_frames, to_native
from cmrvlm.inference.mask_reading import MaskReading
from cmrvlm.inference.prepared_study import PreparedStudy
from cmrvlm.inference.requests import (
    WORD_TASKS,
    check_language,
    check_structures,
    frames_wanted,
    segment_tasks,
    word_questions,
)
from cmrvlm.inference.texts import limited_to_shown
from cmrvlm.inference.unlike_training import NO_VENTRICLE, unlike_training
from cmrvlm.instructions.answer import Answer
from cmrvlm.instructions.question import Question
from cmrvlm.language_model.decoding import Decode
from cmrvlm.models.features import Features
from cmrvlm.models.study_encoding import encode_studies
from cmrvlm.runs.run_folder import TrainedRun
from cmrvlm.study.evidence import Evidence
from cmrvlm.study.files import read_study
from cmrvlm.study.reading_settings import NOTHING_STATED, ReadingSettings
from cmrvlm.study.study import Series, Study
from cmrvlm.study.vocabulary import NOT_ANNOTATED, STRUCTURES
from cmrvlm.tasks.segmentation import SegmentTask

LabelMaps = dict[str, NDArray[np.uint8]]
# Frames of masks: `all`, `ed_es`, `seen`, or indices; see `cmrvlm.inference.requests.frames_wanted`.
Frames = str | Sequence[int]


@dataclass(frozen=True)
class AnsweredStudy:
    """A study with everything that was answered about it at once.

    Attributes:
        native: The study on its own grid, with the sequences that the run reads.
        answers: Answers in words, then those with masks.
        label_maps: Sequence to structure values (Z, T, H, W) on the native grid, 255 in frames without masks.
        not_assessed: Sequence to the reason why nothing is said of it.
    """

    native: Study
    answers: list[Answer]
    label_maps: LabelMaps
    not_assessed: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_assessed(self) -> bool:
        """Whether anything is said of the study."""
        return bool(self.answers) or not self.not_assessed

    def by_task(self, task: str) -> Answer:
        """Return the answer to a task."""
        return next(answer for answer in self.answers if answer.question.task == task)

    def measured_series(self) -> dict[str, Series]:
        """Return the series that have a label map, with it as their mask."""
        return {
            name: replace(self.native.series[name], mask=labels, phases={}, levels=())
            for name, labels in self.label_maps.items()
        }

    def structures_on(self, sequence: str) -> set[str]:
        """Return the structures that have a mask on a sequence."""
        return {
            answer.question.region.structure
            for answer in self.answers
            if answer.mask is not None
            and answer.question.region is not None
            and answer.question.region.sequence == sequence
        }


@dataclass(frozen=True)
class _Request:
    """What is asked about a study at once. See `StudyAnswerer.answer_study`."""

    language: str
    question: str | None
    structures: Collection[str] | None
    frames: Frames
    word_tasks: Collection[str]
    wanted: Mapping[str, NDArray[np.bool_]]


class StudyAnswerer:
    """A trained run that answers everything about a study at once.

    Args:
        run: Trained run.
        device: `auto`, `cpu` or `cuda`.
        max_new_tokens: Longest answer in tokens.
        decode: Way of decoding; None takes the likeliest token each time.
        reading: Way of reading masks; None takes them as they are.
        files: What the user states about image files whose headers do not say it.
        gate: Say nothing of series that are unlike those of the training, or without a ventricle.
    """

    def __init__(
        self,
        run: TrainedRun,
        *,
        device: str = "auto",
        max_new_tokens: int = 200,
        decode: Decode | None = None,
        reading: MaskReading | None = None,
        files: ReadingSettings = NOTHING_STATED,
        gate: bool = True,
    ) -> None:
        self.run = run
        # A run that did not keep what it learned, or learned from a handful, turns nothing away.
        self.gate = gate and run.familiarity is not None
        self.files = files
        self.network = run.model.to(device_of(device))
        self.max_new_tokens = max_new_tokens
        self.decode = decode
        self.reading = reading
        self.tasks = list(run.mixture.tasks.values())

    def read(self, study: str | Path | Study, sequence: str = "sax") -> Study:
        """Return a study on its own grid, with the sequences that the run reads.

        Args:
            study: Path or study.
            sequence: Sequence that a single file shows.

        Raises:
            CmrvlmError: The study cannot be read, or has no sequence that the run reads.
        """
        if not isinstance(study, Study):
            study = read_study(Path(study), sequence, self.files)
        known = {
            name: series for name, series in study.series.items() if name in self.network.encoders
        }
        if not known:
            raise CmrvlmError(
                f"the run reads {', '.join(self.network.encoders)}, "
                f"the study has {', '.join(study.series)}",
                field="study",
                remedy="Use a run that was trained with this sequence.",
            )
        return study.with_series(known)

    def answer_study(
        self,
        native: Study,
        *,
        language: str = "en",
        question: str | None = None,
        structures: Collection[str] | None = None,
        frames: Frames = "all",
        word_tasks: Collection[str] = WORD_TASKS,
    ) -> AnsweredStudy:
        """Answer everything about a study at once: images are encoded once for all questions.

        Args:
            native: Study on its own grid, see `read`.
            language: `en` or `zh`.
            question: Question in a user's own words, or None.
            structures: Structures to segment; None takes all that the run knows.
            frames: See `segment`.
            word_tasks: What is asked in words beside the user's question, of `report` and `disease`.

        Raises:
            CmrvlmError: The language, a structure or a frame is unknown.
        """
        check_language(language)
        wanted = frames_wanted(frames, native)
        request = _Request(language, question, structures, frames, word_tasks, wanted)
        prepared = PreparedStudy(native, self.run.preprocessing(native))
        not_assessed: dict[str, str] = {}
        if self.gate:
            features = encode_studies(self.network, [prepared.study])
            prepared = replace(prepared, features=features)
            not_assessed = unlike_training(self.run, features)
        answered = self._answer_without(not_assessed, prepared, request)
        sax_labels = answered.label_maps.get("sax")
        looked_for = structures is None or "lv" in structures
        if not self.gate or sax_labels is None or not looked_for:
            return answered
        if (sax_labels == STRUCTURES["lv"]).any():
            return answered
        return self._answer_without({**not_assessed, "sax": NO_VENTRICLE}, prepared, request)

    def _answer_without(
        self, not_assessed: Mapping[str, str], prepared: PreparedStudy, request: _Request
    ) -> AnsweredStudy:
        """Answer everything about a study without series that are not assessed.

        Args:
            not_assessed: Sequence to the reason why nothing is said of it.
            prepared: The study with all its series.
            request: What is asked.
        """
        if not_assessed.keys() >= prepared.native.series.keys():
            return AnsweredStudy(prepared.native, [], {}, not_assessed)
        if not_assessed:
            prepared = prepared.without(not_assessed, self.run.preprocessing)
        return self._answer_prepared(prepared, request, not_assessed)

    def _answer_prepared(
        self, prepared: PreparedStudy, request: _Request, not_assessed: Mapping[str, str]
    ) -> AnsweredStudy:
        """Answer everything about a study that is prepared.

        Args:
            prepared: The study.
            request: What is asked.
            not_assessed: Sequence to the reason why it is not in the study.
        """
        native = prepared.native
        study = prepared.study
        mask_tasks = segment_tasks(
            self.tasks, [name for name in native.series if name in self.network.mask_head]
        )
        if request.structures is not None:
            check_structures(request.structures, mask_tasks)
            mask_tasks = [task for task in mask_tasks if task.structure in request.structures]
        questions = word_questions(
            study, request.language, request.question, self.tasks, request.word_tasks
        )
        questions += _mask_questions(mask_tasks, study, request.language)
        evidence = Evidence.of(native)
        answers = [
            limited_to_shown(one, evidence)
            for one in self.answer(study, questions, prepared.features)
        ]
        label_maps = self._label_maps(
            native, study, answers, mask_tasks, request.wanted, request.language
        )
        if not isinstance(request.frames, str):
            for name, labels in label_maps.items():
                labels[:, ~request.wanted[name]] = NOT_ANNOTATED
        return AnsweredStudy(native, answers, label_maps, not_assessed)

    def answer(
        self, study: Study, questions: Sequence[Question], features: Features | None = None
    ) -> list[Answer]:
        """Answer questions about a study on the model's grid.

        Args:
            study: The study.
            questions: Questions about it.
            features: The study where it is encoded already, None to encode what is asked about.
        """
        collator = self.run.collator
        batch = collator.questions([(study, questions)])
        return answer_questions(
            self.network, collator, batch, self.max_new_tokens, self.decode, self.reading, features
        )

    def _label_maps(
        self,
        native: Study,
        study: Study,
        answers: Sequence[Answer],
        mask_tasks: Sequence[SegmentTask],
        wanted: Mapping[str, NDArray[np.bool_]],
        language: str,
    ) -> LabelMaps:
        """Return label maps (Z, T, H, W) on the native grid, by sequence.

        A model sees some frames of a cine at a time. For the others the cine is shown again, begun some
        frames later, until every frame that is wanted was among those that are seen.

        Args:
            native: Study on its own grid.
            study: Study on the model's grid.
            answers: Answers about the frames that are seen first.
            mask_tasks: Tasks that ask for the masks.
            wanted: Sequence to (T,), true for frames that are wanted.
            language: `en` or `zh`.
        """
        label_maps: LabelMaps = {}
        for name in self.network.mask_head:
            labels = label_map(answers, name) if name in study.series else None
            if labels is not None:
                label_maps[name] = to_native(labels, study, native, name)
        counts = {
            name: (native.series[name].image.shape[1], study.series[name].image.shape[1])
            for name in label_maps
        }
        rounds = max((math.ceil(count / seen) for count, seen in counts.values()), default=1)
        for shift in range(1, rounds):
            unseen = {
                name: (labels == NOT_ANNOTATED).all(axis=(0, 2, 3))
                for name, labels in label_maps.items()
            }
            unfinished = [
                name
                for name in label_maps
                if (unseen[name] & wanted[name] & shown_frames(*counts[name], shift)).any()
            ]
            if not unfinished:
                continue
            shifted_native = begun_later(native, shift)
            shifted = self.run.preprocessing(shifted_native)
            tasks = [task for task in mask_tasks if task.sequence in unfinished]
            more = self.answer(shifted, _mask_questions(tasks, shifted, language))
            for name in unfinished:
                labels = label_map(more, name)
                if labels is not None:
                    shifted_labels = to_native(labels, shifted, shifted_native, name)
                    moved_back = np.roll(shifted_labels, shift, axis=1)
                    label_maps[name][:, unseen[name]] = moved_back[:, unseen[name]]
        return label_maps


def _mask_questions(tasks: Sequence[SegmentTask], study: Study, language: str) -> list[Question]:
    """Return the questions of some tasks for masks on every frame of a study."""
    return [question for task in tasks for question in task.ask(study, language)]
