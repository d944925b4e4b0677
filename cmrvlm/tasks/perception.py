"""Ask which sequence, which phase and which level is shown."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from cmrvlm.instructions.answer import AnswerWithTruth
from cmrvlm.instructions.question import View
from cmrvlm.metrics.classification import closed_scores
from cmrvlm.metrics.statistic import Statistic
from cmrvlm.study.study import Study
from cmrvlm.study.vocabulary import LEVEL_TERMS, PHASE_TERMS, SEQUENCE_TERMS, Term
from cmrvlm.tasks.base import Case, Task


class ClosedTask(Task):
    """A question whose answer is one of a fixed list of terms.

    Attributes:
        terms: Code to term, in the order of the classes.
        answers: Language to the wording of the answer, with `{name}`.
    """

    terms: Mapping[str, Term]
    answers: Mapping[str, str]
    primary = "accuracy"

    def answer(self, study: Study, case: Case, language: str) -> str:
        """Return the name of the right class in a sentence."""
        assert case.truth is not None
        return self.answers[language].format(name=self.terms[case.truth].name(language))

    def allowed(self, study: Study, case: Case, language: str) -> tuple[str, ...]:
        """Return a sentence for each term."""
        return tuple(
            self.answers[language].format(name=term.name(language)) for term in self.terms.values()
        )

    def score(self, answers: Sequence[AnswerWithTruth]) -> dict[str, Statistic]:
        """Return accuracy, macro-F1 over the fixed classes, unparsed answers, and what answers collapse to."""
        return closed_scores(answers, self.terms)


class SequenceTask(ClosedTask):
    """Ask which sequence is shown: one whole series, without its name."""

    name = "sequence"
    terms = SEQUENCE_TERMS
    prompts = {
        "en": (
            "Which sequence is this?",
            "Name the MRI sequence.",
            "What kind of cardiac MRI series is shown?",
            "Is this a cine or late enhancement, and in which plane?",
        ),
        "zh": (
            "这是什么序列？",
            "请说出磁共振序列名称。",
            "图像属于哪种心脏磁共振序列？",
            "这是电影还是延迟强化，哪个切面？",
        ),
    }
    paraphrases = {
        "en": ("Tell me which kind of acquisition I am looking at.",),
        "zh": ("请判断所给图像的采集类型。",),
    }
    answers = {"en": "This is {name}.", "zh": "这是{name}。"}

    def cases(self, study: Study, shown: Collection[str]) -> list[Case]:
        """Return one case for each shown sequence."""
        return [Case((View(sequence),), truth=sequence, key=sequence) for sequence in shown]

    def unlabelled_cases(self, study: Study) -> list[Case]:
        """Return one case for each series."""
        return self.cases(study, list(study.series))


class PhaseTask(ClosedTask):
    """Ask whether the shown frame is at end-diastole or at end-systole."""

    name = "phase"
    terms = PHASE_TERMS
    prompts = {
        "en": (
            "Which cardiac phase is this frame?",
            "Is this frame at end-diastole or end-systole?",
            "Has the heart filled or emptied in this picture?",
            "Name the phase of the cardiac cycle.",
        ),
        "zh": (
            "该帧处于哪个心动时相？",
            "这一帧是舒张末期还是收缩末期？",
            "图中心脏处于充盈还是排空状态？",
            "请说出心动周期的时相。",
        ),
    }
    paraphrases = {
        "en": ("At what point of the heartbeat was this picture taken?",),
        "zh": ("这张图像拍摄于心跳的哪个时刻？",),
    }
    answers = {"en": "The frame is at {name}.", "zh": "该帧处于{name}。"}

    def cases(self, study: Study, shown: Collection[str]) -> list[Case]:
        """Return ED and ES of each shown cine on which they are known."""
        return [
            Case((View(sequence, frame=frame),), truth=phase, key=f"{sequence} frame {frame}")
            for sequence in shown
            for phase, frame in study.series[sequence].phases.items()
        ]


class LevelTask(ClosedTask):
    """Ask whether the shown short-axis slice is basal, mid or apical."""

    name = "level"
    terms = LEVEL_TERMS
    prompts = {
        "en": (
            "Which level is this slice?",
            "Is this slice basal, mid-ventricular or apical?",
            "From which part of the ventricle is this slice?",
            "Name the level of this cut.",
        ),
        "zh": (
            "该层面位于哪个水平？",
            "这一层是基底部、中间部还是心尖部？",
            "这一层取自心室的哪个部分？",
            "请说出该切面的水平。",
        ),
    }
    paraphrases = {
        "en": ("How far along the long axis of the ventricle was this cut made?",),
        "zh": ("该切面在心室长轴上处于什么位置？",),
    }
    answers = {"en": "The slice is {name}.", "zh": "该层面位于{name}。"}

    def cases(self, study: Study, shown: Collection[str]) -> list[Case]:
        """Return every slice of the shown stacks whose level is known."""
        return [
            Case((View(sequence, slice=index),), truth=level, key=f"{sequence} slice {index}")
            for sequence in shown
            for index, level in enumerate(study.series[sequence].levels)
            if level is not None
        ]
