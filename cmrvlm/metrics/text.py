"""Overlap and content scores of generated text, offline, with the tokenizer that fits the language; all from 0 to 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer as RougeTokenizer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from cmrvlm.labels import DISEASES
from cmrvlm.tasks.base import Answer, Score
from cmrvlm.text.parse import terms_named
from cmrvlm.text.report_writer import split_sections

BLEU_TOKENIZERS = {"en": "13a", "zh": "zh"}


class _Words(RougeTokenizer):  # type: ignore[misc]
    """Words for Latin text and single characters for Chinese."""

    def tokenize(self, text: str) -> list[str]:
        spaced = "".join(f" {c} " if not c.isascii() else c for c in text.lower())
        return spaced.split()


def _overlap(answers: Sequence[Answer], language: str) -> dict[str, float]:
    said = [a.text for a in answers]
    truth = [a.instruction.answer for a in answers]
    bleu = BLEU(tokenize=BLEU_TOKENIZERS[language], effective_order=True)
    rouge = RougeScorer(["rougeL"], tokenizer=_Words())
    return {
        "bleu": float(np.mean([bleu.sentence_score(s, [t]).score for s, t in zip(said, truth, strict=True)])) / 100,
        "chrf": float(CHRF().corpus_score(said, [truth]).score) / 100,
        "rouge_l": float(np.mean([rouge.score(t, s)["rougeL"].fmeasure for s, t in zip(said, truth, strict=True)])),
    }


def caption_scores(answers: Sequence[Answer]) -> dict[str, Score]:
    """BLEU, chrF and ROUGE-L, weighted by answers over the languages."""
    names = ("bleu", "chrf", "rouge_l")
    if not answers:
        return {name: Score(None, 0) for name in names}
    totals = dict.fromkeys(names, 0.0)
    for language in BLEU_TOKENIZERS:
        own = [a for a in answers if a.instruction.language == language]
        if own:
            for name, value in _overlap(own, language).items():
                totals[name] += value * len(own)
    return {name: Score(total / len(answers), len(answers)) for name, total in totals.items()}


def report_scores(answers: Sequence[Answer], sections: Sequence[str]) -> dict[str, Score]:
    """Sections present, disease right, and overlap.

    A report is complete when it has every section of the reference, and right when its impression names exactly the
    true diseases; reports on studies without a known disease are not scored on that.
    """
    parsed = [(a, split_sections(a.text), split_sections(a.instruction.answer)) for a in answers]
    n = len(parsed)
    complete = [all(name in said for name in truth) for _, said, truth in parsed]
    known = [(a, said) for a, said, _ in parsed if a.instruction.case.truth is not None]
    named = [set(terms_named(said.get(sections[-1], ""), DISEASES)) == set(str(a.instruction.case.truth).split("+"))
             for a, said in known]  # fmt: skip
    return {
        "sections_present": Score(float(np.mean(complete)) if n else None, n),
        "disease_accuracy": Score(float(np.mean(named)) if named else None, len(named), n - len(named)),
        **caption_scores(answers),
    }
