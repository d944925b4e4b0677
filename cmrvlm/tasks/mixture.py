"""Which instructions a study is asked: weights over tasks, sequences and languages, drawn from a given generator."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.study import Study
from cmrvlm.tasks.base import Case, Instruction, Task
from cmrvlm.tasks.context import check_fields, with_context


class Mixture:
    """Draws instructions for training and lists them for evaluation.

    Args:
        tasks: Name to task. A task set to None is left out.
        weights: Task name to relative weight, how often it is asked; 1 where not given.
        loss_weights: Task name to what one of its instructions counts in the losses; 1 where not given.
        temperature: Weights are raised to 1 / temperature: above 1 evens them out.
        drop: Sequence to the probability that it is not shown in training; at least one is always shown.
        languages: Languages that prompts and answers are drawn from.
        per_study: Instructions drawn for each study in training.
        context: What prompts may say of the patient, of `cmrvlm.tasks.context.FIELDS`; nothing else ever enters one.
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
    ) -> None:
        self.tasks = {name: task for name, task in tasks.items() if task is not None}
        weights, self.loss_weights = dict(weights or {}), dict(loss_weights or {})
        for field, given in (("mix.weights", weights), ("mix.loss_weights", self.loss_weights)):
            unknown = set(given) - set(tasks)
            if unknown:
                raise CmrvlmError(
                    f"weights for unknown tasks: {', '.join(sorted(unknown))}",
                    field=field,
                    remedy=f"Tasks of this mix: {', '.join(self.tasks)}.",
                )
        self.weights = {
            name: float(weights.get(name, 1.0)) ** (1 / temperature) for name in self.tasks
        }
        self.drop, self.languages, self.per_study = dict(drop or {}), tuple(languages), per_study
        self.context = check_fields(context)

    def draw(self, study: Study, rng: np.random.Generator) -> list[Instruction]:
        """`per_study` instructions; the sequences shown are drawn once, tasks by weight among those that can ask."""
        shown = self._shown(study, rng)
        options: dict[str, list[Case]] = {}
        for name, task in self.tasks.items():
            found = task.cases(study, shown) if self.weights[name] > 0 else []
            if found:
                options[name] = found
        if not options:
            raise CmrvlmError(
                f"no task of the mix can ask anything about study {study.study_id}",
                field="mix.tasks",
                remedy="Add a task that fits the labels of this data.",
            )
        names = list(options)
        shares = np.array([self.weights[name] for name in names])
        # Without replacement until every task was asked, so that few instructions still cover many tasks.
        wanted = min(self.per_study, len(names))
        order = rng.choice(len(names), size=wanted, replace=False, p=shares / shares.sum()).tolist()
        if self.per_study > wanted:
            order += rng.choice(
                len(names), size=self.per_study - wanted, p=shares / shares.sum()
            ).tolist()
        return [self._word(names[index], options[names[index]], study, rng) for index in order]

    def _word(
        self, name: str, cases: list[Case], study: Study, rng: np.random.Generator
    ) -> Instruction:
        if self.tasks[name].balanced:
            answers = sorted({str(case.truth) for case in cases})
            wanted = answers[int(rng.integers(len(answers)))]
            cases = [case for case in cases if str(case.truth) == wanted]
        case = cases[int(rng.integers(len(cases)))]
        language = self.languages[int(rng.integers(len(self.languages)))]
        one = self.tasks[name].word(study, case, language, wording=int(rng.integers(1000)))
        return with_context(one, study, self.context)

    def _shown(self, study: Study, rng: np.random.Generator) -> list[str]:
        present = list(study.series)
        kept = [name for name in present if rng.random() >= self.drop.get(name, 0.0)]
        return kept or [present[int(rng.integers(len(present)))]]

    def all(
        self, study: Study, shown: Sequence[str] | None = None, *, paraphrased: bool = False
    ) -> list[Instruction]:
        """Every instruction about the study in its first wording, without any draw; for evaluation.

        The language of a study follows from its id, so that all languages occur and no run differs.
        """
        present = [name for name in study.series if shown is None or name in shown]
        language = self.languages[zlib.crc32(study.study_id.encode()) % len(self.languages)]
        found = [
            task.word(study, case, language, paraphrased=paraphrased)
            for task in self.tasks.values()
            for case in task.cases(study, present)
        ]
        return [with_context(one, study, self.context) for one in found]
