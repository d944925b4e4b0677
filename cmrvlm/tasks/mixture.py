"""Draw the instructions of a study by weights over tasks, sequences and languages."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from cmrvlm.errors import CmrvlmError
from cmrvlm.instructions.instruction import Instruction
from cmrvlm.study.evidence import visible_labels
from cmrvlm.study.study import Study
from cmrvlm.tasks.base import Case, Task
from cmrvlm.tasks.context import check_fields, with_context


class Mixture:
    """Draws instructions for training and lists them for evaluation.

    Args:
        tasks: Name to task. A task set to None is left out.
        weights: Task name to relative weight, how often it is asked; 1 where not given.
        loss_weights: Task name to the weight of its instructions in the losses; 1 where not given.
        temperature: Weights are raised to 1 / temperature: above 1 evens them out.
        drop: Sequence to the probability that it is not shown in training; at least one is always shown.
        languages: Languages that prompts and answers are drawn from.
        per_study: Instructions drawn for each study in training.
        context: Facts about the patient that prompts state, of `cmrvlm.tasks.context.FIELDS`; no others ever do.
        foreign_share: Share of the training's samples that show images without a heart, of which nothing can be
            assessed; 0 for none.
    """

    def __init__(
        self,
        tasks: Mapping[str, Task | None],
        weights: Mapping[str, float] | None = None,
        temperature: float = 1.0,
        drop: Mapping[str, float] | None = None,
        languages: Sequence[str] = ("en", "zh"),
        per_study: int = 6,
        context: Sequence[str] = (),
        loss_weights: Mapping[str, float] | None = None,
        foreign_share: float = 0.0,
    ) -> None:
        self.tasks = {name: task for name, task in tasks.items() if task is not None}
        weights = dict(weights or {})
        self.loss_weights = dict(loss_weights or {})
        self._check_names(weights, set(tasks), "mix.weights")
        self._check_names(self.loss_weights, set(tasks), "mix.loss_weights")
        self.weights = {
            name: float(weights.get(name, 1.0)) ** (1 / temperature) for name in self.tasks
        }
        self.drop = dict(drop or {})
        self.languages = tuple(languages)
        self.per_study = per_study
        self.context = check_fields(context)
        if not 0 <= foreign_share <= 1:
            raise CmrvlmError(
                f"{foreign_share} is no share", field="mix.foreign_share", remedy="Give 0 to 1."
            )
        self.foreign_share = foreign_share

    def _check_names(self, weights: Mapping[str, float], known: set[str], field: str) -> None:
        unknown = set(weights) - known
        if unknown:
            raise CmrvlmError(
                f"weights for unknown tasks: {', '.join(sorted(unknown))}",
                field=field,
                remedy=f"Tasks of this mix: {', '.join(self.tasks)}.",
            )

    def draw(self, study: Study, rng: np.random.Generator) -> list[Instruction]:
        """Draw `per_study` instructions about a study.

        The sequences shown are drawn once; tasks are drawn by weight among those that can ask anything.

        Raises:
            CmrvlmError: No task can ask anything about the study.
        """
        shown = self._draw_sequences(study, rng)
        study = replace(study, labels=visible_labels(study, shown))
        cases_of: dict[str, list[Case]] = {}
        for name, task in self.tasks.items():
            cases = self._cases(task, study, shown) if self.weights[name] > 0 else []
            if cases:
                cases_of[name] = cases
        if not cases_of:
            raise CmrvlmError(
                f"no task of the mix can ask anything about study {study.study_id}",
                field="mix.tasks",
                remedy="Add a task that fits the labels of this data.",
            )
        names = list(cases_of)
        weights = np.array([self.weights[name] for name in names])
        shares = weights / weights.sum()
        # Without replacement until every task was asked, so that few instructions still cover many tasks.
        distinct = min(self.per_study, len(names))
        order = rng.choice(len(names), size=distinct, replace=False, p=shares).tolist()
        if self.per_study > distinct:
            order += rng.choice(len(names), size=self.per_study - distinct, p=shares).tolist()
        return [
            self._draw_instruction(self.tasks[names[index]], cases_of[names[index]], study, rng)
            for index in order
        ]

    def _cases(self, task: Task, study: Study, shown: Sequence[str]) -> list[Case]:
        """Return the cases of a task whose answer is known in one of the languages."""
        return [case for case in task.cases(study, shown) if self.languages_of(case)]

    def languages_of(self, case: Case) -> list[str]:
        """Return the languages in which the answer of a case is known, in their order."""
        return [language for language in self.languages if language in case.languages]

    def _draw_instruction(
        self, task: Task, cases: list[Case], study: Study, rng: np.random.Generator
    ) -> Instruction:
        """Draw one of a task's cases, a language and a wording."""
        if task.balanced:
            truths = sorted({str(case.truth) for case in cases})
            truth = truths[int(rng.integers(len(truths)))]
            cases = [case for case in cases if str(case.truth) == truth]
        case = cases[int(rng.integers(len(cases)))]
        languages = self.languages_of(case)
        language = languages[int(rng.integers(len(languages)))]
        wording = int(rng.integers(1000))
        return with_context(
            task.make_instruction(study, case, language, wording), study, self.context
        )

    def _draw_sequences(self, study: Study, rng: np.random.Generator) -> list[str]:
        """Draw which sequences are shown; at least one is."""
        present = list(study.series)
        kept = [name for name in present if rng.random() >= self.drop.get(name, 0.0)]
        return kept or [present[int(rng.integers(len(present)))]]

    def all(
        self, study: Study, shown: Sequence[str] | None = None, *, paraphrased: bool = False
    ) -> list[Instruction]:
        """Return every instruction about a study in its first wording, without any draw; for evaluation.

        The language of a study follows from its id, so that all languages occur and no run differs;
        an answer that is known in one language alone is asked for in that one.

        Args:
            study: Study with its labels.
            shown: Sequences to show; None shows all.
            paraphrased: Take wordings that training never shows.
        """
        present = [name for name in study.series if shown is None or name in shown]
        study = replace(study, labels=visible_labels(study, present))
        number = zlib.crc32(study.study_id.encode())
        instructions = []
        for task in self.tasks.values():
            for case in self._cases(task, study, present):
                languages = self.languages_of(case)
                language = languages[number % len(languages)]
                instruction = task.make_instruction(study, case, language, paraphrased=paraphrased)
                instructions.append(with_context(instruction, study, self.context))
        return instructions
