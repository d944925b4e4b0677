"""Structures by language: a sentence that names the structure and holds <SEG> for a mask, or <DET> for a box.

The name stands in front of the mark, so that the mark's hidden state follows from it at once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from cmrvlm.errors import CmrvlmError
from cmrvlm.instructions.answer import AnswerWithTruth
from cmrvlm.instructions.question import Question, Region, whole_views
from cmrvlm.instructions.tokens import DETECT, SEGMENT
from cmrvlm.metrics.segmentation import (
    BOX_SCORES,
    MASK_SCORES,
    box_scores,
    mask_scores,
    means,
)
from cmrvlm.metrics.statistic import Statistic
from cmrvlm.study.structures import STRUCTURE_TABLE, STRUCTURE_VALUES
from cmrvlm.study.study import Study
from cmrvlm.study.vocabulary import SEQUENCE_TERMS, STRUCTURE_TERMS
from cmrvlm.tasks.base import Case, Task

_ABSENT = {"en": "There is no {name}.", "zh": "未见{name}。"}


def check_structure(structure: str, field: str) -> None:
    """Refuse the name of a structure that no task knows.

    Raises:
        CmrvlmError: It is unknown; the known ones are named.
    """
    if structure not in STRUCTURE_TABLE:
        raise CmrvlmError(
            f"unknown structure '{structure}'",
            field=field,
            remedy=f"Known: {', '.join(STRUCTURE_TABLE)}.",
        )


def absent_sentence(structure: str, language: str) -> str:
    """Return the sentence that a structure is not there; its mask is empty."""
    return _ABSENT[language].format(name=STRUCTURE_TERMS[structure].name(language))


class SegmentTask(Task):
    """Segment one structure on the annotated frames of a series, or say that it is not there.

    Questions name the structure in the words that people use; the answer has one name for each.

    Args:
        structure: Name from `cmrvlm.study.structures.STRUCTURE_TABLE`, such as `lv`.
        sequence: Series to segment; None for the one that the structure is usually drawn on. For
            another one the question says which, and the task has its name too.
    """

    prompts = {
        "en": (
            "Segment the {name}{where}.",
            "Where is the {name}{where}?",
            "Outline the {name}{where}.",
            "Show me the {name}{where}.",
            "Give a mask of the {name}{where}.",
        ),
        "zh": (
            "请{where}分割{name}。",
            "{where}{name}在哪里？",
            "请{where}勾画{name}。",
            "请{where}显示{name}。",
            "请{where}给出{name}的掩膜。",
        ),
    }
    paraphrases = {
        "en": ("Mark every pixel that belongs to the {name}{where}.",),
        "zh": ("请{where}标出属于{name}的所有像素。",),
    }
    primary = "dice"
    answers = {"en": f"The {{name}} is {SEGMENT}.", "zh": f"{{name}}在{SEGMENT}。"}

    def __init__(self, structure: str, sequence: str | None = None) -> None:
        check_structure(structure, "structure")
        usual_sequence = STRUCTURE_TABLE[structure].usual_sequence
        self.structure = structure
        self.sequence = sequence or usual_sequence
        self.mask_sequence = self.sequence
        self.may_be_absent = STRUCTURE_TABLE[structure].may_be_absent
        self.elsewhere = self.sequence != usual_sequence
        self.name = f"segment_{structure}"
        if self.elsewhere:
            self.name += f"_{self.sequence}"

    def cases(self, study: Study, shown: Collection[str]) -> list[Case]:
        """Return the structure on the ED and ES frames, or on all annotated ones where phases are unknown."""
        if self.sequence not in shown:
            return []
        series = study.series[self.sequence]
        annotated = series.annotated_frames()
        phase_of = {frame: phase for phase, frame in series.phases.items()}
        frames = tuple(sorted(frame for frame in phase_of if frame in annotated)) or annotated
        if not frames or not self._is_annotated(study, frames):
            return []
        return [self.case_on(shown, frames, tuple(phase_of.get(frame) for frame in frames))]

    def unlabelled_cases(self, study: Study) -> list[Case]:
        """Return the structure on every frame of the series, where the study has it."""
        if self.sequence not in study.series:
            return []
        frames = tuple(range(study.series[self.sequence].image.shape[1]))
        return [self.case_on(list(study.series), frames)]

    def case_on(
        self, shown: Collection[str], frames: tuple[int, ...], phases: tuple[str | None, ...] = ()
    ) -> Case:
        """Return the structure on some frames, whatever is annotated.

        Args:
            shown: Sequences that are shown.
            frames: Indices of the frames.
            phases: Phase of each frame; empty where they are unknown.
        """
        values = STRUCTURE_VALUES[self.structure]
        phases = phases or (None,) * len(frames)
        region = Region(self.sequence, self.structure, values, frames, phases)
        return Case(whole_views(shown), key=self.structure, region=region)

    def _is_present(self, study: Study, frames: Sequence[int]) -> bool:
        """Return whether the mask shows the structure in any of the frames."""
        mask = study.series[self.sequence].mask
        if mask is None:
            return False
        return bool(np.isin(mask[:, list(frames)], STRUCTURE_VALUES[self.structure]).any())

    def _is_annotated(self, study: Study, frames: Sequence[int]) -> bool:
        """Return whether the mask says where the structure is, or that it is not there.

        A mask without scar says so only where scars were drawn, or the study is known to have none.
        """
        if self._is_present(study, frames):
            return True
        was_drawn = self.structure in study.series[self.sequence].drawn
        has_no_scar = study.labels.findings.get("lv_lge") is False
        return self.may_be_absent and (was_drawn or has_no_scar)

    def fields(self, study: Study, case: Case, language: str) -> Mapping[str, str]:
        """Return the structure's name, and the series where it is not the usual one."""
        where = ""
        if self.elsewhere:
            series = SEQUENCE_TERMS[self.sequence].name(language)
            where = f" on the {series}" if language == "en" else f"在{series}上"
        return {"name": STRUCTURE_TERMS[self.structure].name(language), "where": where}

    def make_question(
        self,
        study: Study,
        case: Case,
        language: str,
        wording: int = 0,
        *,
        paraphrased: bool = False,
    ) -> Question:
        """Put a case into words, with one of the prompt's wordings and one of the structure's names."""
        question = super().make_question(study, case, language, wording, paraphrased=paraphrased)
        term = STRUCTURE_TERMS[self.structure]
        synonyms = [name for name in term.synonyms if name.isascii() == (language == "en")]
        names = [term.name(language), *synonyms]
        # All wordings with the first name, then all with the second, and so on.
        name = names[wording // len(self.prompts[language]) % len(names)]
        return replace(question, prompt=question.prompt.replace(names[0], name))

    def _present_sentence(self, study: Study, case: Case, language: str) -> str:
        return self.answers[language].format(**self.fields(study, case, language))

    def answer(self, study: Study, case: Case, language: str) -> str:
        """Return the sentence that carries the <SEG> token, or the one that the structure is not there."""
        assert case.region is not None
        if self._is_present(study, case.region.frames):
            return self._present_sentence(study, case, language)
        return self.absent(case, language)

    def absent(self, case: Case, language: str) -> str:
        """Return the sentence that the structure is not there."""
        return absent_sentence(self.structure, language)

    def allowed(self, study: Study, case: Case, language: str) -> tuple[str, ...]:
        """Return the sentence with the <SEG> token; both sentences where the structure may be absent."""
        present = self._present_sentence(study, case, language)
        if self.may_be_absent:
            return present, self.absent(case, language)
        return (present,)

    def score(self, answers: Sequence[AnswerWithTruth]) -> dict[str, Statistic]:
        """Return Dice and distances over the frames asked, and by phase where the phase is known."""
        return means(self.measured(answers), MASK_SCORES)

    def measure(self, answer: AnswerWithTruth) -> Mapping[str, float | None]:
        """Return the scores of an answer's mask."""
        return mask_scores(answer)


class DetectTask(Task):
    """Box around a structure at end-diastole.

    Boxes follow from masks, so that they move with the images in augmentation; series without masks are not asked.

    Args:
        structures: Structures to ask for.
        sequence: Series to look at.
    """

    name = "detect"
    prompts = {
        "en": ("Draw a box around the {name}.", "Which box holds the {name}?"),
        "zh": ("请框出{name}。", "{name}位于哪个框内？"),
    }
    paraphrases = {
        "en": ("Give the bounding box of the {name}.",),
        "zh": ("请给出{name}的边界框。",),
    }
    answers = {"en": f"The {{name}} lies in {DETECT}.", "zh": f"{{name}}位于{DETECT}。"}
    primary = "iou"

    def __init__(
        self, structures: Sequence[str] = ("lv", "myo", "rv"), sequence: str = "sax"
    ) -> None:
        for structure in structures:
            check_structure(structure, "structures")
        self.structures = tuple(structures)
        self.sequence = sequence
        self.mask_sequence = sequence

    def cases(self, study: Study, shown: Collection[str]) -> list[Case]:
        """Return each structure that the mask of the end-diastolic frame shows."""
        if self.sequence not in shown:
            return []
        series = study.series[self.sequence]
        frame = series.phases.get("ed")
        if frame is None or frame not in series.annotated_frames():
            return []
        assert series.mask is not None
        values = np.unique(series.mask[:, frame])
        return [
            self._case(shown, structure, frame)
            for structure in self.structures
            if np.isin(STRUCTURE_VALUES[structure], values).any()
        ]

    def _case(self, shown: Collection[str], structure: str, frame: int) -> Case:
        values = STRUCTURE_VALUES[structure]
        region = Region(self.sequence, structure, values, (frame,), ("ed",), as_box=True)
        return Case(whole_views(shown), key=structure, region=region)

    def fields(self, study: Study, case: Case, language: str) -> Mapping[str, str]:
        """Return the structure's name."""
        return {"name": STRUCTURE_TERMS[case.key].name(language)}

    def answer(self, study: Study, case: Case, language: str) -> str:
        """Return the sentence that carries the <DET> token."""
        return self.answers[language].format(**self.fields(study, case, language))

    def allowed(self, study: Study, case: Case, language: str) -> tuple[str, ...]:
        """Return that sentence and no other."""
        return (self.answer(study, case, language),)

    def score(self, answers: Sequence[AnswerWithTruth]) -> dict[str, Statistic]:
        """Return the intersection over union in three dimensions."""
        return means(self.measured(answers), BOX_SCORES)

    def measure(self, answer: AnswerWithTruth) -> Mapping[str, float | None]:
        """Return the scores of an answer's box."""
        return box_scores(answer)
