"""Segmentation by language: "It is <SEG>." for the structure that the prompt refers to."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from cmrvlm.errors import CmrvlmError
from cmrvlm.labels import STRUCTURE_TERMS, STRUCTURES
from cmrvlm.metrics.segmentation import mask_scores
from cmrvlm.study import Study
from cmrvlm.tasks.base import Answer, Case, MaskTarget, Score, Task, whole_views
from cmrvlm.text.tokens import SEGMENT

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
        "en": ("Segment the {name}.", "Where is the {name}?", "Outline the {name} in the images."),
        "zh": ("请分割{name}。", "{name}在哪里？", "请勾画图像中的{name}。"),
    }
    answers = {"en": f"It is {SEGMENT}.", "zh": f"在这里{SEGMENT}。"}

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
        return [Case(whole_views(shown), mask=target)]

    def fields(self, case: Case, language: str) -> Mapping[str, str]:
        """The structure's name."""
        return {"name": STRUCTURE_TERMS[self.structure].name(language)}

    def answer(self, study: Study, case: Case, language: str) -> str:
        """The sentence that carries the <SEG> token."""
        return self.answers[language]

    def score(self, answers: Sequence[Answer]) -> dict[str, Score]:
        """Dice over the frames asked, and by phase where the phase is known."""
        return mask_scores(answers)
