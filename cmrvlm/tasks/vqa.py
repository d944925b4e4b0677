"""Ask multiple-choice and open questions."""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from cmrvlm.instructions.answer import AnswerWithTruth
from cmrvlm.instructions.instruction import Instruction
from cmrvlm.instructions.question import Question, whole_views
from cmrvlm.metrics.classification import closed_scores_of
from cmrvlm.metrics.statistic import (
    Among,
    Mean,
    Statistic,
)
from cmrvlm.metrics.text import overlap_scores
from cmrvlm.reports.reader import terms_named
from cmrvlm.study.study import Study
from cmrvlm.tasks.base import Case, Task
from cmrvlm.tasks.options import CHOICES, distractors, right_option
from cmrvlm.tasks.questions import BY_KEY, QUESTIONS

LETTERS = "ABCDEFGH"
_MARKED = re.compile(r"[(（]\s*([A-H])\s*[)）]")
_LEADING = re.compile(r"^\W*([A-H])(?![A-Za-z])")


def chosen_letter(text: str) -> str | None:
    """Return the letter that an answer chooses, None when there is no single one.

    It is the letter in brackets, or one at the start.
    """
    marked = set(_MARKED.findall(text))
    if marked:
        return marked.pop() if len(marked) == 1 else None
    leading = _LEADING.match(text)
    return leading[1] if leading else None


def _means_by_group(
    groups: Sequence[str], values: Sequence[float], expected: Sequence[str]
) -> dict[str, Statistic]:
    """Return the mean of the values of each expected group, by `accuracy_<group>`."""
    means: dict[str, Statistic] = {}
    for name in expected:
        rows = [row for row, group in enumerate(groups) if group == name]
        means[f"accuracy_{name}"] = Among(Mean([values[row] for row in rows]), rows, len(groups))
    return means


class VqaClosedTask(Task):
    """Multiple choice. Options are shuffled by the instruction's own seed; the answer is one, with its letter.

    Questions come from labels and, where the data brings closed ones, from the data.
    """

    name = "vqa_closed"
    prompts = {"en": ("{question} {options}",), "zh": ("{question}{options}",)}
    # The question itself is what is paraphrased.
    paraphrases = prompts
    primary = "accuracy"

    def cases(self, study: Study, shown: Collection[str]) -> list[Case]:
        """Return each question that labels answer and the shown sequences can show."""
        views = whole_views(shown)
        cases = []
        for question in QUESTIONS:
            truth = question.truth(study.labels) if question.askable(shown) else None
            if truth is not None and distractors(question, truth, study.labels):
                cases.append(Case(views, truth=truth, key=question.key))
        for source in study.labels.questions:
            if source.options and views and set(source.sequences) <= set(shown):
                cases.append(Case(views, truth=source.answer, key=source.prompt, source=source))
        return cases

    def answer(self, study: Study, case: Case, language: str) -> str:
        """Return the right option without its letter, which depends on how options are shuffled."""
        assert case.truth is not None
        if case.source:
            return case.truth
        return BY_KEY[case.key].terms[case.truth].name(language)

    def make_question(
        self,
        study: Study,
        case: Case,
        language: str,
        wording: int = 0,
        *,
        paraphrased: bool = False,
    ) -> Question:
        """Put a case into words with shuffled options. The case must have its truth."""
        language, words = _language_and_words(case, language, wording, paraphrased=paraphrased)
        options = self._shuffled_options(study, case, language, wording)
        # The letter stands behind the option, as in the answer, which is then a part of the prompt, word for word.
        lettered = [
            f"{option} ({letter})" if language == "en" else f"{option}（{letter}）"
            for letter, option in zip(LETTERS, options, strict=False)
        ]
        separator = "; " if language == "en" else "；"
        template = self.prompts[language][0]
        return Question(
            study_id=study.study_id,
            task=self.name,
            language=language,
            prompt=template.format(question=words, options=separator.join(lettered)),
            views=case.views,
            key=case.key,
            options=tuple(options),
            allowed=tuple(option + _full_stop(language) for option in lettered),
        )

    def answer_as_asked(self, study: Study, case: Case, question: Question) -> str:
        """Return the right option with the letter that it has in the question."""
        right = self.answer(study, case, question.language)
        return question.allowed[question.options.index(right)]

    def values(self, study: Study) -> Mapping[str, float]:
        """Return nothing: options hold no numbers to fill in."""
        return {}

    def _shuffled_options(self, study: Study, case: Case, language: str, wording: int) -> list[str]:
        """Return the options in an order that follows from study, question and wording."""
        seed = zlib.crc32(f"{study.study_id}/{case.key}".encode())
        rng = np.random.default_rng([seed, wording])
        if case.source:
            options = list(case.source.options)
        else:
            question = BY_KEY[case.key]
            assert case.truth is not None
            wrong = distractors(question, case.truth, study.labels)
            chosen = [wrong[index] for index in rng.permutation(len(wrong))[: CHOICES - 1]]
            options = [question.terms[code].name(language) for code in (case.truth, *chosen)]
        return [options[index] for index in rng.permutation(len(options))]

    def score(self, answers: Sequence[AnswerWithTruth]) -> dict[str, Statistic]:
        """Return accuracy of the chosen option, over all and by question, and what choices collapse to.

        Options, not letters, are the classes: letters are shuffled, and a model that always picks the
        same option would look as if it did not.
        """
        chosen = [
            self._option_at(answer.instruction, chosen_letter(answer.text)) for answer in answers
        ]
        truths = [
            str(self._option_at(answer.instruction, chosen_letter(answer.instruction.answer)))
            for answer in answers
        ]
        correct = [float(truth == option) for truth, option in zip(truths, chosen, strict=True)]
        keys = [answer.instruction.key for answer in answers]
        scores = closed_scores_of(truths, chosen, sorted(set(truths)))
        return scores | _means_by_group(keys, correct, list(BY_KEY))

    def _option_at(self, instruction: Instruction, letter: str | None) -> str | None:
        """Return question and code of the option with a letter; the option's text for questions of the data."""
        if letter is None or LETTERS.index(letter) >= len(instruction.options):
            return None
        option = instruction.options[LETTERS.index(letter)]
        if instruction.source is None:
            codes = _code_by_name(instruction.key, instruction.language)
            option = codes.get(option, option)
        return f"{instruction.key}: {option}"

    def truth_on(self, other: Study, instruction: Instruction) -> str | None:
        """Return the one offered option that is right on the other study."""
        if instruction.source:
            return None
        codes = _code_by_name(instruction.key, instruction.language)
        offered = [codes[name] for name in instruction.options]
        return right_option(BY_KEY[instruction.key], offered, other.labels)


