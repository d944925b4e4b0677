"""Structures by language: a sentence that names the structure and holds <SEG> for a mask, or <DET> for a box.

The name stands in front of the mark, so that the mark's hidden state follows from it at once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from cmrvlm.errors import CmrvlmError
from cmrvlm.labels import STRUCTURE_TERMS, STRUCTURES
from cmrvlm.metrics.segmentation import box_scores, mask_scores
from cmrvlm.metrics.statistic import Statistic
from cmrvlm.study import Study
from cmrvlm.tasks.base import Answer, Case, MaskTarget, Task, whole_views
from cmrvlm.text.tokens import DETECT, SEGMENT

# What counts as the structure: the myocardium includes its scar.
STRUCTURE_VALUES = {
    "lv": (STRUCTURES["lv"],),
    "myo": (STRUCTURES["myo"], STRUCTURES["scar"], STRUCTURES["no_reflow"]),
    "rv": (STRUCTURES["rv"],),
}


class SegmentTask(Task):
    """Segment one structure on the annotated frames of a series.

    Args:
        structure: `lv`, `myo` or `rv`.
        sequence: Series to segment.
    """

    prompts = {
        "en": (
            "Segment the {name}.",
            "Where is the {name}?",
            "Outline the {name} in the images.",
            "Show me the {name}.",
            "Give a mask of the {name}.",
        ),
        "zh": ("请分割{name}。", "{name}在哪里？", "请勾画图像中的{name}。", "请显示{name}。", "请给出{name}的掩膜。"),
    }
    paraphrases = {
        "en": ("Mark every pixel that belongs to the {name}.",),
        "zh": ("请标出属于{name}的所有像素。",),
    }
    primary = "dice"
    answers = {"en": f"The {{name}} is {SEGMENT}.", "zh": f"{{name}}在{SEGMENT}。"}

    def __init__(self, structure: str, sequence: str = "sax") -> None:
        if structure not in STRUCTURE_VALUES:
            raise CmrvlmError(f"unknown structure '{structure}'", field="structure",
                              remedy=f"Known: {', '.join(STRUCTURE_VALUES)}.")  # fmt: skip
        self.structure, self.sequence = structure, sequence
        self.name = f"segment_{structure}"

    def cases(self, study: Study, shown: Collection[str]) -> list[Case]:
        """The structure on the ED and ES frames, or on all annotated ones where phases are unknown."""
        if self.sequence not in shown:
            return []
        series = study.series[self.sequence]
        annotated = series.annotated_frames()
        frames = tuple(sorted({f for f in series.phases.values() if f in annotated})) or annotated
        if not frames:
            return []
        names = {frame: phase for phase, frame in series.phases.items()}
        phases = tuple(names.get(frame) for frame in frames)
        target = MaskTarget(self.sequence, self.structure, STRUCTURE_VALUES[self.structure], frames, phases)
        return [Case(whole_views(shown), key=self.structure, mask=target)]

    def fields(self, study: Study, case: Case, language: str) -> Mapping[str, str]:
        """The structure's name."""
        return {"name": STRUCTURE_TERMS[self.structure].name(language)}

    def answer(self, study: Study, case: Case, language: str) -> str:
        """The sentence that carries the <SEG> token."""
        return self.answers[language].format(**self.fields(study, case, language))

    def allowed(self, study: Study, case: Case, language: str) -> tuple[str, ...]:
        """That sentence and no other."""
        return (self.answer(study, case, language),)

    def score(self, answers: Sequence[Answer]) -> dict[str, Statistic]:
        """Dice and distances over the frames asked, and by phase where the phase is known."""
        return mask_scores(answers)


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
    paraphrases = {"en": ("Give the bounding box of the {name}.",), "zh": ("请给出{name}的边界框。",)}
    answers = {"en": f"The {{name}} lies in {DETECT}.", "zh": f"{{name}}位于{DETECT}。"}
    primary = "iou"

    def __init__(self, structures: Sequence[str] = ("lv", "myo", "rv"), sequence: str = "sax") -> None:
        unknown = set(structures) - set(STRUCTURE_VALUES)
        if unknown:
            raise CmrvlmError(f"unknown structures {sorted(unknown)}", field="structures",
                              remedy=f"Known: {', '.join(STRUCTURE_VALUES)}.")  # fmt: skip
        self.structures, self.sequence = tuple(structures), sequence

    def cases(self, study: Study, shown: Collection[str]) -> list[Case]:
        """Each structure, where the end-diastolic frame is annotated."""
        if self.sequence not in shown:
            return []
        series = study.series[self.sequence]
        frame = series.phases.get("ed")
        if frame is None or frame not in series.annotated_frames():
            return []
        return [
            Case(whole_views(shown), key=one,
                 mask=MaskTarget(self.sequence, one, STRUCTURE_VALUES[one], (frame,), ("ed",), as_box=True))
            for one in self.structures
        ]  # fmt: skip

    def fields(self, study: Study, case: Case, language: str) -> Mapping[str, str]:
        """The structure's name."""
        return {"name": STRUCTURE_TERMS[case.key].name(language)}

    def answer(self, study: Study, case: Case, language: str) -> str:
        """The sentence that carries the <DET> token."""
        return self.answers[language].format(**self.fields(study, case, language))

    def allowed(self, study: Study, case: Case, language: str) -> tuple[str, ...]:
        """That sentence and no other."""
        return (self.answer(study, case, language),)

    def score(self, answers: Sequence[Answer]) -> dict[str, Statistic]:
        """Intersection over union in three dimensions."""
        return box_scores(answers)
