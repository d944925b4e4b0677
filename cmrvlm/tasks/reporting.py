"""Ask for captions, for the structured report, and for the impression of a report's text."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from cmrvlm.instructions.answer import AnswerWithTruth
from cmrvlm.instructions.question import whole_views
from cmrvlm.metrics.classification import closed_scores_of, multi_label_scores
from cmrvlm.metrics.statistic import Statistic
from cmrvlm.metrics.text import finding_scores, overlap_scores, report_scores
from cmrvlm.reports.numbers import quoted_number
from cmrvlm.reports.reader import terms_named
from cmrvlm.reports.visible import visible_captions, visible_sections
from cmrvlm.reports.writer import (
    headings,
    join_sections,
    not_assessed,
    write_captions,
    write_report,
)
from cmrvlm.study.evidence import Evidence, visible_labels
from cmrvlm.study.study import Study
from cmrvlm.study.vocabulary import DISEASES, LANGUAGES, REPORT_SECTIONS
from cmrvlm.tasks.base import Case, Task
from cmrvlm.tasks.context import leaked
from cmrvlm.tasks.diagnosis import disease_code, disease_names


def report_sections(study: Study, shown: Collection[str], language: str) -> dict[str, str]:
    """Return the sections of the report on what is shown, with marks in place of numbers.

    They are the data's own text, or are written from labels. Of the data's own text, clauses about
    findings and measurements that no shown sequence shows are left out, and a section that is then
    empty is "not assessed": a model that is not shown the LGE is not taught to describe it.

    Args:
        study: Study with its labels.
        shown: Sequences that are shown.
        language: `en` or `zh`.
    """
    stated = study.labels.report.get(language)
    if not stated:
        return write_report(visible_labels(study, shown), shown, language, quoted_number)
    return visible_sections(stated, Evidence.of(study, shown), language)


def states_anything(sections: Mapping[str, str], language: str) -> bool:
    """Return whether any section of a report but its impression says more than "not assessed"."""
    silent = ("", not_assessed(language))
    return any(
        text.strip() not in silent for name, text in sections.items() if name != "impression"
    )


def languages_of_texts(texts: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return the languages of the data's own texts; all where it has none and labels are worded.

    A text in one language states what labels need not: one worded from them in another language
    would say "not assessed" of what the text describes.

    Args:
        texts: Language to texts, such as those of a report.
    """
    stated = [language for language in LANGUAGES if texts.get(language)]
    return stated or list(LANGUAGES)


def sets_of(shown: Collection[str], *, each: bool) -> list[list[str]]:
    """Return the sets of sequences that are described: all together, or each by itself."""
    if each:
        return [[name] for name in shown]
    return [list(shown)] if shown else []


class CaptionTask(Task):
    """Ask for a description of the shown sequences in a sentence each.

    Args:
        each: Ask about each sequence by itself, for pairs of a series and its caption.
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
    is_free_text = True

    def __init__(self, *, each: bool = False) -> None:
        self.each = each

    def cases(self, study: Study, shown: Collection[str]) -> list[Case]:
        """Return one case for each set of sequences about all of which something is known."""
        cases = []
        for sequences in sets_of(shown, each=self.each):
            languages = tuple(
                language
                for language in languages_of_texts(study.labels.captions)
                if set(sequences) <= set(self._captions(study, sequences, language))
            )
            if languages:
                cases.append(replace(self._case(sequences), languages=languages))
        return cases

    def unlabelled_cases(self, study: Study) -> list[Case]:
        """Return one case for each set of sequences."""
        return [self._case(names) for names in sets_of(list(study.series), each=self.each)]

    def _case(self, sequences: list[str]) -> Case:
        key = "+".join(sequences) if self.each else "caption"
        return Case(whole_views(sequences), key=key)

    def _captions(self, study: Study, shown: Collection[str], language: str) -> Mapping[str, str]:
        """Return captions by sequence: the data's own, or ones written from labels."""
        stated = study.labels.captions.get(language)
        if stated:
            return visible_captions(stated, Evidence.of(study, shown))
        return write_captions(visible_labels(study, shown), shown, language, quoted_number)

    def answer(self, study: Study, case: Case, language: str) -> str:
        """Return the captions of the shown sequences, joined."""
        gap = " " if language == "en" else ""
        shown = [view.sequence for view in case.views]
        captions = self._captions(study, shown, language)
        return gap.join(captions[name] for name in shown)

    def score(self, answers: Sequence[AnswerWithTruth]) -> dict[str, Statistic]:
        """Return scores of the findings that the words state, and overlap by language."""
        return finding_scores(answers) | overlap_scores(answers)


