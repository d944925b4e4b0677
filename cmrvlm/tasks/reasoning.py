"""Reasoning: abnormal findings, multiple choice, and open questions."""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from cmrvlm.metrics.classification import closed_scores_of
from cmrvlm.metrics.statistic import (
    Among,
    Auroc,
    AveragePrecision,
    CalibrationError,
    Mean,
    MeanOf,
    Statistic,
)
from cmrvlm.metrics.text import overlap_scores
from cmrvlm.reports.reader import terms_named
from cmrvlm.study.measurements import MEASUREMENTS
from cmrvlm.study.study import Study
from cmrvlm.study.vocabulary import FINDING_SEQUENCES, FINDINGS, Term
from cmrvlm.tasks.base import Answer, Case, Instruction, Task, whole_views
from cmrvlm.tasks.perception import ClosedTask
from cmrvlm.tasks.questions import BY_KEY, CHOICES, QUESTIONS, distractors, right_option

YES_NO = {"yes": Term("yes", "yes", "是"), "no": Term("no", "no", "否")}
LETTERS = "ABCDEFGH"
_MEASURED = {one.finding for one in MEASUREMENTS.values()} | {"wall_motion"}
_MARKED = re.compile(r"[(（]\s*([A-H])\s*[)）]")
_LEADING = re.compile(r"^\W*([A-H])(?![A-Za-z])")


class AbnormalityTask(ClosedTask):
    """Is one of the 23 findings abnormal? A finding that is not stated is never asked."""

    name = "abnormality"
    terms = YES_NO
    prompts = {
        "en": (
            "Is there {name}?",
            "Does this study show {name}?",
            "Do you see {name}?",
            "Does the patient have {name}?",
            "Check for {name}.",
        ),
        "zh": (
            "是否存在{name}？",
            "该检查是否显示{name}？",
            "能否看到{name}？",
            "患者有无{name}？",
            "请判断有无{name}。",
        ),
    }
    balanced = True  # most findings are normal in most studies
    paraphrases = {"en": ("Would you report {name} here?",), "zh": ("您会在此报告{name}吗？",)}
    answers = {"en": "{name}.", "zh": "{name}。"}

    def cases(self, study: Study, shown: Collection[str]) -> list[Case]:
        """Each stated finding that a shown sequence shows."""
        return [
            Case(whole_views(shown), truth="yes" if abnormal else "no", key=code)
            for code in FINDINGS
            if (abnormal := study.labels.findings.get(code)) is not None
            and set(FINDING_SEQUENCES[code]) & set(shown)
        ]

    def fields(self, study: Study, case: Case, language: str) -> Mapping[str, str]:
        """What is asked: "an abnormal LV ejection fraction", "thrombus"."""
        name = FINDINGS[case.key].name(language)
        if case.key in _MEASURED:
            name = f"{name}异常" if language == "zh" else f"an abnormal {name}"
        return {"name": name}

    def probabilities(self, answer: Answer) -> list[float] | None:
        """That the finding is abnormal; None when no whole series was shown."""
        if "findings" not in answer.read_outs:
            return None
        return [
            float(answer.read_outs["findings"][list(FINDINGS).index(answer.instruction.case.key)])
        ]

    def score(self, answers: Sequence[Answer]) -> dict[str, Statistic]:
        """Scores of the words, and areas and calibration of the findings' probabilities."""
        codes = list(FINDINGS)
        areas, precisions = {}, []
        truth: list[bool | None] = [a.instruction.case.truth == "yes" for a in answers]
        guess = [None if (said := self.probabilities(a)) is None else said[0] for a in answers]
        for code in codes:
            rows = [row for row, a in enumerate(answers) if a.instruction.case.key == code]
            own = [truth[row] for row in rows], [guess[row] for row in rows]
            areas[f"auroc_{code}"] = Among(Auroc(*own), rows, len(answers))
            precisions.append(Among(AveragePrecision(*own), rows, len(answers)))
        return {
            **super().score(answers),
            "macro_auroc": MeanOf(list(areas.values())),
            "macro_auprc": MeanOf(precisions),
            "calibration_error": CalibrationError(truth, guess),
            **areas,
        }


