"""Apply a trained run to studies from Python: `CMRVLM.from_pretrained(run)` asks, segments, measures and reports."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmrvlm.inference.measuring import measure_masks
from cmrvlm.inference.prediction import write_prediction
from cmrvlm.inference.records import Segmentation, StudyAnswer, StudyMeasurements, StudyReport
from cmrvlm.inference.requests import USER_TASK
from cmrvlm.inference.study_answering import AnsweredStudy, Frames, StudyAnswerer
from cmrvlm.inference.texts import (
    answers_by_structure,
    disease_probabilities,
    text_of_structures,
)
from cmrvlm.inference.unlike_training import text_of_not_assessed
from cmrvlm.instructions.question import Question
from cmrvlm.instructions.read_outs import quoted_values
from cmrvlm.reports.writer import split_sections
from cmrvlm.runs.run_folder import load_run
from cmrvlm.study.study import Study
from cmrvlm.tasks.diagnosis import DiseaseTask
from cmrvlm.tasks.mask_requests import structures_asked
from cmrvlm.tasks.reporting import ReportTask


class CMRVLM(StudyAnswerer):
    """A trained model with tokenizer, preprocessing and layout, which answers questions about studies.

    Every method takes a study as a path (a folder with `sax.nii.gz`, `lax_4ch.nii.gz` and `lge.nii.gz`, any of
    them, or one NIfTI file) or as a `Study` on its own grid, and returns a small frozen record.

    Args:
        run: Trained run.
        device: `auto`, `cpu` or `cuda`.
        max_new_tokens: Longest answer in tokens.
        decode: Way of decoding; None takes the likeliest token each time.
        reading: Way of reading masks; None takes them as they are.
        files: What the user states about image files whose headers do not say it.
        gate: Say nothing of series that are unlike those of the training, or without a ventricle.
    """

    @classmethod
    def from_pretrained(cls, run: str | Path, **settings: Any) -> CMRVLM:
        """Load a run folder that training made.

        Args:
            run: Run folder of stage 2 or 3.
            **settings: Arguments of the class, such as `device`.

        Raises:
            CmrvlmError: The folder is no finished run of stage 2 or 3.
        """
        return cls(load_run(Path(run)), **settings)

    def ask(
        self,
        study: str | Path | Study,
        question: str,
        *,
        language: str = "en",
        sequence: str = "sax",
    ) -> StudyAnswer:
        """Answer a question in a user's own words.

        Args:
            study: Path or study.
            question: Any question; one that wants masks is answered with a mask.
            language: `en` or `zh`.
            sequence: Sequence that a single file shows.

        Raises:
            CmrvlmError: The study cannot be read, or has no sequence that the run reads.
        """
        answered = self.answer_study(
            self.read(study, sequence),
            language=language,
            question=question,
            structures=None if structures_asked(question) else (),
            word_tasks=[DiseaseTask.name],
        )
        if not answered.is_assessed:
            text = text_of_not_assessed(answered.not_assessed, language)
            return StudyAnswer(question=question, text=text, not_assessed=answered.not_assessed)
        read_outs = answered.by_task(DiseaseTask.name).read_outs
        text = text_of_structures(question, answered.answers, answered.label_maps, language)
        answer = StudyAnswer(
            question=question,
            text=text or answered.by_task(USER_TASK).text,
            probabilities=disease_probabilities(read_outs),
            measurements=quoted_values(read_outs),
            not_assessed=answered.not_assessed,
        )
        chosen = answers_by_structure(question, answered.answers)
        for name in structures_asked(question):
            if name in chosen:
                return self._with_mask(answer, chosen[name].question, answered)
        return answer

    def _with_mask(
        self, answer: StudyAnswer, question: Question, answered: AnsweredStudy
    ) -> StudyAnswer:
        """Return an answer with the mask and the box of the region of a question."""
        region = question.region
        assert region is not None
        labels = answered.label_maps.get(region.sequence)
        if labels is None:
            return answer
        mask = np.isin(labels, region.values)
        affine = answered.native.series[region.sequence].affine
        return replace(answer, sequence=region.sequence, mask=mask, box_mm=box_mm(mask, affine))

    def segment(
        self,
        study: str | Path | Study,
        structures: Collection[str] | None = None,
        *,
        frames: Frames = "all",
        sequence: str = "sax",
    ) -> Segmentation:
        """Segment structures on all series that show them.

        Args:
            study: Path or study.
            structures: Such as `lv` and `myo`; None takes all that the run knows.
            frames: `all`, `ed_es`, `seen` for those that the model sees at a time, or indices of frames.
            sequence: Sequence that a single file shows.

        Raises:
            CmrvlmError: A structure or a frame is unknown, or the study cannot be read.
        """
        answered = self.answer_study(
            self.read(study, sequence), structures=structures, frames=frames, word_tasks=()
        )
        affines = {name: answered.native.series[name].affine for name in answered.label_maps}
        return Segmentation(answered.label_maps, affines, answered.not_assessed)

    def measure(self, study: str | Path | Study, *, sequence: str = "sax") -> StudyMeasurements:
        """Measure volumes, function, wall and scar.

        Args:
            study: Path or study.
            sequence: Sequence that a single file shows.

        Raises:
            CmrvlmError: The study cannot be read, or has no sequence that the run reads.
        """
        answered = self.answer_study(self.read(study, sequence), word_tasks=[DiseaseTask.name])
        if not answered.is_assessed:
            return StudyMeasurements(not_assessed=answered.not_assessed)
        measured = measure_masks(
            answered.measured_series(),
            answered.native.labels.demographics,
            answered.structures_on("lge"),
        )
        return StudyMeasurements(
            from_masks=measured.from_masks,
            from_lge_masks=measured.from_lge_masks,
            from_read_out=quoted_values(answered.by_task(DiseaseTask.name).read_outs),
            not_assessed=answered.not_assessed,
        )

    def report(
        self, study: str | Path | Study, *, language: str = "en", sequence: str = "sax"
    ) -> StudyReport:
        """Write a structured report.

        Args:
            study: Path or study.
            language: `en` or `zh`.
            sequence: Sequence that a single file shows.

        Raises:
            CmrvlmError: The language is unknown, or the study cannot be read.
        """
        answered = self.answer_study(self.read(study, sequence), language=language, structures=())
        if not answered.is_assessed:
            text = text_of_not_assessed(answered.not_assessed, language)
            return StudyReport(text, {}, "", {}, language, not_assessed=answered.not_assessed)
        report = answered.by_task(ReportTask.name)
        disease = answered.by_task(DiseaseTask.name)
        return StudyReport(
            text=report.text,
            sections=split_sections(report.text, truncated=report.truncated),
            disease=disease.text,
            probabilities=disease_probabilities(disease.read_outs),
            language=language,
            truncated=report.truncated,
            not_assessed=answered.not_assessed,
        )

    def predict(
        self,
        study: str | Path,
        out: str | Path,
        *,
        language: str = "en",
        question: str | None = None,
        frames: Frames = "all",
        mask_values: Mapping[str, int] | None = None,
        sequence: str = "sax",
    ) -> dict[str, Any]:
        """Write report, masks, measurements and pictures of a study into a folder.

        Args:
            study: Path; masks are written on the grid and in the order of its files.
            out: Folder; an earlier prediction in it is replaced once the new one is whole.
            language: `en` or `zh`.
            question: Question in a user's own words, or None.
            frames: See `segment`.
            mask_values: Structure to value in the masks; None for the canonical ones.
            sequence: Sequence that a single file shows.

        Returns:
            Content of `prediction.json`.

        Raises:
            CmrvlmError: A setting is unknown, or the study cannot be read.
        """
        return write_prediction(
            self,
            Path(study),
            Path(out),
            language=language,
            question=question,
            frames=frames,
            mask_values=mask_values,
            sequence=sequence,
        )


def box_mm(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> tuple[float, ...] | None:
    """Return the corners (x0, y0, z0, x1, y1, z1) in mm of a mask's bounding box; None without a voxel.

    Args:
        mask: (Z, T, H, W).
        affine: (4, 4) of the series.
    """
    z, h, w = np.nonzero(mask.any(axis=1))
    if not len(z):
        return None
    voxels = np.stack([w, h, z, np.ones_like(z)])  # (4, N), as the affine takes them
    world = (affine @ voxels)[:3]
    return (*world.min(axis=1).tolist(), *world.max(axis=1).tolist())
