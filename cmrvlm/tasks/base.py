"""Define the base of all tasks: find what can be asked about a study, word it, and score the answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from cmrvlm.instructions.answer import Answer, AnswerWithTruth
from cmrvlm.instructions.instruction import Instruction
from cmrvlm.instructions.question import Question, Region, View
from cmrvlm.metrics.statistic import Statistic
from cmrvlm.study.study import Study, UserQuestion
from cmrvlm.study.vocabulary import LANGUAGES, Term


@dataclass(frozen=True)
class Case:
    """One thing that can be asked about a study, before it is put into words.

    Attributes:
        views: Images that are shown; empty for a question about text alone.
        truth: Canonical code of the right answer of a closed task; None where there is none or it is unknown.
        key: Name that tells this case from others of its task and is the same for all studies, such as `lvef`.
        region: Region to segment or to box, None for other tasks.
        source: Question that came with the data, None for one that follows from labels.
        languages: Languages in which the right answer is known.
    """

    views: tuple[View, ...]
    truth: str | None = None
    key: str = ""
    region: Region | None = None
    source: UserQuestion | None = None
    languages: tuple[str, ...] = LANGUAGES


@dataclass(frozen=True)
class Calibration:
    """Predicted probabilities beside what was true, for a figure of their calibration.

    Attributes:
        truth: For each probability whether the class was present.
        probability: Predicted probabilities, 0 to 1.
    """

    truth: Sequence[bool]
    probability: Sequence[float]


class Task(ABC):
    """Base of all tasks. A subclass sets the attributes and implements `cases`, `answer` and `score`.

    Attributes:
        name: Name in configurations and results.
        prompts: Language to wordings of the question, the first one for evaluation; `{...}` are filled from `fields`.
        paraphrases: Wordings that training never shows, for the probe that asks with them.
        primary: Metric by which single answers are graded in tables of answers.
        subset_metric: Metric that tables by sequences shown give; None takes `primary`.
        balanced: In training each right answer is drawn as often as any other that a study has.
        is_free_text: Answers are free text, which scores of meaning such as BERTScore can judge.
        leak_terms: Terms that a prompt must not name where they are the right answer; None checks nothing.
        mask_sequence: Sequence on which the task asks for masks or boxes; None for other tasks.
    """

    name: str
    prompts: Mapping[str, Sequence[str]]
    paraphrases: Mapping[str, Sequence[str]]
    primary: str
    subset_metric: str | None = None
    balanced: bool = False
    is_free_text: bool = False
    leak_terms: Mapping[str, Term] | None = None
    mask_sequence: str | None = None

    @abstractmethod
    def cases(self, study: Study, shown: Collection[str]) -> list[Case]:
        """Return everything that this task can ask about a labelled study.

        Args:
            study: Study with its labels.
            shown: Sequences that are shown.
        """

    @abstractmethod
    def answer(self, study: Study, case: Case, language: str) -> str:
        """Return the right answer in words."""

    @abstractmethod
    def score(self, answers: Sequence[AnswerWithTruth]) -> dict[str, Statistic]:
        """Return metrics over answers to this task."""

    def measure(self, answer: AnswerWithTruth) -> Mapping[str, float | None]:
        """Return the scores of an answer's mask by name, None where undefined; empty for tasks without masks.

        An evaluation keeps them in place of the mask.
        """
        return {}

    def measured(self, answers: Sequence[AnswerWithTruth]) -> list[Mapping[str, float | None]]:
        """Return the scores of each answer's mask, kept or measured now."""
        return [answer.measures or self.measure(answer) for answer in answers]

    def answer_as_asked(self, study: Study, case: Case, question: Question) -> str:
        """Return the right answer to a question as it was put into words."""
        return self.answer(study, case, question.language)

    def unlabelled_cases(self, study: Study) -> list[Case]:
        """Return what this task can ask about a study without labels; nothing unless a task says so."""
        return []

    def allowed(self, study: Study, case: Case, language: str) -> tuple[str, ...]:
        """Return all answers that a question allows; empty when the task does not list them."""
        return ()

    def outline(self, language: str) -> tuple[str, ...]:
        """Return the headings that every answer has, in their order; empty when it is free."""
        return ()

    def absent(self, case: Case, language: str) -> str:
        """Return the answer that says that the case's region is not there; empty for other tasks."""
        return ""

    def fields(self, study: Study, case: Case, language: str) -> Mapping[str, str]:
        """Return values for the `{...}` of the prompts. They may say what is asked, never what is right."""
        return {}

    def values(self, study: Study) -> Mapping[str, float]:
        """Return true numbers that answers are scored against."""
        return study.labels.measurements

    def truth_on(self, other: Study, instruction: Instruction) -> str | None:
        """Return the right answer to the very same question about another study.

        Returns:
            A code where the task has codes, else the sentence; None when the other study has no such question.
        """
        shown = {view.sequence for view in instruction.views}
        cases = self.cases(other, [name for name in other.series if name in shown])
        case = next((case for case in cases if case.key == instruction.key), None)
        if case is None or instruction.language not in case.languages:
            return None
        if case.truth is not None:
            return case.truth
        return self.make_instruction(other, case, instruction.language).reference

    def probabilities(self, answer: Answer) -> list[float] | None:
        """Return the probabilities of a read-out about the question itself; None for tasks without one."""
        return None

    def calibration(self, answers: Sequence[AnswerWithTruth]) -> Calibration | None:
        """Return probabilities beside what was true, for a figure; None for tasks without them."""
        return None

    def stated_and_true(
        self, answers: Sequence[AnswerWithTruth]
    ) -> dict[str, list[tuple[float, float]]]:
        """Return pairs of stated and true number by measurement, for a figure; empty for other tasks."""
        return {}

    def make_question(
        self,
        study: Study,
        case: Case,
        language: str,
        wording: int = 0,
        *,
        paraphrased: bool = False,
    ) -> Question:
        """Put a case into words. Needs no labels.

        Args:
            study: Study that is asked about.
            case: What is asked.
            language: `en` or `zh`.
            wording: Number of the wording; it is taken modulo the number of wordings.
            paraphrased: Take a wording that training never shows.
        """
        wordings = (self.paraphrases if paraphrased else self.prompts)[language]
        template = wordings[wording % len(wordings)]
        return Question(
            study_id=study.study_id,
            task=self.name,
            language=language,
            prompt=template.format(**self.fields(study, case, language)),
            views=case.views,
            key=case.key,
            region=case.region,
            allowed=self.allowed(study, case, language),
            outline=self.outline(language),
            absent=self.absent(case, language),
        )

    def make_instruction(
        self,
        study: Study,
        case: Case,
        language: str,
        wording: int = 0,
        *,
        paraphrased: bool = False,
    ) -> Instruction:
        """Put a case of a labelled study into words and add its right answer. See `make_question`."""
        question = self.make_question(study, case, language, wording, paraphrased=paraphrased)
        return Instruction.of(
            question,
            answer=self.answer_as_asked(study, case, question),
            truth=case.truth,
            values=self.values(study),
            source=case.source,
        )

    def ask(self, study: Study, language: str) -> list[Question]:
        """Return the questions that this task asks about a study without labels, in their first wording."""
        return [self.make_question(study, case, language) for case in self.unlabelled_cases(study)]
