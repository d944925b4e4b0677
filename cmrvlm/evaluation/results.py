"""Compute scores with confidence intervals from answers, by resampling patients."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cmrvlm.evaluation.asking import Asked, unchanged
from cmrvlm.evaluation.conditions import FULL
from cmrvlm.metrics.statistic import Mean, Statistic, Weights, per_answer
from cmrvlm.tasks.base import Task

# Decimals of the numbers that are kept.
DIGITS = 6
OVERALL = "overall"
# Task to metric to value, interval and counts.
Tree = dict[str, dict[str, dict[str, Any]]]
# Task to the rows of its answers and to its statistics over them.
TaskStatistics = dict[str, tuple[list[int], dict[str, Statistic]]]


@dataclass(frozen=True)
class Bootstrap:
    """Resamples of patients, the same for every condition and every run on the same patients.

    Attributes:
        patients: All patients, sorted by name.
        weights: (B, P), how often each of P patients is drawn in each of B resamples.
    """

    patients: tuple[str, ...]
    weights: Weights

    @classmethod
    def of(cls, patients: Sequence[str], resamples: int, seed: int = 0) -> Bootstrap:
        """Draw as many patients as there are, with replacement, `resamples` times.

        Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993.
        """
        names = tuple(sorted(set(patients)))
        count = len(names)
        if count == 0:
            return cls(names, np.zeros((resamples, 0)))
        rng = np.random.default_rng(seed)
        shares = np.full(count, 1 / count)
        draws = rng.multinomial(count, shares, size=resamples)
        return cls(names, draws.astype(np.float64))

    def digest(self) -> str:
        """Hash the patients and the draws; runs with equal hashes can be compared in pairs."""
        names = "/".join(self.patients)
        content = names.encode() + self.weights.tobytes()
        return hashlib.sha256(content).hexdigest()[:16]

    def rows(self, patients: Sequence[str]) -> Weights:
        """Return weights (B, N) of N answers, given the patient of each."""
        column_of = {name: index for index, name in enumerate(self.patients)}
        columns = [column_of[name] for name in patients]
        return self.weights[:, columns]


def interval(replicates: Weights) -> tuple[float | None, float | None]:
    """Return the 2.5th and 97.5th percentile of resampled values.

    Args:
        replicates: (B,) values, NaN where undefined.

    Returns:
        Low and high end; None when fewer than half of the values are defined.
    """
    is_defined = ~np.isnan(replicates)
    defined = replicates[is_defined]
    fewest = max(1, len(replicates) / 2)
    if len(defined) < fewest:
        return None, None
    low, high = np.percentile(defined, [2.5, 97.5])
    return round(float(low), DIGITS), round(float(high), DIGITS)


def statistics(
    asked: Asked,
    tasks: Mapping[str, Task],
    full: Asked | None,
    extra: Mapping[str, Any] | None = None,
) -> TaskStatistics:
    """Score the answers under a condition by task.

    Args:
        asked: Answers under one condition.
        tasks: Tasks that were asked.
        full: Answers with everything shown, for the share of answers that a probe does not change.
        extra: Task to a function that gives more statistics of its answers.

    Returns:
        Task to the rows of its answers and to its statistics; under a probe also `overall`.
    """
    by_task: TaskStatistics = {}
    rows_of = asked.by_task()
    # Without the answers to everything there is nothing that a probe could have changed.
    baseline = full if asked.condition.probe else None
    for name, task in tasks.items():
        rows = rows_of.get(name, [])
        answers = [asked.answers[row] for row in rows]
        scores = dict(task.score(answers))
        if extra and name in extra:
            scores |= extra[name](answers)
        if baseline is not None:
            scores["unchanged_share"] = Mean(unchanged(asked, baseline, rows))
        by_task[name] = rows, scores
    if baseline is not None:
        all_rows = list(range(len(asked.answers)))
        label = "unchanged_share"
        # An answer that stays although its truth changed describes images that were not shown.
        if asked.condition.probe == "swapped":
            label = "mirage_rate"
        by_task[OVERALL] = all_rows, {label: Mean(unchanged(asked, baseline, all_rows))}
    return by_task


def as_tree(
    by_task: TaskStatistics, asked: Asked, bootstrap: Bootstrap
) -> tuple[Tree, dict[str, Weights]]:
    """Compute values with intervals.

    Args:
        by_task: Statistics of each task.
        asked: The answers that they are over.
        bootstrap: Resamples of the patients.

    Returns:
        The values, and by `task.metric` the resampled values (B,) of each metric.
    """
    tree: Tree = {}
    replicates: dict[str, Weights] = {}
    for task, (rows, metrics) in by_task.items():
        tree[task] = {}
        patients = [asked.patients[row] for row in rows]
        weights = bootstrap.rows(patients)
        for metric, statistic in metrics.items():
            cell, resampled = with_interval(statistic, weights)
            tree[task][metric] = cell
            replicates[f"{task}.{metric}"] = resampled
    return tree, replicates


def with_interval(statistic: Statistic, weights: Weights) -> tuple[dict[str, Any], Weights]:
    """Return value, interval and counts of a metric, and its resampled values (B,).

    Args:
        statistic: The metric over N answers.
        weights: (B, N) weights of the answers.
    """
    value = statistic.value
    if value is None:
        rounded = None
        resampled = np.full(len(weights), math.nan)
    else:
        rounded = round(value, DIGITS)
        resampled = statistic(weights)
    low, high = interval(resampled)
    cell = {
        "value": rounded,
        "low": low,
        "high": high,
        "n": statistic.n,
        "undefined": statistic.undefined,
    }
    return cell, resampled


def add_differences(
    tree: Tree, asked: Asked, full: Asked, tasks: Mapping[str, Task], bootstrap: Bootstrap
) -> None:
    """Add to each value its paired difference from the full set.

    Only questions that both were asked count: what a subset cannot be asked at all would otherwise
    make it look better, or worse, than it is. Reports and captions are compared each with its own
    reference, which says less where less is shown.

    Args:
        tree: Values of the subset; the differences are added here.
        asked: Answers under the subset.
        full: Answers with everything shown.
        tasks: Tasks that were asked.
        bootstrap: Resamples of the patients.
    """
    subset_row_of = _row_of_question(asked)
    full_row_of = _row_of_question(full)
    common = [question for question in subset_row_of if question in full_row_of]
    for name, task in tasks.items():
        questions = [question for question in common if question[1] == name]
        subset_rows = [subset_row_of[question] for question in questions]
        full_rows = [full_row_of[question] for question in questions]
        subset_answers = [asked.answers[row] for row in subset_rows]
        full_answers = [full.answers[row] for row in full_rows]
        scores = task.score(subset_answers)
        full_scores = task.score(full_answers)
        patients = [asked.patients[row] for row in subset_rows]
        weights = bootstrap.rows(patients)
        for metric, cell in tree[name].items():
            cell["difference"] = _paired_difference(
                scores.get(metric), full_scores.get(metric), weights
            )


def _row_of_question(asked: Asked) -> dict[tuple[str, str, str], int]:
    """Return the row of each question's answer by the question's identity."""
    row_of: dict[tuple[str, str, str], int] = {}
    for row, answer in enumerate(asked.answers):
        row_of[answer.question.identity] = row
    return row_of


def _paired_difference(
    statistic: Statistic | None, baseline: Statistic | None, weights: Weights
) -> dict[str, Any] | None:
    """Return the difference of a metric from its baseline on the same questions.

    Args:
        statistic: The metric over N answers; None when it is not scored.
        baseline: The same metric over the answers with everything shown.
        weights: (B, N) weights of the answers.

    Returns:
        Difference, interval and number of questions; None when either is undefined.
    """
    if statistic is None or baseline is None:
        return None
    value = statistic.value
    baseline_value = baseline.value
    if value is None or baseline_value is None:
        return None
    low, high = interval(statistic(weights) - baseline(weights))
    return {
        "value": round(value - baseline_value, DIGITS),
        "low": low,
        "high": high,
        "n": weights.shape[1],
    }


SCHEMA = pa.schema(
    [
        ("study", pa.string()),
        ("task", pa.string()),
        ("question", pa.string()),
        ("language", pa.string()),
        ("prompt", pa.string()),
        ("target", pa.string()),
        ("answer", pa.string()),
        ("truncated", pa.bool_()),
        ("score", pa.float64()),
        ("probabilities", pa.list_(pa.float32())),
        ("subset", pa.string()),
        ("probe", pa.string()),
        ("failure", pa.string()),
    ]
)


def answer_rows(
    asked: Asked, tasks: Mapping[str, Task], by_task: TaskStatistics
) -> list[dict[str, Any]]:
    """Return the rows of `answers.parquet` under one condition.

    Args:
        asked: Answers under the condition.
        tasks: Tasks that were asked.
        by_task: Their statistics.

    Returns:
        A row for each answer, graded by its task's primary metric, and one for each study that
        could not be asked.
    """
    score_of: dict[int, float | None] = {}
    for name, task in tasks.items():
        rows, scores = by_task[name]
        values = per_answer(scores[task.primary])
        for row, value in zip(rows, values, strict=True):
            score_of[row] = _rounded(value)
    condition = {"subset": asked.condition.subset, "probe": asked.condition.probe}
    table: list[dict[str, Any]] = []
    for row, answer in enumerate(asked.answers):
        instruction = answer.instruction
        table.append(
            {
                "study": instruction.study_id,
                "task": instruction.task,
                "question": instruction.key,
                "language": instruction.language,
                "prompt": instruction.prompt,
                "target": instruction.reference,
                "answer": answer.text,
                "truncated": answer.truncated,
                "score": score_of[row],
                "probabilities": tasks[instruction.task].probabilities(answer),
                "failure": None,
                **condition,
            }
        )
    for study, reason in asked.failures.items():
        table.append({"study": study, "failure": reason, **condition})
    return table


def _rounded(value: float) -> float | None:
    """Round a score; NaN, which Parquet would keep as a number, becomes None."""
    if math.isnan(value):
        return None
    return round(float(value), DIGITS)


def write_answers(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write all answers into a Parquet file."""
    table = pa.Table.from_pylist(list(rows), schema=SCHEMA)
    pq.write_table(table, path)


def write_replicates(path: Path, bootstrap: Bootstrap, replicates: Mapping[str, Weights]) -> None:
    """Write the resampled values of the full set into a Parquet file.

    Runs on the same patients can then be compared in pairs.

    Args:
        path: File to write.
        bootstrap: Resamples of the patients; its hash goes into the metadata.
        replicates: Column name to resampled values (B,).
    """
    columns = {name: pa.array(values) for name, values in replicates.items()}
    metadata = {"patients": bootstrap.digest(), "subset": FULL}
    table = pa.table(columns).replace_schema_metadata(metadata)
    pq.write_table(table, path)
