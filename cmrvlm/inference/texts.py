"""Put answers about a study into the texts and rounded numbers that a prediction states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cmrvlm.inference.requests import USER_TASK
from cmrvlm.instructions.answer import Answer
from cmrvlm.instructions.read_outs import Vector, quoted_values, without_unshown
from cmrvlm.reports.reader import terms_named
from cmrvlm.reports.visible import visible_text
from cmrvlm.reports.writer import not_assessed, split_sections
from cmrvlm.study.evidence import INSUFFICIENT_SLICES, Evidence
from cmrvlm.study.measurements import MEASUREMENTS
from cmrvlm.study.structures import STRUCTURE_TABLE
from cmrvlm.study.study import Study
from cmrvlm.study.vocabulary import DISEASES, SEQUENCE_TERMS, STRUCTURE_TERMS
from cmrvlm.tasks.mask_requests import structures_asked
from cmrvlm.tasks.reporting import CaptionTask, ReportTask
from cmrvlm.tasks.vqa import VqaOpenTask

LabelMaps = Mapping[str, NDArray[np.uint8]]

# Answers in words about images that may state what they are not asked for.
_FREE_TEXTS = (ReportTask.name, CaptionTask.name, VqaOpenTask.name, USER_TASK)
AnyAnswer = TypeVar("AnyAnswer", bound=Answer)


def limited_to_shown(answer: AnyAnswer, evidence: Evidence) -> AnyAnswer:
    """Return an answer without numbers and statements that the shown series cannot show.

    This is what users get and what evaluations score.

    Args:
        answer: Answer of the model.
        evidence: What the series show that its question shows.
    """
    question = answer.question
    text = answer.text
    if question.task in _FREE_TEXTS:
        text = visible_text(text, evidence, question.language, truncated=answer.truncated)
    return replace(answer, text=text, read_outs=without_unshown(answer.read_outs, evidence))


def each_limited_to_shown(
    answers: Sequence[AnyAnswer], studies: Sequence[Study]
) -> list[AnyAnswer]:
    """Return answers without what the series that each question shows cannot show.

    Args:
        answers: Answers of the model.
        studies: Study of each answer.
    """
    evidence_of: dict[tuple[str, frozenset[str]], Evidence] = {}
    limited = []
    for answer, study in zip(answers, studies, strict=True):
        shown = frozenset(view.sequence for view in answer.question.views)
        key = study.study_id, shown
        if key not in evidence_of:
            evidence_of[key] = Evidence.of(study, shown)
        limited.append(limited_to_shown(answer, evidence_of[key]))
    return limited


def disease_probabilities(read_outs: Mapping[str, Vector]) -> dict[str, float]:
    """Return the probability of each disease by its code; empty without that read-out.

    Args:
        read_outs: Read-out to its values (size,).
    """
    if "disease" not in read_outs:
        return {}
    values = read_outs["disease"]
    return {code: float(value) for code, value in zip(DISEASES, values, strict=True)}


def sentence_of_structure(answer: Answer, label_maps: LabelMaps) -> str:
    """Return the sentence that a structure is where the written mask has it, else that it is not there.

    The answer about the frames that were seen first need not hold for the others, and a scar outside the
    wall, or a zone without reflow outside the scar, is in no mask.

    Args:
        answer: Answer about the structure.
        label_maps: Sequence to the structure values (Z, T, H, W) that are written.
    """
    region = answer.question.region
    assert region is not None
    labels = label_maps.get(region.sequence)
    if labels is None:
        return answer.text
    is_empty = not np.isin(labels, region.values).any()
    return answer.question.words_for_mask(is_empty=is_empty)


def answers_by_structure(question: str, answers: Sequence[Answer]) -> dict[str, Answer]:
    """Return for each structure the answer that counts, where it was looked for on several series.

    That is the series that the question names, or the one that the structure is usually drawn on.

    Args:
        question: Question in a user's words.
        answers: Answers about the study.
    """
    named = terms_named(question, SEQUENCE_TERMS)
    usual: dict[str, Answer] = {}
    other: dict[str, Answer] = {}
    for answer in answers:
        region = answer.question.region
        if region is None or (named and region.sequence not in named):
            continue
        is_usual = region.sequence == STRUCTURE_TABLE[region.structure].usual_sequence
        chosen = usual if is_usual else other
        chosen[region.structure] = answer
    return other | usual


def text_of_structures(
    question: str, answers: Sequence[Answer], label_maps: LabelMaps, language: str
) -> str:
    """Return a sentence for each structure that a question wants masks of; empty when it wants none.

    Args:
        question: Question in a user's words.
        answers: Answers about the study.
        label_maps: Sequence to structure values (Z, T, H, W) that are written.
        language: `en` or `zh`.
    """
    chosen = answers_by_structure(question, answers)
    sentences = []
    for name in structures_asked(question):
        if name in chosen:
            sentences.append(sentence_of_structure(chosen[name], label_maps))
        else:
            term = STRUCTURE_TERMS[name].name(language)
            sentences.append(f"{term}: {not_assessed(language)}")
    return " ".join(sentences)


def report_texts(report: Answer, disease: Answer, evidence: Evidence) -> dict[str, Any]:
    """Return report, diagnosis, probabilities and numbers as `prediction.json` states them, rounded.

    Args:
        report: Answer to the report task.
        disease: Answer to the disease task, with the read-outs.
        evidence: What the series of the study show.
    """
    texts: dict[str, Any] = {
        "report": report.text,
        "sections": split_sections(report.text, truncated=report.truncated),
        "disease": disease.text,
    }
    if not disease.read_outs:
        return texts
    probabilities = disease_probabilities(disease.read_outs)
    texts["probabilities"] = {code: round(value, 4) for code, value in probabilities.items()}
    numbers = quoted_values(disease.read_outs)
    texts["measurements"] = {name: round(value, 1) for name, value in numbers.items()}
    withheld = [name for name in MEASUREMENTS if name not in numbers]
    if withheld:
        texts["not_computable"] = {
            name: evidence.why_not(name) or INSUFFICIENT_SLICES for name in withheld
        }
    return texts
