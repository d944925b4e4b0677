"""Diagnosis in sixteen classes, in words and as a class vector."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from cmrvlm.metrics.classification import class_vector_scores, multi_label_scores
from cmrvlm.metrics.statistic import Statistic
from cmrvlm.study.study import Study
from cmrvlm.study.vocabulary import DISEASES
from cmrvlm.tasks.base import Answer, Case, Task, whole_views


def disease_code(diseases: Collection[str] | None) -> str | None:
    """Codes joined with `+` in their fixed order; None when unknown."""
    return None if diseases is None else "+".join(code for code in DISEASES if code in diseases)


def disease_names(code: str, language: str) -> str:
    """Names of joined codes as one sentence."""
    joint, stop = ("; ", ".") if language == "en" else ("；", "。")
    return joint.join(DISEASES[one].name(language) for one in code.split("+")) + stop


class DiseaseTask(Task):
    """What is the diagnosis? Several classes may hold."""

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

    def cases(self, study: Study, shown: Collection[str]) -> list[Case]:
        """One case when the disease is known."""
        truth = disease_code(study.labels.diseases)
        return [Case(whole_views(shown), truth=truth, key="diagnosis")] if truth and shown else []

    def answer(self, study: Study, case: Case, language: str) -> str:
        """The names of the diseases."""
        assert case.truth is not None
        return disease_names(case.truth, language)

    def probabilities(self, answer: Answer) -> list[float] | None:
        """Of the sixteen classes, in the order of `DISEASES`; None when no whole series was shown."""
        return answer.read_outs["disease"].tolist() if "disease" in answer.read_outs else None

    def score(self, answers: Sequence[Answer]) -> dict[str, Statistic]:
        """AUROC, AUPRC and calibration of the class vector, and accuracy of the words."""
        return class_vector_scores(answers, list(DISEASES), "disease") | multi_label_scores(
            answers, DISEASES
        )
