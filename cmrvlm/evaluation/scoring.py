"""Score the kept answers of an evaluation, task by task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cmrvlm.evaluation.answer_table import AnswerTable
from cmrvlm.evaluation.conditions import Condition
from cmrvlm.evaluation.kept_answers import Asked, KeptAnswers
from cmrvlm.evaluation.results import (
    OVERALL,
    UNCHANGED_SHARE,
    Bootstrap,
    Tree,
    add_differences,
    statistics,
    with_intervals,
)
from cmrvlm.instructions.answer import AnswerWithTruth
from cmrvlm.metrics.statistic import Mean, Statistic, Weights, per_answer
from cmrvlm.tasks.base import Calibration, Task

# Gives statistics of answers beside those of their task.
MoreScores = Callable[[Sequence[AnswerWithTruth]], dict[str, Statistic]]


@dataclass
class Scored:
    """Scores under one condition.

    Attributes:
        tree: Values with intervals by task and metric.
        replicates: Resampled values (B,) by `task.metric`.
        stated_and_true: Pairs of stated and true number by measurement, for a figure.
        calibrations: Task to probabilities beside what was true, for a figure.
    """

    tree: Tree = field(default_factory=dict)
    replicates: dict[str, Weights] = field(default_factory=dict)
    stated_and_true: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    calibrations: dict[str, Calibration] = field(default_factory=dict)


@dataclass(frozen=True)
class Scorer:
    """Scores answers to some tasks about some studies.

    Attributes:
        tasks: Tasks by name.
        study_ids: Studies in their order.
        bootstrap: Resamples of the patients.
        full: Answers with everything shown.
        more: Task to more statistics of its answers.
    """

    tasks: Mapping[str, Task]
    study_ids: Sequence[str]
    bootstrap: Bootstrap
    full: KeptAnswers
    more: Mapping[str, MoreScores]

    def score(self, kept: KeptAnswers, table: AnswerTable) -> Scored:
        """Score the answers under a condition and write them into a table."""
        scored = Scored()
        probe = kept.condition.probe
        changes: list[float] = []
        patients: list[str] = []
        for name, task in self.tasks.items():
            asked = kept.of_task(name, self.study_ids)
            of_task = self._score_task(scored, task, asked)
            table.add(task, asked, of_task)
            if probe:
                changes += per_answer(of_task[UNCHANGED_SHARE]).tolist()
                patients += asked.patients
        if probe:
            # An answer that stays although its truth changed describes images that were not shown.
            label = "mirage_rate" if probe == "swapped" else UNCHANGED_SHARE
            overall = {label: Mean(np.array(changes))}
            scored.tree[OVERALL], _ = with_intervals(overall, patients, self.bootstrap)
        table.add_failures(kept.condition, kept.failures())
        return scored

    def _score_task(self, scored: Scored, task: Task, asked: Asked) -> Mapping[str, Statistic]:
        """Add the scores of a task under a condition, and return its statistics."""
        is_full = asked.condition == Condition()
        texts = None
        if asked.condition.probe:
            texts = self.full.texts(task.name)
        of_task = statistics(task, asked, texts, self.more.get(task.name))
        cells, replicates = with_intervals(of_task, asked.patients, self.bootstrap)
        if not is_full and not asked.condition.probe:
            full = self.full.of_task(task.name, self.study_ids)
            add_differences(cells, task, asked, full, self.bootstrap)
        scored.tree[task.name] = cells
        for metric, values in replicates.items():
            scored.replicates[f"{task.name}.{metric}"] = values
        if is_full:
            scored.stated_and_true |= task.stated_and_true(asked.answers)
            calibration = task.calibration(asked.answers)
            if calibration is not None:
                scored.calibrations[task.name] = calibration
        return of_task
