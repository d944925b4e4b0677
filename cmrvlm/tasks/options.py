"""Choose the options of multiple-choice questions, so that exactly one of them is right."""

from __future__ import annotations

from collections.abc import Collection

from cmrvlm.study.study import StudyLabels
from cmrvlm.tasks.questions import LabelQuestion

CHOICES = 4
# Diseases that look alike, as many as there are choices: any option is right equally often, none is the odd one out.
LOOK_ALIKE = (
    ("DCM", "LVNC", "CSD", "MI"),
    ("HCM", "HHD", "CA", "TTC"),
    ("ACM", "PH", "CHD", "VHD"),
    ("MYOC", "PERI", "TUM", "NOR"),
)


def distractors(question: LabelQuestion, truth: str, labels: StudyLabels) -> list[str]:
    """Return wrong options that are plausible; none when the question is not to be asked with options.

    For diseases those are look-alikes; for abnormal findings those that are stated to be normal, since
    others could be right too; for everything else all other terms that could be right in another study.

    Args:
        question: What is asked.
        truth: Code of the right answer.
        labels: Labels of the study.
    """
    if truth == question.absent:
        return []
    others = [code for code in question.terms if code not in (truth, question.absent)]
    if question.key == "abnormal_finding":
        return [code for code in others if labels.findings.get(code) is False]
    if question.key == "diagnosis":
        look_alikes = next(group for group in LOOK_ALIKE if truth in group)
        return [code for code in look_alikes if code != truth]
    return others


def right_option(
    question: LabelQuestion, offered: Collection[str], labels: StudyLabels
) -> str | None:
    """Return the one offered code that is right for a study; None when none or several are, or it is unknown.

    Args:
        question: What is asked.
        offered: Codes of the options.
        labels: Labels of the study.
    """
    if question.key == "abnormal_finding":
        stated = [labels.findings.get(code) for code in offered]
        right = [code for code in offered if labels.findings.get(code)]
        if len(right) == 1 and None not in stated:
            return right[0]
        return None
    truth = question.truth(labels)
    return truth if truth in offered else None
