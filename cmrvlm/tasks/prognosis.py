"""Ask for the risk of a major adverse cardiac event, a discrete-time hazard; for data with follow-up."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from cmrvlm.instructions.answer import Answer, AnswerWithTruth
from cmrvlm.instructions.question import whole_views
from cmrvlm.instructions.read_outs import SURVIVAL_EDGES_MONTHS, risk_of
from cmrvlm.metrics.statistic import Statistic
from cmrvlm.metrics.survival import Concordance, brier_at
from cmrvlm.reports.numbers import quote
from cmrvlm.study.measurements import MACE_RISK
from cmrvlm.study.study import Study
from cmrvlm.tasks.base import Case, Task

# Horizons of the Brier score, as numbers of intervals.
BRIER_INTERVALS = (3, 5)
_KEY = "mace"


class PrognosisTask(Task):
    """Risk of an event until the last edge of the hazard's intervals (five years)."""

    name = "prognosis"
    prompts = {
        "en": (
            "What is the five-year risk of a major adverse cardiac event?",
            "Estimate the prognosis.",
            "What is the risk over the next five years?",
        ),
        "zh": ("五年内主要不良心脏事件的风险是多少？", "请评估预后。", "未来五年的风险是多少？"),
    }
    paraphrases = {
        "en": ("How likely is a serious cardiac event within the next five years?",),
        "zh": ("未来五年发生严重心脏事件的可能性有多大？",),
    }
    answers = {
        "en": f"The five-year risk of a major adverse cardiac event is {quote(MACE_RISK)} %.",
        "zh": f"五年内主要不良心脏事件的风险为{quote(MACE_RISK)}%。",
    }
    primary = f"brier_{SURVIVAL_EDGES_MONTHS[-1]:.0f}_months"

    def cases(self, study: Study, shown: Collection[str]) -> list[Case]:
        """Return one case when follow-up is known."""
        if not shown or not study.labels.follow_up:
            return []
        return [Case(whole_views(shown), key=_KEY)]

    def unlabelled_cases(self, study: Study) -> list[Case]:
        """Return one case about all series."""
        return [Case(whole_views(list(study.series)), key=_KEY)]

    def answer(self, study: Study, case: Case, language: str) -> str:
        """Return a sentence that quotes the read-out; no single patient has a true risk."""
        return self.answers[language]

    def values(self, study: Study) -> Mapping[str, float]:
        """Return the months of follow-up and whether they ended with an event."""
        return study.labels.follow_up

    def probabilities(self, answer: Answer) -> list[float] | None:
        """Return that of an event until the last edge; None when no whole series was shown."""
        if "hazard" not in answer.read_outs:
            return None
        return [risk_of(np.asarray(answer.read_outs["hazard"]))]

    def score(self, answers: Sequence[AnswerWithTruth]) -> dict[str, Statistic]:
        """Return the C-index of the risk, and Brier scores at the horizons."""
        months = [answer.instruction.values["months"] for answer in answers]
        events = [bool(answer.instruction.values["event"]) for answer in answers]

        def risks(intervals: int) -> list[float | None]:
            hazards = [answer.read_outs.get("hazard") for answer in answers]
            return [
                None if hazard is None else risk_of(np.asarray(hazard[:intervals]))
                for hazard in hazards
            ]

        scores: dict[str, Statistic] = {
            "c_index": Concordance(months, events, risks(len(SURVIVAL_EDGES_MONTHS))),
        }
        for count in BRIER_INTERVALS:
            horizon = SURVIVAL_EDGES_MONTHS[count - 1]
            scores[f"brier_{horizon:.0f}_months"] = brier_at(months, events, risks(count), horizon)
        return scores
