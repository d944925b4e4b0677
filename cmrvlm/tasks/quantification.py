"""Ask for volumes and ejection fractions, in a sentence that quotes numbers of the read-out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from cmrvlm.instructions.answer import AnswerWithTruth
from cmrvlm.instructions.question import whole_views
from cmrvlm.metrics.agreement import agreement_scores
from cmrvlm.metrics.statistic import Among, Statistic
from cmrvlm.reports.numbers import numbers_stated, quote
from cmrvlm.study.measurements import MEASUREMENTS
from cmrvlm.study.study import Study
from cmrvlm.study.vocabulary import Term
from cmrvlm.tasks.base import Case, Task

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
        """Return each ventricle whose numbers are all known, when the short axis is shown."""
        if "sax" not in shown:
            return []
        known = study.labels.measurements
        return [
            Case(whole_views(shown), key=side)
            for side, names in QUANTITIES.items()
            if all(name in known for name in names)
        ]

    def unlabelled_cases(self, study: Study) -> list[Case]:
        """Return each ventricle, when there is a short axis."""
        if "sax" not in study.series:
            return []
        return [Case(whole_views(list(study.series)), key=side) for side in QUANTITIES]

    def fields(self, study: Study, case: Case, language: str) -> Mapping[str, str]:
        """Return the ventricle's name."""
        return {"name": VENTRICLES[case.key].name(language)}

    def answer(self, study: Study, case: Case, language: str) -> str:
        """Return the three quantities with units."""
        clauses = []
        for name in QUANTITIES[case.key]:
            measurement = MEASUREMENTS[name]
            clauses.append(f"{measurement.name(language)} {quote(name)} {measurement.unit}")
        if language == "en":
            return ", ".join(clauses) + "."
        return "，".join(clauses) + "。"

    def stated_and_true(
        self, answers: Sequence[AnswerWithTruth]
    ) -> dict[str, list[tuple[float, float]]]:
        """Return pairs of the number that an answer states and the true one, by measurement."""
        pairs: dict[str, list[tuple[float, float]]] = {
            name: [] for names in QUANTITIES.values() for name in names
        }
        for answer in answers:
            asked_for = QUANTITIES.get(answer.instruction.key, ())
            for name, stated in numbers_stated(answer.text).items():
                if name in asked_for:
                    pairs[name].append((stated, answer.instruction.values[name]))
        return pairs

    def score(self, answers: Sequence[AnswerWithTruth]) -> dict[str, Statistic]:
        """Return the agreement of the numbers in the text with the true ones, for each quantity."""
        numbers = [numbers_stated(answer.text) for answer in answers]
        scores: dict[str, Statistic] = {}
        for side, names in QUANTITIES.items():
            rows = [row for row, answer in enumerate(answers) if answer.instruction.key == side]
            for name in names:
                stated = [numbers[row].get(name) for row in rows]
                true = [answers[row].instruction.values[name] for row in rows]
                for metric, statistic in agreement_scores(stated, true, name).items():
                    scores[metric] = Among(statistic, rows, len(answers))
        return scores
