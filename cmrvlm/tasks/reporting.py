"""Reporting: captions of what is shown, the structured report, and an impression from a report's text."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from cmrvlm.metrics.classification import closed_scores_of, multi_label_scores
from cmrvlm.metrics.statistic import Statistic
from cmrvlm.metrics.text import finding_scores, overlap_scores, report_scores
from cmrvlm.reports.findings import findings_stated
from cmrvlm.reports.numbers import numbers_stated, quoted_number
from cmrvlm.reports.reader import terms_named
from cmrvlm.reports.writer import (
    headings,
    join_sections,
    not_assessed,
    write_captions,
    write_report,
)
from cmrvlm.study.measurements import MEASUREMENTS
from cmrvlm.study.study import Study, StudyLabels
from cmrvlm.study.vocabulary import DISEASES, FINDING_SEQUENCES, LANGUAGES, REPORT_SECTIONS
from cmrvlm.tasks.base import Answer, Case, Task, whole_views
from cmrvlm.tasks.context import leaked
from cmrvlm.tasks.diagnosis import disease_code, disease_names

_CLAUSES = re.compile(r"(?<=[;；。])|(?<=\.)(?=\s|$)")


def report_sections(study: Study, shown: Collection[str], language: str) -> dict[str, str]:
    """The report on what is shown: the data's own text, or one written from labels with marks for numbers.

    Of the data's own text, clauses about findings and measurements that no shown sequence shows are left out, and what
    then is empty is "not assessed": a model that is not shown the LGE is not taught to describe it.
    """
    own = study.labels.report.get(language)
    if not own:
        return write_report(study.labels, shown, language, quoted_number)
    if set(shown) >= set(study.series):
        return dict(own)
    sections = {"lge": ("lge",)}
    return {
        name: _visible(text, shown) or not_assessed(language)
        if set(sections.get(name, shown)) & set(shown)
        else not_assessed(language)
        for name, text in own.items()
    }


def _visible(text: str, shown: Collection[str]) -> str:
    kept = []
    for clause in _CLAUSES.split(text):
        needs = [FINDING_SEQUENCES[code] for code in findings_stated(clause)]
        needs += [MEASUREMENTS[name].sequences for name in numbers_stated(clause)]
        if all(set(sequences) & set(shown) for sequences in needs):
            kept.append(clause)
    return "".join(kept).strip()


def reportable(labels: StudyLabels) -> bool:
    """Whether anything is known that a report could say."""
    return bool(
        labels.report
        or labels.measurements
        or labels.patterns
        or labels.diseases
        or any(value is not None for value in labels.findings.values())
    )


def sets_of(shown: Collection[str], *, each: bool) -> list[list[str]]:
    """What is described at a time: all that is shown together, or each sequence by itself."""
    return [[name] for name in shown] if each else [list(shown)] if shown else []


class CaptionTask(Task):
    """Describe the shown sequences in a sentence each.

    Args:
        each: Each of them is asked about by itself, for pairs of a series and what is said of it.
    """

    name = "caption"
    prompts = {
        "en": (
            "Describe the findings.",
            "What do these images show?",
            "Describe the images.",
            "What is to be seen?",
        ),
        "zh": ("请描述影像所见。", "这些图像显示了什么？", "请描述这些图像。", "可见什么？"),
    }
    paraphrases = {"en": ("Put into words what you see.",), "zh": ("请用文字说明您看到的内容。",)}
    primary = "rouge_l"

    def __init__(self, *, each: bool = False) -> None:
        self.each = each

    def cases(self, study: Study, shown: Collection[str]) -> list[Case]:
        """One case when something is known about every sequence that is described."""
        found = []
        for own in sets_of(shown, each=self.each):
            captions = [self._captions(study, own, language) for language in LANGUAGES]
            if not any(set(one) < set(own) for one in captions):
                found.append(Case(whole_views(own), key="+".join(own) if self.each else "caption"))
        return found

    def _captions(self, study: Study, shown: Collection[str], language: str) -> Mapping[str, str]:
        return study.labels.captions.get(language) or write_captions(
            study.labels, shown, language, quoted_number
        )

    def answer(self, study: Study, case: Case, language: str) -> str:
        """The captions of the shown sequences, joined."""
        gap = " " if language == "en" else ""
        shown = [view.sequence for view in case.views]
        captions = self._captions(study, shown, language)
        return gap.join(captions[name] for name in shown)

    def score(self, answers: Sequence[Answer]) -> dict[str, Statistic]:
        """Findings that the words state, and overlap by language."""
        return finding_scores(answers) | overlap_scores(answers)


class ReportTask(Task):
    """The structured report: structure, function, LGE, other and impression.

    Args:
        each: What can be said of each shown sequence by itself.
        outlined: A generated report has every section, in order; turn it off for data whose reports have others.
    """

    name = "report"
    prompts = {
        "en": (
            "Write the report.",
            "Write a structured report of this study.",
            "Report this study.",
            "Give a full report of the examination.",
        ),
        "zh": (
            "请撰写报告。",
            "请写出该检查的结构化报告。",
            "请报告该检查。",
            "请给出完整的检查报告。",
        ),
    }
    paraphrases = {
        "en": ("Dictate what goes into the patient's file.",),
        "zh": ("请口述病历中的检查结果。",),
    }
    primary = "rouge_l"

    def __init__(self, *, each: bool = False, outlined: bool = True) -> None:
        self.each, self.outlined = each, outlined

    def outline(self, language: str) -> tuple[str, ...]:
        """The headings of the sections."""
        return tuple(headings(language)) if self.outlined else ()

    def cases(self, study: Study, shown: Collection[str]) -> list[Case]:
        """One case when there is something to report."""
        if not reportable(study.labels):
            return []
        truth = disease_code(study.labels.diseases)
        return [
            Case(whole_views(own), truth=truth, key="+".join(own) if self.each else "report")
            for own in sets_of(shown, each=self.each)
        ]

    def answer(self, study: Study, case: Case, language: str) -> str:
        """The report on what is shown: values that the shown sequences cannot give are not in it."""
        return join_sections(
            report_sections(study, [view.sequence for view in case.views], language), language
        )

    def score(self, answers: Sequence[Answer]) -> dict[str, Statistic]:
        """Findings and numbers read back, sections present, disease in the impression, and overlap."""
        return report_scores(answers, REPORT_SECTIONS)


class SummaryTask(Task):
    """The impression from the findings of a report, without images."""

    name = "summary"
    prompts = {
        "en": (
            "Give the impression of this report. {report}",
            "Summarise: {report}",
            "{report} What is the conclusion?",
        ),
        "zh": ("请给出该报告的结论。{report}", "请总结：{report}", "{report}结论是什么？"),
    }
    paraphrases = {"en": ("{report} What does this amount to?",), "zh": ("{report}综上所述如何？",)}
    primary = "text_accuracy"

    def cases(self, study: Study, shown: Collection[str]) -> list[Case]:
        """One case when an impression is known that the findings do not name already."""
        truth = disease_code(study.labels.diseases)
        if truth is None or not reportable(study.labels):
            return []
        for language in LANGUAGES:
            if leaked(self._findings(study, language), truth, DISEASES):
                return []
        return [Case((), truth=truth, key="summary")]

    def _findings(self, study: Study, language: str) -> str:
        own = study.labels.report.get(language) or write_report(
            study.labels, list(study.series), language
        )
        return join_sections(
            {name: text for name, text in own.items() if name != "impression"}, language
        )

    def fields(self, study: Study, case: Case, language: str) -> Mapping[str, str]:
        """The findings of the report; never its impression."""
        return {"report": self._findings(study, language)}

    def answer(self, study: Study, case: Case, language: str) -> str:
        """The impression."""
        assert case.truth is not None
        own = study.labels.report.get(language, {}).get("impression")
        return own or disease_names(case.truth, language)

    def score(self, answers: Sequence[Answer]) -> dict[str, Statistic]:
        """Diseases named, macro-F1 over the sixteen classes, and overlap."""
        said = ["+".join(terms_named(a.text, DISEASES)) or None for a in answers]
        closed = closed_scores_of(
            [str(a.instruction.case.truth) for a in answers], said, list(DISEASES)
        )
        return (
            multi_label_scores(answers, DISEASES)
            | {"macro_f1": closed["macro_f1"]}
            | overlap_scores(answers)
        )