def letter_said(text: str) -> str | None:
    """The letter that an answer chooses: the one in brackets, or one at the start; None when there is no single one."""
    marked = set(_MARKED.findall(text))
    if marked:
        return marked.pop() if len(marked) == 1 else None
    leading = _LEADING.match(text)
    return leading[1] if leading else None


def _means_by(
    names: Sequence[str], values: Sequence[float], wanted: Sequence[str]
) -> dict[str, Statistic]:
    """Mean of the values of each kind of answer."""
    found: dict[str, Statistic] = {}
    for name in wanted:
        rows = [row for row, one in enumerate(names) if one == name]
        found[f"accuracy_{name}"] = Among(Mean([values[row] for row in rows]), rows, len(names))
    return found


class VqaClosedTask(Task):
    """Multiple choice. Options are shuffled by the instruction's own seed; the answer is one, with its letter.

    Questions come from labels and, where the data brings closed ones, from the data.
    """

    name = "vqa_closed"
    prompts = {"en": ("{question} {options}",), "zh": ("{question}{options}",)}
    paraphrases = prompts  # the question itself is what is paraphrased
    primary = "accuracy"

    def cases(self, study: Study, shown: Collection[str]) -> list[Case]:
        """Each question that labels answer and the shown sequences can show."""
        views = whole_views(shown)
        found = [
            Case(views, truth=truth, key=one.key)
            for one in QUESTIONS
            if one.askable(shown)
            and (truth := one.truth(study.labels)) is not None
            and distractors(one, truth, study.labels)
        ]
        return found + [
            Case(views, truth=one.answer, key=one.prompt, question=one)
            for one in study.labels.questions
            if one.options and views and set(one.sequences) <= set(shown)
        ]

    def answer(self, study: Study, case: Case, language: str) -> str:
        """The right option without its letter, which depends on the shuffle; `word` adds it."""
        assert case.truth is not None
        return case.truth if case.question else BY_KEY[case.key].terms[case.truth].name(language)

    def word(
        self,
        study: Study,
        case: Case,
        language: str,
        wording: int = 0,
        *,
        paraphrased: bool = False,
    ) -> Instruction:
        """The question with shuffled options, and the right one with its letter as the answer."""
        language = case.question.language if case.question else language
        right = self.answer(study, case, language)
        options, question = self._options(study, case, language, wording), ""
        if case.question:
            question = case.question.prompt
        else:
            question = BY_KEY[case.key].question(language, wording, paraphrased=paraphrased)
        form, joint, stop = ("{} ({})", "; ", ".") if language == "en" else ("{}（{}）", "；", "。")
        # The letter stands behind the option, as in the answer: which is then a part of the prompt, word for word.
        listed = [form.format(name, letter) for letter, name in zip(LETTERS, options, strict=False)]
        prompt = self.prompts[language][0].format(question=question, options=joint.join(listed))
        said = listed[options.index(right)] + stop
        return Instruction(
            study.study_id,
            self.name,
            language,
            prompt,
            said,
            case,
            options=tuple(options),
            allowed=tuple(one + stop for one in listed),
        )

    def _options(self, study: Study, case: Case, language: str, wording: int) -> list[str]:
        rng = np.random.default_rng([zlib.crc32(f"{study.study_id}/{case.key}".encode()), wording])
        if case.question:
            names = list(case.question.options)
        else:
            one = BY_KEY[case.key]
            assert case.truth is not None
            wrong = distractors(one, case.truth, study.labels)
            chosen = [wrong[i] for i in rng.permutation(len(wrong))[: CHOICES - 1]]
            names = [one.terms[code].name(language) for code in (case.truth, *chosen)]
        return [names[i] for i in rng.permutation(len(names))]

    def score(self, answers: Sequence[Answer]) -> dict[str, Statistic]:
        """Accuracy of the chosen option, over all and by question, and what choices collapse to.

        Options, not letters, are the classes: letters are shuffled, and a model that always picks the same option
        would look as if it did not.
        """
        said = [self._chosen(a.instruction, letter_said(a.text)) for a in answers]
        truths = [
            str(self._chosen(a.instruction, letter_said(a.instruction.answer))) for a in answers
        ]
        right = [float(t == s) for t, s in zip(truths, said, strict=True)]
        by_question = _means_by([a.instruction.case.key for a in answers], right, list(BY_KEY))
        return closed_scores_of(truths, said, sorted(set(truths))) | by_question

    def _chosen(self, instruction: Instruction, letter: str | None) -> str | None:
        """Question and code (of the data's own questions the text) of the option with a letter."""
        place = -1 if letter is None else LETTERS.index(letter)
        if not 0 <= place < len(instruction.options):
            return None
        key, name = instruction.case.key, instruction.options[place]
        codes = {} if instruction.case.question else _codes(key, instruction.language)
        return f"{key}: {codes.get(name, name)}"

    def truth_on(self, other: Study, instruction: Instruction) -> str | None:
        """The one offered option that is right on the other study."""
        if instruction.case.question:
            return None
        key = instruction.case.key
        offered = [_codes(key, instruction.language)[name] for name in instruction.options]
        return right_option(BY_KEY[key], offered, other.labels)


