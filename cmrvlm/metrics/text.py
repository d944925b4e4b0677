"""Overlap and content scores of generated text, offline, with the tokenizer that fits the language; all from 0 to 1."""

from __future__ import annotations

from collections.abc import Sequence

import nltk
from nltk.translate.meteor_score import meteor_score
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer as RougeTokenizer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from cmrvlm.metrics.agreement import agreement_scores
from cmrvlm.metrics.classification import named_exactly
from cmrvlm.metrics.statistic import Among, Mean, Ratio, Statistic
from cmrvlm.reports.findings import findings_stated
from cmrvlm.reports.numbers import numbers_stated
from cmrvlm.reports.writer import CUT, split_sections
from cmrvlm.study.vocabulary import DISEASES
from cmrvlm.tasks.base import Answer

BLEU_TOKENIZERS = {"en": "13a", "zh": "zh"}
REPORTED_NUMBERS = ("lvef_percent", "lvedv_ml")


class _Words(RougeTokenizer):  # type: ignore[misc]
    """Words for Latin text and single characters for Chinese."""

    def tokenize(self, text: str) -> list[str]:
        spaced = "".join(f" {c} " if not c.isascii() else c for c in text.lower())
        return spaced.split()


def meteor_missing() -> str | None:
    """Why METEOR cannot be computed here, None when it can: it needs WordNet, which nothing downloads by itself."""
    try:
        nltk.data.find("corpora/wordnet.zip")
    except LookupError:
        return "WordNet is not on this machine; nltk.download('wordnet') fetches it"
    return None


def overlap_scores(answers: Sequence[Answer]) -> dict[str, Statistic]:
    """Means over answers of sentence BLEU (effective order), chrF, ROUGE-L and METEOR (undefined without WordNet).

    Over all answers, and for each language by itself (`bleu_en`, `bleu_zh`): their tokenizers differ, so that values of
    one language say nothing about those of the other. METEOR knows synonyms of English words only.
    """
    rouge = RougeScorer(["rougeL"], tokenizer=_Words())
    bleu = {
        language: BLEU(tokenize=name, effective_order=True)
        for language, name in BLEU_TOKENIZERS.items()
    }
    chrf, words = CHRF(), _Words()
    columns: dict[str, list[float | None]] = {"bleu": [], "chrf": [], "rouge_l": [], "meteor": []}
    with_meteor = meteor_missing() is None
    for one in answers:
        said, truth = one.compared()
        columns["bleu"].append(
            bleu[one.instruction.language].sentence_score(said, [truth]).score / 100
        )
        columns["chrf"].append(chrf.sentence_score(said, [truth]).score / 100)
        columns["rouge_l"].append(rouge.score(truth, said)["rougeL"].fmeasure)
        columns["meteor"].append(
            meteor_score([words.tokenize(truth)], words.tokenize(said)) if with_meteor else None
        )
    scores: dict[str, Statistic] = {name: Mean(values) for name, values in columns.items()}
    for language in BLEU_TOKENIZERS:
        rows = [row for row, one in enumerate(answers) if one.instruction.language == language]
        scores |= {
            f"{name}_{language}": Among(Mean([values[row] for row in rows]), rows, len(answers))
            for name, values in columns.items()
        }
    return scores


def finding_scores(answers: Sequence[Answer]) -> dict[str, Statistic]:
    """Precision, recall and F1 of the abnormal findings that texts state, over all answers together.

    Findings are read from the answer and from the reference by the same reader; what the reference does not call
    abnormal is a false alarm in the answer.
    """
    hits, said_counts, true_counts = [], [], []
    for one in answers:
        said = {code for code, abnormal in findings_stated(one.text).items() if abnormal}
        truth = {
            code
            for code, abnormal in findings_stated(one.instruction.reference).items()
            if abnormal
        }
        hits.append(float(len(said & truth)))
        said_counts.append(float(len(said)))
        true_counts.append(float(len(truth)))
    return {
        "finding_f1": Ratio(
            [2 * h for h in hits], [s + t for s, t in zip(said_counts, true_counts, strict=True)]
        ),
        "finding_precision": Ratio(hits, said_counts),
        "finding_recall": Ratio(hits, true_counts),
    }


def report_scores(answers: Sequence[Answer], sections: Sequence[str]) -> dict[str, Statistic]:
    """Sections present, disease right, findings, numbers, and overlap.

    A report is complete when it has every section of the reference, and right when its impression names exactly the
    true diseases; reports on studies without a known disease are not scored on that. The section in which a report was
    cut off counts as absent.
    """
    said = [split_sections(a.text, truncated=a.truncated) for a in answers]
    truth = [split_sections(a.instruction.reference) for a in answers]
    complete = [float(all(name in s for name in t)) for s, t in zip(said, truth, strict=True)]
    named = [
        named_exactly(s.get(sections[-1], ""), a.instruction.case.truth, DISEASES)
        for a, s in zip(answers, said, strict=True)
    ]
    numbers: dict[str, Statistic] = {}
    for name in REPORTED_NUMBERS:
        pairs = [
            (numbers_stated(a.text).get(name), numbers_stated(a.instruction.reference).get(name))
            for a in answers
        ]
        scores = agreement_scores([p[0] for p in pairs], [p[1] for p in pairs], name)
        numbers |= {key: one for key, one in scores.items() if "_mae_" in key}
    return {
        **finding_scores(answers),
        "disease_accuracy": Mean(named),
        "sections_present": Mean(complete),
        "truncated_share": Mean([float(a.truncated or CUT in a.text) for a in answers]),
        **numbers,
        **overlap_scores(answers),
    }
