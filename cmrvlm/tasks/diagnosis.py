"""Diagnosis in sixteen classes, in words and as a class vector."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from cmrvlm.labels import DISEASES
from cmrvlm.metrics.classification import auroc_scores, multi_label_scores
from cmrvlm.study import Study
from cmrvlm.tasks.base import Answer, Case, Score, Task, whole_views


def disease_vector(diseases: Collection[str]) -> tuple[float, ...]:
    """1 for each class that is present, in the order of `DISEASES`."""
    return tuple(float(code in diseases) for code in DISEASES)


class DiseaseTask(Task):
    """What is the diagnosis? Several classes may hold."""

    name = "disease"
    prompts = {
        "en": ("What is the diagnosis?", "Which heart disease does this study show?", "Give the diagnosis."),
        "zh": ("诊断是什么？", "该检查提示哪种心脏疾病？", "请给出诊断。"),
    }

    def cases(self, study: Study, shown: Collection[str]) -> list[Case]:
        """One case when the disease is known."""
        known = study.labels.diseases
        if known is None or not shown:
            return []
        truth = "+".join(code for code in DISEASES if code in known)
        return [Case(whole_views(shown), truth=truth, diseases=disease_vector(known))]

    def answer(self, study: Study, case: Case, language: str) -> str:
        """The names of the diseases."""
        assert case.truth is not None
        joint, stop = ("; ", ".") if language == "en" else ("；", "。")
        return joint.join(DISEASES[code].name(language) for code in case.truth.split("+")) + stop

    def score(self, answers: Sequence[Answer]) -> dict[str, Score]:
        """Macro AUROC of the class vector, and accuracy of the words."""
        return auroc_scores(answers, DISEASES) | multi_label_scores(answers, DISEASES)
