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
    truths: Sequence[str], said: Sequence[str | None], classes: Sequence[str]
) -> Statistic:
    """Mean F1 over the classes that occur among the truths; the others of the fixed list are counted as undefined."""
    return multi_label_macro_f1(
        [{one} for one in truths], [set() if one is None else {one} for one in said], classes
    )


def multi_label_macro_f1(
    truths: Sequence[Collection[str]], said: Sequence[Collection[str]], classes: Sequence[str]
) -> Statistic:
    """Mean F1 over the classes that occur among the true sets; the others of the fixed list are undefined."""
    occurring = [code for code in classes if any(code in truth for truth in truths)]
    parts = []
    for code in occurring:
        pairs = [(code in truth, code in own) for truth, own in zip(truths, said, strict=True)]
        parts.append(
            Ratio([2.0 * (t and s) for t, s in pairs], [float(t) + float(s) for t, s in pairs])
        )
    return MeanOf(parts, extra_undefined=len(classes) - len(occurring))


def closed_scores_of(
    truths: Sequence[str], said: Sequence[str | None], classes: Sequence[str]
) -> dict[str, Statistic]:
    """Scores of answers that name one class each; None is an answer that names none, or several, and is wrong.

    Beside accuracy and macro-F1, what answers collapse to: the entropy of the answers against that of the truths, and
    the share of the most frequent answer.
    """
    return {
        "accuracy": Mean([float(t == s) for t, s in zip(truths, said, strict=True)]),
        "macro_f1": macro_f1(truths, said, classes),
        "unparsed_share": Mean([float(s is None) for s in said]),
        "answer_entropy_bits": Distribution(said, "entropy"),
        "truth_entropy_bits": Distribution(list(truths), "entropy"),
        "top_answer_share": Distribution(said, "top_share"),
    }


def closed_scores(
    answers: Sequence[AnswerWithTruth], terms: Mapping[str, Term]
) -> dict[str, Statistic]:
    """Scores of questions with one right term, read from the words of the answers."""
    truths = [str(a.instruction.truth) for a in answers]
    return closed_scores_of(truths, [single_term(a.text, terms) for a in answers], list(terms))


def named_exactly(text: str, truth: str | None, terms: Mapping[str, Term]) -> float | None:
    """1 when the text names exactly the true set of terms (`+` joins codes); None when the truth is unknown."""
    return None if truth is None else float(set(terms_named(text, terms)) == set(truth.split("+")))


def multi_label_scores(
    answers: Sequence[AnswerWithTruth], terms: Mapping[str, Term]
) -> dict[str, Statistic]:
    """Share of answers whose text names exactly the true set of terms, F1 by term, and what answers collapse to."""
    sets = [set(terms_named(a.text, terms)) for a in answers]
    said = ["+".join(code for code in terms if code in own) or None for own in sets]
    truths = [a.instruction.truth for a in answers]
    known = [row for row, truth in enumerate(truths) if truth is not None]
    macro = multi_label_macro_f1(
        [set(str(truths[row]).split("+")) for row in known],
        [sets[row] for row in known],
        list(terms),
    )
    return {
        "text_accuracy": Mean([named_exactly(a.text, a.instruction.truth, terms) for a in answers]),
        "text_macro_f1": Among(macro, known, len(answers)),
        "answer_entropy_bits": Distribution(said, "entropy"),
        "truth_entropy_bits": Distribution(truths, "entropy"),
        "top_answer_share": Distribution(said, "top_share"),
    }


def class_vector_scores(
    answers: Sequence[AnswerWithTruth], classes: Sequence[str], head: str
) -> dict[str, Statistic]:
    """AUROC and AUPRC of each class against the rest, their means over the defined classes, and calibration.

    A class without positives or without negatives has no area: None, and counted in the macro's `undefined`. Answers
    without probabilities (nothing was shown) are undefined too.

    Args:
        answers: Answers whose truth joins codes with `+`.
        classes: Codes in the order of the head's outputs.
        head: Read-out that holds the probabilities.
    """
    truths = [a.instruction.truth for a in answers]
    areas: dict[str, Statistic] = {}
    precisions: dict[str, Statistic] = {}
    calibration: list[Statistic] = []
    for index, code in enumerate(classes):
        truth = [None if t is None else code in t.split("+") for t in truths]
        guess = [float(a.read_outs[head][index]) if head in a.read_outs else None for a in answers]
        areas[f"auroc_{code}"] = Auroc(truth, guess)
        precisions[f"auprc_{code}"] = AveragePrecision(truth, guess)
        calibration.append(CalibrationError(truth, guess))
    return {
        "macro_auroc": MeanOf(list(areas.values())),
        "macro_auprc": MeanOf(list(precisions.values())),
        "calibration_error": MeanOf(calibration),
        **areas,
        **precisions,
    }