class ReportTask(Task):
    """Ask for the structured report: structure, function, LGE, other and impression.

    Args:
        each: Ask for a report on each shown sequence by itself.
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
    is_free_text = True

    def __init__(self, *, each: bool = False, outlined: bool = True) -> None:
        self.each = each
        self.outlined = outlined

    def outline(self, language: str) -> tuple[str, ...]:
        """Return the headings of the sections."""
        return tuple(headings(language)) if self.outlined else ()

    def cases(self, study: Study, shown: Collection[str]) -> list[Case]:
        """Return one case for each set of sequences of which there is something to report.

        A diagnosis alone is nothing to report: all findings would be "not assessed".
        """
        truth = disease_code(study.labels.diseases)
        cases = []
        for names in sets_of(shown, each=self.each):
            languages = tuple(
                language
                for language in languages_of_texts(study.labels.report)
                if states_anything(report_sections(study, names, language), language)
            )
            if languages:
                cases.append(replace(self._case(names, truth), languages=languages))
        return cases

    def unlabelled_cases(self, study: Study) -> list[Case]:
        """Return one case for each set of sequences."""
        return [self._case(names, None) for names in sets_of(list(study.series), each=self.each)]

    def _case(self, sequences: list[str], truth: str | None) -> Case:
        key = "+".join(sequences) if self.each else "report"
        return Case(whole_views(sequences), truth=truth, key=key)

    def answer(self, study: Study, case: Case, language: str) -> str:
        """Return the report on what is shown, without values that the shown sequences cannot give."""
        return join_sections(
            report_sections(study, [view.sequence for view in case.views], language), language
        )

    def score(self, answers: Sequence[AnswerWithTruth]) -> dict[str, Statistic]:
        """Return scores of findings, numbers, sections and the disease in the impression, and overlap."""
        return report_scores(answers, REPORT_SECTIONS)


class SummaryTask(Task):
    """Ask for the impression from the findings of a report, without images."""

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
    is_free_text = True
    leak_terms = DISEASES

    def cases(self, study: Study, shown: Collection[str]) -> list[Case]:
        """Return one case when an impression is known that the findings do not name already."""
        truth = disease_code(study.labels.diseases)
        if truth is None:
            return []
        languages = []
        for language in languages_of_texts(study.labels.report):
            findings = self._findings(study, language)
            # No impression follows from findings none of which is stated.
            is_stated = states_anything(findings, language)
            if is_stated and not leaked(join_sections(findings, language), truth, DISEASES):
                languages.append(language)
        if not languages:
            return []
        return [Case((), truth=truth, key="summary", languages=tuple(languages))]

    def _findings(self, study: Study, language: str) -> dict[str, str]:
        """Return the sections of the report but for the impression."""
        sections = study.labels.report.get(language)
        if not sections:
            sections = write_report(visible_labels(study), list(study.series), language)
        return {name: text for name, text in sections.items() if name != "impression"}

    def fields(self, study: Study, case: Case, language: str) -> Mapping[str, str]:
        """Return the findings of the report; never its impression."""
        return {"report": join_sections(self._findings(study, language), language)}

    def answer(self, study: Study, case: Case, language: str) -> str:
        """Return the impression."""
        assert case.truth is not None
        stated = study.labels.report.get(language, {}).get("impression")
        return stated or disease_names(case.truth, language)

    def score(self, answers: Sequence[AnswerWithTruth]) -> dict[str, Statistic]:
        """Return scores of the diseases named, macro-F1 over the sixteen classes, and overlap."""
        named = ["+".join(terms_named(answer.text, DISEASES)) or None for answer in answers]
        truths = [str(answer.instruction.truth) for answer in answers]
        scores = multi_label_scores(answers, DISEASES)
        scores["macro_f1"] = closed_scores_of(truths, named, list(DISEASES))["macro_f1"]
        return scores | overlap_scores(answers)
