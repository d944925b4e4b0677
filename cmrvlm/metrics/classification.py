"""Scores of closed questions and of class vectors. What is not defined is None and counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.metrics import f1_score, roc_auc_score

from cmrvlm.labels import Term
from cmrvlm.tasks.base import Answer, Score
from cmrvlm.text.parse import single_term, terms_named


def closed_scores(answers: Sequence[Answer], terms: Mapping[str, Term]) -> dict[str, Score]:
    """Accuracy, macro-F1 and unparsed share for questions with one right term.

    An answer that names no term, or several, is wrong and counted as unparsed. Macro-F1 runs over the classes that
    occur among the truths; the others are counted as undefined.
    """
    n = len(answers)
    if n == 0:
        return {name: Score(None, 0) for name in ("accuracy", "macro_f1", "unparsed_share")}
    truths = [str(a.instruction.case.truth) for a in answers]
    said = [single_term(a.text, terms) or "" for a in answers]
    classes = [code for code in terms if code in truths]
    f1 = f1_score(truths, said, labels=classes, average="macro", zero_division=0.0)
    accuracy = float(np.mean([t == s for t, s in zip(truths, said, strict=True)]))
    return {
        "accuracy": Score(accuracy, n),
        "macro_f1": Score(float(f1), n, undefined=len(terms) - len(classes)),
        "unparsed_share": Score(sum(s == "" for s in said) / n, n),
    }


def multi_label_scores(answers: Sequence[Answer], terms: Mapping[str, Term]) -> dict[str, Score]:
    """Share of answers whose text names exactly the true set of terms (`+` joins codes in the truth)."""
    known = [a for a in answers if a.instruction.case.truth is not None]
    if not known:
        return {"text_accuracy": Score(None, 0, undefined=len(answers))}
    right = [set(terms_named(a.text, terms)) == set(str(a.instruction.case.truth).split("+")) for a in known]
    return {"text_accuracy": Score(float(np.mean(right)), len(known), undefined=len(answers) - len(known))}


def auroc_scores(answers: Sequence[Answer], classes: Mapping[str, Term]) -> dict[str, Score]:
    """One-against-rest area under the ROC curve for each class, and their mean over the defined ones.

    A class without positives or without negatives has no area: None, and counted. Answers without probabilities (no
    image to read) are counted as undefined too.
    """
    scored = [a for a in answers if a.probabilities is not None and a.instruction.case.diseases is not None]
    left_out = len(answers) - len(scored)
    result: dict[str, Score] = {}
    values = []
    for index, code in enumerate(classes):
        truth = [a.instruction.case.diseases[index] for a in scored if a.instruction.case.diseases is not None]
        if len(set(truth)) < 2:
            result[f"auroc_{code}"] = Score(None, len(scored), undefined=left_out)
            continue
        guess = [float(a.probabilities[index]) for a in scored if a.probabilities is not None]
        values.append(float(roc_auc_score(truth, guess)))
        result[f"auroc_{code}"] = Score(values[-1], len(scored), undefined=left_out)
    macro = float(np.mean(values)) if values else None
    return {"macro_auroc": Score(macro, len(scored), undefined=len(classes) - len(values)), **result}
