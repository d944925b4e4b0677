"""Scores of closed questions and of class vectors. What is not defined is None and counted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from cmrvlm.instructions.answer import AnswerWithTruth
from cmrvlm.metrics.statistic import (
    Among,
    Auroc,
    AveragePrecision,
    CalibrationError,
    Distribution,
    Mean,
    MeanOf,
    Ratio,
    Statistic,
)
from cmrvlm.reports.reader import single_term, terms_named
from cmrvlm.study.vocabulary import Term


def macro_f1(
    truths: Sequence[str], predicted: Sequence[str | None], classes: Sequence[str]
) -> Statistic:
    """Return the mean F1 over the classes that occur among the truths.

    Args:
        truths: True class of each answer.
        predicted: Class that each answer names, None where it names none.
        classes: All classes; those that do not occur are counted as undefined.
    """
    true_sets = [{code} for code in truths]
    predicted_sets: list[set[str]] = []
    for code in predicted:
        predicted_sets.append(set() if code is None else {code})
    return multi_label_macro_f1(true_sets, predicted_sets, classes)


def multi_label_macro_f1(
    truths: Sequence[Collection[str]],
    predicted: Sequence[Collection[str]],
    classes: Sequence[str],
) -> Statistic:
    """Return the mean F1 over the classes that occur among the true sets.

    Args:
        truths: True classes of each answer.
        predicted: Classes that each answer names.
        classes: All classes; those that do not occur are counted as undefined.
    """
    occurring = [code for code in classes if any(code in truth for truth in truths)]
    f1_of_classes = [_f1(truths, predicted, code) for code in occurring]
    return MeanOf(f1_of_classes, extra_undefined=len(classes) - len(occurring))


def _f1(
    truths: Sequence[Collection[str]], predicted: Sequence[Collection[str]], code: str
) -> Statistic:
    """Return the F1 of one class: 2 TP over 2 TP + FP + FN."""
    numerators = []
    denominators = []
    for true_codes, predicted_codes in zip(truths, predicted, strict=True):
        is_true = code in true_codes
        is_predicted = code in predicted_codes
        numerators.append(2.0 * (is_true and is_predicted))
        denominators.append(float(is_true) + float(is_predicted))
    return Ratio(numerators, denominators)


def closed_scores_of(
    truths: Sequence[str], predicted: Sequence[str | None], classes: Sequence[str]
) -> dict[str, Statistic]:
    """Return the scores of answers that name one class each.

    Beside accuracy and macro-F1, they show whether the answers collapse: the entropy of the answers
    against that of the truths, and the share of the most frequent answer.

    Args:
        truths: True class of each answer.
        predicted: Class that each answer names; None where it names none, or several: it is wrong.
        classes: All classes.
    """
    correct = [float(truth == code) for truth, code in zip(truths, predicted, strict=True)]
    return {
        "accuracy": Mean(correct),
        "macro_f1": macro_f1(truths, predicted, classes),
        "unparsed_share": Mean([float(code is None) for code in predicted]),
        "answer_entropy_bits": Distribution(predicted, "entropy"),
        "truth_entropy_bits": Distribution(list(truths), "entropy"),
        "top_answer_share": Distribution(predicted, "top_share"),
    }


def closed_scores(
    answers: Sequence[AnswerWithTruth], terms: Mapping[str, Term]
) -> dict[str, Statistic]:
    """Return the scores of questions with one right term, read from the words of the answers."""
    truths = [str(answer.instruction.truth) for answer in answers]
    predicted = [single_term(answer.text, terms) for answer in answers]
    return closed_scores_of(truths, predicted, list(terms))


def named_exactly(text: str, truth: str | None, terms: Mapping[str, Term]) -> float | None:
    """Return 1 where a text names exactly the true terms and 0 elsewhere.

    Args:
        text: Text of an answer.
        truth: True codes joined by `+`; None where unknown, which gives None.
        terms: Code to term.
    """
    if truth is None:
        return None
    return float(set(terms_named(text, terms)) == set(truth.split("+")))


def multi_label_scores(
    answers: Sequence[AnswerWithTruth], terms: Mapping[str, Term]
) -> dict[str, Statistic]:
    """Return the scores of answers that name a set of terms in words.

    They are the share that names exactly the true set, the mean F1 of the terms, and how far the
    answers collapse.

    Args:
        answers: Answers whose truth joins codes with `+`.
        terms: Code to term.
    """
    truths = [answer.instruction.truth for answer in answers]
    predicted = [set(terms_named(answer.text, terms)) for answer in answers]
    joined = ["+".join(code for code in terms if code in codes) or None for codes in predicted]

    rows_with_truth = [row for row, truth in enumerate(truths) if truth is not None]
    macro = multi_label_macro_f1(
        [set(str(truths[row]).split("+")) for row in rows_with_truth],
        [predicted[row] for row in rows_with_truth],
        list(terms),
    )
    exact = [
        named_exactly(answer.text, truth, terms)
        for answer, truth in zip(answers, truths, strict=True)
    ]
    return {
        "text_accuracy": Mean(exact),
        "text_macro_f1": Among(macro, rows_with_truth, len(answers)),
        "answer_entropy_bits": Distribution(joined, "entropy"),
        "truth_entropy_bits": Distribution(truths, "entropy"),
        "top_answer_share": Distribution(joined, "top_share"),
    }


def class_vector_scores(
    answers: Sequence[AnswerWithTruth], classes: Sequence[str], read_out: str
) -> dict[str, Statistic]:
    """Return AUROC, AUPRC and calibration of class probabilities, each class against the rest.

    A class without positives or without negatives has no area: None, and counted in the macro's
    `undefined`. Answers without probabilities (nothing was shown) are undefined too.

    Args:
        answers: Answers whose truth joins codes with `+`.
        classes: Codes in the order of the read-out's values.
        read_out: Read-out that holds the probabilities.
    """
    truths = [answer.instruction.truth for answer in answers]
    areas: dict[str, Statistic] = {}
    precisions: dict[str, Statistic] = {}
    calibration: list[Statistic] = []
    for index, code in enumerate(classes):
        truth = [_has_code(joined_codes, code) for joined_codes in truths]
        probability = [_read_out_value(answer, read_out, index) for answer in answers]
        areas[f"auroc_{code}"] = Auroc(truth, probability)
        precisions[f"auprc_{code}"] = AveragePrecision(truth, probability)
        calibration.append(CalibrationError(truth, probability))
    return {
        "macro_auroc": MeanOf(list(areas.values())),
        "macro_auprc": MeanOf(list(precisions.values())),
        "calibration_error": MeanOf(calibration),
        **areas,
        **precisions,
    }


def _has_code(joined_codes: str | None, code: str) -> bool | None:
    """Tell whether a code is among those joined by `+`; None where they are unknown."""
    if joined_codes is None:
        return None
    return code in joined_codes.split("+")


def _read_out_value(answer: AnswerWithTruth, read_out: str, index: int) -> float | None:
    """Return a value of an answer's read-out; None where the answer has no such read-out."""
    if read_out not in answer.read_outs:
        return None
    return float(answer.read_outs[read_out][index])
