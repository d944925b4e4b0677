"""Ask whether findings are abnormal."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from cmrvlm.instructions.answer import Answer, AnswerWithTruth
from cmrvlm.instructions.question import whole_views
from cmrvlm.metrics.statistic import (
    Among,
    Auroc,
    AveragePrecision,
    CalibrationError,
    MeanOf,
    Statistic,
)
from cmrvlm.study.measurements import MEASUREMENTS
from cmrvlm.study.study import Study
from cmrvlm.study.vocabulary import FINDING_SEQUENCES, FINDINGS, Term
from cmrvlm.tasks.base import Calibration, Case
from cmrvlm.tasks.perception import ClosedTask

YES_NO = {"yes": Term("yes", "yes", "是"), "no": Term("no", "no", "否")}
_MEASURED = {one.finding for one in MEASUREMENTS.values()} | {"wall_motion"}


class AbnormalityTask(ClosedTask):
    """Ask whether one of the 23 findings is abnormal. A finding that is not stated is never asked."""

    name = "abnormality"
    terms = YES_NO
    prompts = {
        "en": (
            "Is there {name}?",
            "Does this study show {name}?",
            "Do you see {name}?",
            "Does the patient have {name}?",
            "Check for {name}.",
        ),
        "zh": (
            "是否存在{name}？",
            "该检查是否显示{name}？",
            "能否看到{name}？",
            "患者有无{name}？",
            "请判断有无{name}。",
        ),
    }
    # Most findings are normal in most studies.
    balanced = True
    paraphrases = {"en": ("Would you report {name} here?",), "zh": ("您会在此报告{name}吗？",)}
    answers = {"en": "{name}.", "zh": "{name}。"}

    def cases(self, study: Study, shown: Collection[str]) -> list[Case]:
        """Return each stated finding that a shown sequence shows."""
        cases = []
        for code in FINDINGS:
            is_abnormal = study.labels.findings.get(code)
            can_be_seen = bool(set(FINDING_SEQUENCES[code]) & set(shown))
            if is_abnormal is not None and can_be_seen:
                truth = "yes" if is_abnormal else "no"
                cases.append(Case(whole_views(shown), truth=truth, key=code))
        return cases

    def unlabelled_cases(self, study: Study) -> list[Case]:
        """Return each finding that one of the series shows."""
        views = whole_views(list(study.series))
        return [
            Case(views, key=code)
            for code in FINDINGS
            if set(FINDING_SEQUENCES[code]) & set(study.series)
        ]

    def fields(self, study: Study, case: Case, language: str) -> Mapping[str, str]:
        """Return the finding's name, such as "an abnormal LV ejection fraction" or "thrombus"."""
        name = FINDINGS[case.key].name(language)
        if case.key in _MEASURED:
            name = f"{name}异常" if language == "zh" else f"an abnormal {name}"
        return {"name": name}

    def probabilities(self, answer: Answer) -> list[float] | None:
        """Return the one that the finding is abnormal; None when no whole series was shown."""
        if "findings" not in answer.read_outs:
            return None
        index = list(FINDINGS).index(answer.question.key)
        return [float(answer.read_outs["findings"][index])]

    def calibration(self, answers: Sequence[AnswerWithTruth]) -> Calibration | None:
        """Return the findings' probabilities beside what was true."""
        truth: list[bool] = []
        probability: list[float] = []
        for answer in answers:
            predicted = self.probabilities(answer)
            if predicted is not None:
                truth.append(answer.instruction.truth == "yes")
                probability += predicted
        return Calibration(truth, probability) if truth else None

    def score(self, answers: Sequence[AnswerWithTruth]) -> dict[str, Statistic]:
        """Return scores of the words, and areas and calibration of the findings' probabilities."""
        truth: list[bool | None] = [answer.instruction.truth == "yes" for answer in answers]
        predicted = [self.probabilities(answer) for answer in answers]
        probability = [None if values is None else values[0] for values in predicted]
        areas: dict[str, Statistic] = {}
        precisions: list[Statistic] = []
        for code in FINDINGS:
            rows = [row for row, answer in enumerate(answers) if answer.instruction.key == code]
            of_finding = [truth[row] for row in rows], [probability[row] for row in rows]
            areas[f"auroc_{code}"] = Among(Auroc(*of_finding), rows, len(answers))
            precisions.append(Among(AveragePrecision(*of_finding), rows, len(answers)))
        return {
            **super().score(answers),
            "macro_auroc": MeanOf(list(areas.values())),
            "macro_auprc": MeanOf(precisions),
            "calibration_error": CalibrationError(truth, probability),
            **areas,
        }
