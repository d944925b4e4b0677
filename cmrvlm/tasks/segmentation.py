"""Structures by language: a sentence that names the structure and holds <SEG> for a mask, or <DET> for a box.

The name stands in front of the mark, so that the mark's hidden state follows from it at once.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from cmrvlm.errors import CmrvlmError
from cmrvlm.instructions.tokens import DETECT, SEGMENT
from cmrvlm.metrics.segmentation import box_scores, mask_scores
from cmrvlm.metrics.statistic import Statistic
from cmrvlm.reports.reader import any_of, terms_named
from cmrvlm.study.structures import STRUCTURE_TABLE, STRUCTURE_VALUES
from cmrvlm.study.study import Study
from cmrvlm.study.vocabulary import SEQUENCE_TERMS, STRUCTURE_TERMS
from cmrvlm.tasks.base import Answer, Case, Instruction, MaskTarget, Task, whole_views


def _named(*structures: str) -> str:
    """A pattern for any name of the structures."""
    terms = [STRUCTURE_TERMS[one] for one in structures]
    return f"(?:{any_of(tuple(name for one in terms for name in (one.en, one.zh, *one.synonyms))).pattern})"


# A request begins with what is to be done, or asks where something is. What can be done to more than structures, as
# "show" and "mark", must have one for its object: "show me the ejection fraction of the left ventricle" wants no mask.
_STRUCTURE = _named(*STRUCTURE_TERMS)
_FILLERS = r"""(?:\s+(?:me|all|both|each|every|the|a|an|of|for|to|that|where|around|belongs?|whole|entire|endocardial|
    epicardial|masks?|contours?|outlines?|lines?|borders?|boundar(?:y|ies)|segmentations?|pixels?|voxels?|cavity|chamber))*"""
_GOES_ON = r"and|or|of|in|on|within|inside|at|during|over|throughout|as|with|please|masks?|contours?|borders?"
_ASKS_FOR_MASKS = re.compile(
    rf"""^\W*(?:(?:please|can\s+you|could\s+you|would\s+you)\s+)*(?:
        (?:segment|contour|delineate|give(?:\s+me)?(?:\s+(?:a|the))?\s+(?:masks?|contours?|segmentations?))\b
      | (?:outline|mark|show|draw|highlight|where\s+(?:is|are)){_FILLERS}\s+{_STRUCTURE}
        (?=\W*$|\s*[,.;:?!(]|\s+(?:{_GOES_ON})\b|\s+(?:is|are|lies?)\W*$)
      )
    | 分割|勾画|掩膜|在哪里
    | ^\W*请?(?:在[^，。]*?上)?(?:显示|标出|标记|画出|描出|给出)(?:所有|全部|属于)*{_STRUCTURE}
      (?=\W*$|\s*[，。、；,.;]|[和与及以]|[内中里]?的(?:轮廓|边界|位置|范围|所有像素|像素|{_STRUCTURE}))""",
    re.IGNORECASE | re.VERBOSE,
)


# "The scar of the LV wall" and "左心室的心肌" name one structure and where it lies.
_WHERE_IT_LIES = re.compile(
    rf"(?P<what>{_STRUCTURE})\s+(?:of|in|within|inside)\s+(?:the\s+)?{_named('lv', 'myo')}"
    rf"|{_named('lv', 'myo')}[中内里]?的(?P<own>{_STRUCTURE})",
    re.IGNORECASE,
)


def structures_asked(question: str) -> list[str]:
    """Structures that a question in a user's words wants masks of; empty when it asks for something else.

    Each is then asked for by itself, so that a question for several gives what a question for each would.
    """
    if not _ASKS_FOR_MASKS.search(question):
        return []
    return terms_named(
        _WHERE_IT_LIES.sub(lambda one: one["what"] or one["own"], question), STRUCTURE_TERMS
    )


_ABSENT = {"en": "There is no {name}.", "zh": "未见{name}。"}


def said_absent(structure: str, language: str) -> str:
    """The sentence that a structure is not there; its mask is empty."""
    return _ABSENT[language].format(name=STRUCTURE_TERMS[structure].name(language))


class SegmentTask(Task):
    """Segment one structure on the annotated frames of a series, or say that it is not there.

    Questions name the structure in the words that people use; the answer has one name for each.

    Args:
        structure: Name from `cmrvlm.study.structures.STRUCTURE_TABLE`, such as `lv`.
        sequence: Series to segment; None for the one that the structure is usually drawn on. For another one the
            question says which, and the task has its name too.
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
        if structure not in STRUCTURE_TABLE:
            raise CmrvlmError(
                f"unknown structure '{structure}'",
                field="structure",
                remedy=f"Known: {', '.join(STRUCTURE_TABLE)}.",
            )
        usual_sequence = STRUCTURE_TABLE[structure].usual_sequence
        self.structure = structure
        self.sequence = sequence or usual_sequence
        self.elsewhere = self.sequence != usual_sequence
        self.may_be_absent = STRUCTURE_TABLE[structure].may_be_absent
        self.name = (
            f"segment_{structure}_{self.sequence}" if self.elsewhere else f"segment_{structure}"
        )

    def cases(self, study: Study, shown: Collection[str]) -> list[Case]:
        """The structure on the ED and ES frames, or on all annotated ones where phases are unknown."""
        if self.sequence not in shown:
            return []
        series = study.series[self.sequence]
        annotated = series.annotated_frames()
        frames = tuple(sorted({f for f in series.phases.values() if f in annotated})) or annotated
        if not frames or not self._annotated(study, frames):
            return []
        names = {frame: phase for phase, frame in series.phases.items()}
        return [self.case_on(shown, frames, tuple(names.get(frame) for frame in frames))]

    def case_on(
        self, shown: Collection[str], frames: tuple[int, ...], phases: tuple[str | None, ...] = ()
    ) -> Case:
        """The structure on the given frames, of unknown phase unless they are given, whatever is annotated."""
        target = MaskTarget(
            self.sequence,
            self.structure,
            STRUCTURE_VALUES[self.structure],
            frames,
            phases or (None,) * len(frames),
        )
        return Case(whole_views(shown), key=self.structure, mask=target)

    def on_all_frames(self, study: Study, language: str) -> Instruction:
        """The structure on every frame of a study that may have no masks, shown with all of its series."""
        frames = tuple(range(study.series[self.sequence].image.shape[1]))
        return self.word(study, self.case_on(list(study.series), frames), language)

    def _there(self, study: Study, frames: Sequence[int]) -> bool:
        mask = study.series[self.sequence].mask
        return mask is not None and bool(
            np.isin(mask[:, list(frames)], STRUCTURE_VALUES[self.structure]).any()
        )

    def _annotated(self, study: Study, frames: Sequence[int]) -> bool:
        """Whether the mask says where the structure is, or that it is not there.

        A mask without scar says so only where scars were drawn, or the study is known to have none.
        """
        known = (
            self.structure in study.series[self.sequence].drawn
            or study.labels.findings.get("lv_lge") is False
        )
        return self._there(study, frames) or (self.may_be_absent and known)

    def fields(self, study: Study, case: Case, language: str) -> Mapping[str, str]:
        """The structure's name, and the series where it is not the usual one."""
        series = SEQUENCE_TERMS[self.sequence].name(language)
        where = (
            (f" on the {series}" if language == "en" else f"在{series}上") if self.elsewhere else ""
        )
        return {"name": STRUCTURE_TERMS[self.structure].name(language), "where": where}

    def word(
        self,
        study: Study,
        case: Case,
        language: str,
        wording: int = 0,
        *,
        paraphrased: bool = False,
    ) -> Instruction:
        """The instruction, with one of the prompt's wordings and one of the structure's names."""
        one = super().word(study, case, language, wording, paraphrased=paraphrased)
        term = STRUCTURE_TERMS[self.structure]
        names = [
            term.name(language),
            *(name for name in term.synonyms if name.isascii() == (language == "en")),
        ]
        name = names[wording // len(self.prompts[language]) % len(names)]
        return replace(one, prompt=one.prompt.replace(names[0], name))

    def answer(self, study: Study, case: Case, language: str) -> str:
        """The sentence that carries the <SEG> token, or that says that the structure is not there."""
        assert case.mask is not None
        if not self._there(study, case.mask.frames):
            return said_absent(self.structure, language)
        return self.answers[language].format(**self.fields(study, case, language))

    def allowed(self, study: Study, case: Case, language: str) -> tuple[str, ...]:
        """That sentence and no other; both where the structure may be absent."""
        there = self.answers[language].format(**self.fields(study, case, language))
        return (there, said_absent(self.structure, language)) if self.may_be_absent else (there,)

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
    paraphrases = {
        "en": ("Give the bounding box of the {name}.",),
        "zh": ("请给出{name}的边界框。",),
    }
    answers = {"en": f"The {{name}} lies in {DETECT}.", "zh": f"{{name}}位于{DETECT}。"}
    primary = "iou"

    def __init__(
        self, structures: Sequence[str] = ("lv", "myo", "rv"), sequence: str = "sax"
    ) -> None:
        unknown = set(structures) - set(STRUCTURE_TABLE)
        if unknown:
            raise CmrvlmError(
                f"unknown structures {sorted(unknown)}",
                field="structures",
                remedy=f"Known: {', '.join(STRUCTURE_TABLE)}.",
            )
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
            Case(
                whole_views(shown),
                key=one,
                mask=MaskTarget(
                    self.sequence, one, STRUCTURE_VALUES[one], (frame,), ("ed",), as_box=True
                ),
            )
            for one in self.structures
        ]

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