def _language_and_words(
    case: Case, language: str, wording: int, *, paraphrased: bool
) -> tuple[str, str]:
    """Return the question of a case with its language, which a question of the data brings itself."""
    if case.source:
        return case.source.language, case.source.prompt
    return language, BY_KEY[case.key].question(language, wording, paraphrased=paraphrased)


def _full_stop(language: str) -> str:
    return "." if language == "en" else "。"


def _code_by_name(key: str, language: str) -> dict[str, str]:
    """Return the names of a question's terms with their codes."""
    return {term.name(language): code for code, term in BY_KEY[key].terms.items()}


class VqaOpenTask(Task):
    """Open questions with short answers, in the categories structure, function, LGE and other."""

    name = "vqa_open"
    prompts = {"en": ("{question}",), "zh": ("{question}",)}
    # The question itself is what is paraphrased.
    paraphrases = prompts
    primary = "accuracy"
    is_free_text = True

    def cases(self, study: Study, shown: Collection[str]) -> list[Case]:
        """Return each question that labels answer and the shown sequences can show, and those of the data."""
        views = whole_views(shown)
        cases = []
        for question in QUESTIONS:
            can_be_asked = not question.closed_only and question.askable(shown)
            truth = question.truth(study.labels) if can_be_asked else None
            if truth is not None:
                cases.append(Case(views, truth=truth, key=question.key))
        for source in study.labels.questions:
            if not source.options and views and set(source.sequences) <= set(shown):
                cases.append(Case(views, key=source.prompt, source=source))
        return cases

    def answer(self, study: Study, case: Case, language: str) -> str:
        """Return the right term as a short sentence."""
        if case.source:
            return case.source.answer
        assert case.truth is not None
        return BY_KEY[case.key].terms[case.truth].name(language) + _full_stop(language)

    def make_question(
        self,
        study: Study,
        case: Case,
        language: str,
        wording: int = 0,
        *,
        paraphrased: bool = False,
    ) -> Question:
        """Put a case into one of its wordings."""
        language, words = _language_and_words(case, language, wording, paraphrased=paraphrased)
        return Question(
            study_id=study.study_id,
            task=self.name,
            language=language,
            prompt=words,
            views=case.views,
            key=case.key,
        )

    def score(self, answers: Sequence[AnswerWithTruth]) -> dict[str, Statistic]:
        """Return the share of right answers, over all and by category, and overlap with the reference."""
        correct = [self._is_correct(answer) for answer in answers]
        categories = [self._category(answer.instruction) for answer in answers]
        by_category = _means_by_group(
            categories, correct, ("structure", "function", "lge", "other")
        )
        return {"accuracy": Mean(correct), **by_category, **overlap_scores(answers)}

    def _category(self, instruction: Instruction) -> str:
        if instruction.source:
            return instruction.source.category
        return BY_KEY[instruction.key].category

    def _is_correct(self, answer: AnswerWithTruth) -> float:
        """Return 1 where exactly the right term is named, else 0.

        For questions of the data the text must be the same but for case and punctuation.
        """
        instruction = answer.instruction
        if instruction.source is None:
            named = terms_named(answer.text, BY_KEY[instruction.key].terms)
            return float(named == [instruction.truth])
        return float(_bare(answer.text) == _bare(instruction.source.answer))


def _bare(text: str) -> str:
    """Return a text in lower case and without punctuation."""
    return re.sub(r"\W+", " ", text).strip().lower()