def _codes(key: str, language: str) -> dict[str, str]:
    """Name to code of a question's terms."""
    return {term.name(language): code for code, term in BY_KEY[key].terms.items()}


class VqaOpenTask(Task):
    """Open questions with short answers, in the categories structure, function, LGE and other."""

    name = "vqa_open"
    prompts = {"en": ("{question}",), "zh": ("{question}",)}
    paraphrases = prompts  # the question itself is what is paraphrased
    primary = "accuracy"

    def cases(self, study: Study, shown: Collection[str]) -> list[Case]:
        """Each question that labels answer and the shown sequences can show, and those that the data brings."""
        views = whole_views(shown)
        found = [
            Case(views, truth=truth, key=one.key)
            for one in QUESTIONS
            if not one.closed_only
            and one.askable(shown)
            and (truth := one.truth(study.labels)) is not None
        ]
        return found + [
            Case(views, key=one.prompt, question=one)
            for one in study.labels.questions
            if not one.options and views and set(one.sequences) <= set(shown)
        ]

    def answer(self, study: Study, case: Case, language: str) -> str:
        """The term that is right, as a short sentence."""
        if case.question:
            return case.question.answer
        assert case.truth is not None
        return BY_KEY[case.key].terms[case.truth].name(language) + (
            "." if language == "en" else "。"
        )

    def word(
        self,
        study: Study,
        case: Case,
        language: str,
        wording: int = 0,
        *,
        paraphrased: bool = False,
    ) -> Instruction:
        """The question in one of its wordings."""
        if case.question:
            language, question = case.question.language, case.question.prompt
        else:
            question = BY_KEY[case.key].question(language, wording, paraphrased=paraphrased)
        return Instruction(
            study.study_id, self.name, language, question, self.answer(study, case, language), case
        )

    def score(self, answers: Sequence[Answer]) -> dict[str, Statistic]:
        """Share of right answers, over all and by category, and overlap with the reference."""
        right = [self._right(a) for a in answers]
        categories = [self._category(a) for a in answers]
        by_category = _means_by(categories, right, ("structure", "function", "lge", "other"))
        return {"accuracy": Mean(right), **by_category, **overlap_scores(answers)}

    def _category(self, answer: Answer) -> str:
        case = answer.instruction.case
        return case.question.category if case.question else BY_KEY[case.key].category

    def _right(self, answer: Answer) -> float:
        """Exactly the right term is named; for questions of the data the text is the same but for case and marks."""
        case = answer.instruction.case
        if case.question is None:
            return float(terms_named(answer.text, BY_KEY[case.key].terms) == [case.truth])
        said, truth = (
            re.sub(r"\W+", " ", text).strip().lower()
            for text in (answer.text, case.question.answer)
        )
        return float(said == truth)
