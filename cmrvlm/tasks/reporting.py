"""Reporting: captions of what is shown, and the structured report."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from cmrvlm.labels import REPORT_SECTIONS
from cmrvlm.metrics.text import caption_scores, report_scores
from cmrvlm.study import Study
from cmrvlm.tasks.base import Answer, Case, Score, Task, whole_views
from cmrvlm.tasks.diagnosis import disease_vector
from cmrvlm.text.report_writer import join_sections, write_report


class CaptionTask(Task):
    """Describe the shown sequences in a sentence each."""

    name = "caption"
    prompts = {
        "en": ("Describe the findings.", "What do these images show?"),
        "zh": ("请描述影像所见。", "这些图像显示了什么？"),
    }

    def cases(self, study: Study, shown: Collection[str]) -> list[Case]:
        """One case when every shown sequence has a caption."""
        captions = study.labels.captions
        if not shown or not captions or any(s not in text for text in captions.values() for s in shown):
            return []
        return [Case(whole_views(shown))]

    def answer(self, study: Study, case: Case, language: str) -> str:
        """The captions of the shown sequences, joined."""
        gap = " " if language == "en" else ""
        return gap.join(study.labels.captions[language][view.sequence] for view in case.views)

    def score(self, answers: Sequence[Answer]) -> dict[str, Score]:
        """BLEU, chrF and ROUGE-L by language."""
        return caption_scores(answers)


class ReportTask(Task):
    """The structured report: structure, function, LGE, other and impression."""

    name = "report"
    prompts = {
        "en": ("Write the report.", "Write a structured report of this study."),
        "zh": ("请撰写报告。", "请写出该检查的结构化报告。"),
    }

    def cases(self, study: Study, shown: Collection[str]) -> list[Case]:
        """One case when a report is known; a study without values to report on has none."""
        if not shown or not study.labels.report:
            return []
        diseases = study.labels.diseases
        return [Case(whole_views(shown), truth=None if diseases is None else "+".join(sorted(diseases)),
                     diseases=None if diseases is None else disease_vector(diseases))]  # fmt: skip

    def answer(self, study: Study, case: Case, language: str) -> str:
        """The report on what is shown: values that the shown sequences cannot give are not in it."""
        known = study.labels
        shown = [view.sequence for view in case.views]
        sections = known.report[language] if set(shown) >= set(study.series) else {}
        if not sections:
            sections = write_report(known, shown, language)
        return join_sections(sections, language)

    def score(self, answers: Sequence[Answer]) -> dict[str, Score]:
        """Sections present, disease named in the impression, and overlap scores."""
        return report_scores(answers, REPORT_SECTIONS)
