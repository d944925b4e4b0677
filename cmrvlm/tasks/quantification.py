"""Volumes and ejection fractions: a sentence that quotes the numbers of the measurement read-out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from cmrvlm.metrics.agreement import agreement_scores
from cmrvlm.metrics.statistic import Among, Statistic
from cmrvlm.reports.numbers import numbers_stated, quote
from cmrvlm.study.measurements import MEASUREMENTS
from cmrvlm.study.study import Study
from cmrvlm.study.vocabulary import Term
from cmrvlm.tasks.base import Answer, Case, Task, whole_views

VENTRICLES = {
    "lv": Term("lv", "left ventricle", "左心室"),
    "rv": Term("rv", "right ventricle", "右心室"),
}
QUANTITIES = {
    "lv": ("lvedv_ml", "lvesv_ml", "lvef_percent"),
    "rv": ("rvedv_ml", "rvesv_ml", "rvef_percent"),
}


class VolumeTask(Task):
    """End-diastolic and end-systolic volume in ml and ejection fraction in % of a ventricle.

    The language model writes marks where numbers stand; the read-out fills them. Text and number cannot disagree.
    """

    name = "volume"
    prompts = {
        "en": (
            "What are the volumes and the ejection fraction of the {name}?",
            "Quantify the {name}.",
            "How large is the {name} and how well does it pump?",
            "Give EDV, ESV and EF of the {name}.",
        ),
        "zh": (
            "{name}的容积和射血分数是多少？",
            "请定量测量{name}。",
            "{name}有多大，泵血能力如何？",
            "请给出{name}的舒张末容积、收缩末容积和射血分数。",
        ),
    }
    paraphrases = {
        "en": (
            "How many millilitres does the {name} hold, and what share of them does it pump out?",
        ),
        "zh": ("{name}能容纳多少毫升血液，每搏射出的比例是多少？",),
    }
    primary = "lvef_mae_percent"

    def cases(self, study: Study, shown: Collection[str]) -> list[Case]:
        """Each ventricle whose numbers are all known, when the short axis is shown."""
        if "sax" not in shown:
            return []
        known = study.labels.measurements
        return [
            Case(whole_views(shown), key=side)
            for side, names in QUANTITIES.items()
            if all(name in known for name in names)
        ]

    def fields(self, study: Study, case: Case, language: str) -> Mapping[str, str]:
        """The ventricle's name."""
        return {"name": VENTRICLES[case.key].name(language)}

    def answer(self, study: Study, case: Case, language: str) -> str:
        """The three quantities with units."""
        joint, stop = (", ", ".") if language == "en" else ("，", "。")
        rows = [(MEASUREMENTS[name], quote(name)) for name in QUANTITIES[case.key]]
        return joint.join(f"{one.name(language)} {mark} {one.unit}" for one, mark in rows) + stop

    def score(self, answers: Sequence[Answer]) -> dict[str, Statistic]:
        """Agreement of the numbers in the text with the true ones, for each quantity."""
        stated = [numbers_stated(a.text) for a in answers]
        scores: dict[str, Statistic] = {}
        for side, names in QUANTITIES.items():
            rows = [row for row, a in enumerate(answers) if a.instruction.case.key == side]
            for name in names:
                said = [stated[row].get(name) for row in rows]
                truth = [answers[row].instruction.values[name] for row in rows]
                own = agreement_scores(said, truth, name)
                scores |= {metric: Among(one, rows, len(answers)) for metric, one in own.items()}
        return scores
