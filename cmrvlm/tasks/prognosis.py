"""Prognosis: risk of a major adverse cardiac event as a discrete-time hazard; for data with follow-up."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from cmrvlm.instructions.targets import SURVIVAL_EDGES_MONTHS, risk_of
from cmrvlm.metrics.statistic import Statistic
from cmrvlm.metrics.survival import Concordance, brier_at
from cmrvlm.reports.numbers import quote
from cmrvlm.study.measurements import MACE_RISK
from cmrvlm.study.study import Study
from cmrvlm.tasks.base import Answer, Case, Task, whole_views

BRIER_INTERVALS = (3, 5)  # horizons for the Brier score, as numbers of intervals


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
        """One case when follow-up is known."""
        return [Case(whole_views(shown), key="mace")] if shown and study.labels.follow_up else []

    def answer(self, study: Study, case: Case, language: str) -> str:
        """A sentence that quotes the read-out; no single patient has a true risk."""
        return self.answers[language]

    def values(self, study: Study) -> Mapping[str, float]:
        """Months of follow-up and whether they ended with an event."""
        return study.labels.follow_up

    def probabilities(self, answer: Answer) -> list[float] | None:
        """Of an event until the last edge; None when no whole series was shown."""
        return (
            [risk_of(np.asarray(answer.read_outs["hazard"]))]
            if "hazard" in answer.read_outs
            else None
        )

    def score(self, answers: Sequence[Answer]) -> dict[str, Statistic]:
        """C-index of the risk, and Brier scores at the horizons."""
        months = [a.instruction.values["months"] for a in answers]
        events = [bool(a.instruction.values["event"]) for a in answers]
        hazards = [a.read_outs.get("hazard") for a in answers]

        def risks(intervals: int) -> list[float | None]:
            return [None if h is None else risk_of(np.asarray(h[:intervals])) for h in hazards]

        scores: dict[str, Statistic] = {
            "c_index": Concordance(months, events, risks(len(SURVIVAL_EDGES_MONTHS))),
        }
        for count in BRIER_INTERVALS:
            horizon = SURVIVAL_EDGES_MONTHS[count - 1]
            scores[f"brier_{horizon:.0f}_months"] = brier_at(months, events, risks(count), horizon)
        return scores
