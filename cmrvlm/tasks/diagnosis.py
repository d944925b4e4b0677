"""Ask for the diagnosis in sixteen classes, in words and as a class vector."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from cmrvlm.instructions.answer import Answer, AnswerWithTruth
from cmrvlm.instructions.question import whole_views
from cmrvlm.metrics.classification import class_vector_scores, multi_label_scores
from cmrvlm.metrics.statistic import Statistic
from cmrvlm.study.study import Study
from cmrvlm.study.vocabulary import DISEASES
from cmrvlm.tasks.base import Calibration, Case, Task

_KEY = "diagnosis"


def disease_code(diseases: Collection[str] | None) -> str | None:
    """Return the codes joined with `+` in their fixed order; None when they are unknown."""
    if diseases is None:
        return None
    return "+".join(code for code in DISEASES if code in diseases)


def disease_names(code: str, language: str) -> str:
    """Return the names of joined codes as one sentence."""
    names = [DISEASES[part].name(language) for part in code.split("+")]
    if language == "en":
        return "; ".join(names) + "."
    return "；".join(names) + "。"


class DiseaseTask(Task):
    """Ask for the diagnosis. Several classes may hold."""

    name = "disease"
    prompts = {
        "en": (
            "What is the diagnosis?",
            "Which heart disease does this study show?",
            "Give the diagnosis.",
            "What does the patient have?",
            "Name the disease.",
        ),
        "zh": (
            "诊断是什么？",
            "该检查提示哪种心脏疾病？",
            "请给出诊断。",
            "患者是什么病？",
            "请说出疾病名称。",
        ),
    }
    paraphrases = {
        "en": ("What condition is this patient suffering from?",),
        "zh": ("这位患者得的是什么病？",),
    }
    primary = "text_accuracy"
    subset_metric = "macro_auroc"
    leak_terms = DISEASES

    def cases(self, study: Study, shown: Collection[str]) -> list[Case]:
        """Return one case when the disease is known."""
        truth = disease_code(study.labels.diseases)
        if not truth or not shown:
            return []
        return [Case(whole_views(shown), truth=truth, key=_KEY)]

    def unlabelled_cases(self, study: Study) -> list[Case]:
        """Return one case about all series."""
        return [Case(whole_views(list(study.series)), key=_KEY)]

    def answer(self, study: Study, case: Case, language: str) -> str:
        """Return the names of the diseases."""
        assert case.truth is not None
        return disease_names(case.truth, language)

    def probabilities(self, answer: Answer) -> list[float] | None:
        """Return those of the sixteen classes, in the order of `DISEASES`; None when no whole series was shown."""
        if "disease" not in answer.read_outs:
            return None
        return [float(value) for value in answer.read_outs["disease"]]

    def calibration(self, answers: Sequence[AnswerWithTruth]) -> Calibration | None:
        """Return the class vectors of answers whose truth is known, beside that truth."""
        truth: list[bool] = []
        probability: list[float] = []
        for answer in answers:
            if "disease" in answer.read_outs and answer.instruction.truth is not None:
                present = answer.instruction.truth.split("+")
                truth += [code in present for code in DISEASES]
                probability += answer.read_outs["disease"].tolist()
        return Calibration(truth, probability) if truth else None

    def score(self, answers: Sequence[AnswerWithTruth]) -> dict[str, Statistic]:
        """Return AUROC, AUPRC and calibration of the class vector, and accuracy of the words."""
        of_classes = class_vector_scores(answers, list(DISEASES), "disease")
        return of_classes | multi_label_scores(answers, DISEASES)
