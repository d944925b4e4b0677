"""Overlap and content scores of generated text, offline, all from 0 to 1.

BLEU and ROUGE take the tokenizer that fits the language.
"""

from __future__ import annotations

from collections.abc import Sequence

import nltk
from nltk.translate.meteor_score import meteor_score
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer as RougeTokenizer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from cmrvlm.instructions.answer import AnswerWithTruth
from cmrvlm.metrics.agreement import agreement_scores
from cmrvlm.metrics.classification import named_exactly
from cmrvlm.metrics.statistic import Among, Mean, Ratio, Statistic
from cmrvlm.reports.findings import findings_stated
from cmrvlm.reports.numbers import numbers_stated
from cmrvlm.reports.writer import CUT, split_sections
from cmrvlm.study.vocabulary import DISEASES

BLEU_TOKENIZERS = {"en": "13a", "zh": "zh"}
REPORTED_NUMBERS = ("lvef_percent", "lvedv_ml")


class _Words(RougeTokenizer):  # type: ignore[misc]
    """Tokenizer into words for Latin text and into single characters for Chinese."""

    def tokenize(self, text: str) -> list[str]:
        """Return the lower-case tokens of a text."""
        spaced = "".join(f" {char} " if not char.isascii() else char for char in text.lower())
        return spaced.split()


class _OverlapScorer:
    """Sentence scores of a text against its reference."""

    def __init__(self) -> None:
        self.words = _Words()
        self.rouge = RougeScorer(["rougeL"], tokenizer=self.words)
        self.chrf = CHRF()
        self.bleu = {
            language: BLEU(tokenize=name, effective_order=True)
            for language, name in BLEU_TOKENIZERS.items()
        }
        self.has_meteor = meteor_missing() is None

    def scores(self, predicted: str, truth: str, language: str) -> dict[str, float | None]:
        """Return the scores of a text by name; None where one cannot be computed."""
        bleu = self.bleu[language].sentence_score(predicted, [truth])
        chrf = self.chrf.sentence_score(predicted, [truth])
        rouge = self.rouge.score(truth, predicted)["rougeL"]
        meteor = None
        if self.has_meteor:
            meteor = meteor_score([self.words.tokenize(truth)], self.words.tokenize(predicted))
        return {
            "bleu": bleu.score / 100,
            "chrf": chrf.score / 100,
            "rouge_l": rouge.fmeasure,
            "meteor": meteor,
        }


def meteor_missing() -> str | None:
    """Return why METEOR cannot be computed here, None when it can.

    It needs WordNet, which nothing downloads by itself.
    """
    try:
        nltk.data.find("corpora/wordnet.zip")
    except LookupError:
        return "WordNet is not on this machine; nltk.download('wordnet') fetches it"
    return None


def overlap_scores(answers: Sequence[AnswerWithTruth]) -> dict[str, Statistic]:
    """Return the means of sentence BLEU (effective order), chrF, ROUGE-L and METEOR.

    They are over all answers, and over those of each language (`bleu_en`, `bleu_zh`): the
    tokenizers differ, so that values of one language say nothing about those of the other. METEOR
    knows synonyms of English words only, and is undefined without WordNet.
    """
    scorer = _OverlapScorer()
    columns: dict[str, list[float | None]] = {"bleu": [], "chrf": [], "rouge_l": [], "meteor": []}
    for answer in answers:
        predicted, truth = answer.compared_texts()
        values = scorer.scores(predicted, truth, answer.instruction.language)
        for name, column in columns.items():
            column.append(values[name])

    scores: dict[str, Statistic] = {name: Mean(column) for name, column in columns.items()}
    languages = [answer.instruction.language for answer in answers]
    for language in BLEU_TOKENIZERS:
        rows = [row for row, of_answer in enumerate(languages) if of_answer == language]
        for name, column in columns.items():
            mean = Mean([column[row] for row in rows])
            scores[f"{name}_{language}"] = Among(mean, rows, len(answers))
    return scores


def finding_scores(answers: Sequence[AnswerWithTruth]) -> dict[str, Statistic]:
    """Return precision, recall and F1 of the abnormal findings that texts state.

    Findings of all answers are pooled. They are read from the answer and from the reference by the
    same reader; what the reference does not call abnormal is a false alarm in the answer.
    """
    hits = []
    predicted_counts = []
    true_counts = []
    for answer in answers:
        predicted = _abnormal_findings(answer.text)
        truth = _abnormal_findings(answer.instruction.reference)
        hits.append(float(len(predicted & truth)))
        predicted_counts.append(float(len(predicted)))
        true_counts.append(float(len(truth)))
    twice_hits = [2 * count for count in hits]
    both_counts = [p + t for p, t in zip(predicted_counts, true_counts, strict=True)]
    return {
        "finding_f1": Ratio(twice_hits, both_counts),
        "finding_precision": Ratio(hits, predicted_counts),
        "finding_recall": Ratio(hits, true_counts),
    }


def _abnormal_findings(text: str) -> set[str]:
    """Return the codes of the findings that a text calls abnormal."""
    return {code for code, abnormal in findings_stated(text).items() if abnormal}


def report_scores(
    answers: Sequence[AnswerWithTruth], sections: Sequence[str]
) -> dict[str, Statistic]:
    """Return the scores of structured reports: sections, disease, findings, numbers and overlap.

    A report is complete when it has every section of the reference, and right when its impression
    names exactly the true diseases; reports on studies without a known disease are not scored on
    that. The section in which a report was cut off counts as absent.

    Args:
        answers: Reports.
        sections: Names of the sections in their order; the last one is the impression.
    """
    complete = []
    diseases_right = []
    truncated = []
    for answer in answers:
        report = split_sections(answer.text, truncated=answer.truncated)
        reference = split_sections(answer.instruction.reference)
        complete.append(float(reference.keys() <= report.keys()))
        impression = report.get(sections[-1], "")
        true_diseases = answer.instruction.truth
        diseases_right.append(named_exactly(impression, true_diseases, DISEASES))
        truncated.append(float(answer.truncated or CUT in answer.text))
    return {
        **finding_scores(answers),
        "disease_accuracy": Mean(diseases_right),
        "sections_present": Mean(complete),
        "truncated_share": Mean(truncated),
        **_number_errors(answers),
        **overlap_scores(answers),
    }


def _number_errors(answers: Sequence[AnswerWithTruth]) -> dict[str, Statistic]:
    """Return the mean absolute error of each reported number, read from the texts."""
    predicted = [numbers_stated(answer.text) for answer in answers]
    truth = [numbers_stated(answer.instruction.reference) for answer in answers]
    errors = {}
    for name in REPORTED_NUMBERS:
        scores = agreement_scores(
            [numbers.get(name) for numbers in predicted],
            [numbers.get(name) for numbers in truth],
            name,
        )
        base, unit = name.rsplit("_", 1)
        error = f"{base}_mae_{unit}"
        errors[error] = scores[error]
    return errors
