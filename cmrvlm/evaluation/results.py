"""Compute scores with confidence intervals from answers, by resampling patients."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cmrvlm.evaluation.conditions import FULL
from cmrvlm.evaluation.kept_answers import Asked, Identity
from cmrvlm.instructions.answer import AnswerWithTruth
from cmrvlm.metrics.statistic import Mean, Statistic, Weights
from cmrvlm.reports.numbers import has_quotes
from cmrvlm.study.atomic_files import atomic_write
from cmrvlm.tasks.base import Task

# Decimals of the numbers that are kept.
DIGITS = 6
OVERALL = "overall"
UNCHANGED_SHARE = "unchanged_share"
# Weights of answers in resamples that are held at a time; 32 MB.
_WEIGHTS_AT_ONCE = 4_000_000
# Metric to value, interval and counts.
Cells = dict[str, dict[str, Any]]
# Task to its metrics.
Tree = dict[str, Cells]


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

    def resampled(self, statistics: Sequence[Statistic], patients: Sequence[str]) -> Weights:
        """Return the resampled values (S, B) of S statistics over the same N answers.

        Args:
            statistics: S statistics over N answers.
            patients: Patient of each answer.
        """
        column_of = {name: index for index, name in enumerate(self.patients)}
        columns = [column_of[name] for name in patients]
        # Weights of all answers in all resamples would take gigabytes for an archive.
        rows_at_once = max(1, _WEIGHTS_AT_ONCE // max(1, len(columns)))
        values = np.empty((len(statistics), len(self.weights)))
        for start in range(0, len(self.weights), rows_at_once):
            rows = slice(start, start + rows_at_once)
            weights = self.weights[rows][:, columns]
            for index, statistic in enumerate(statistics):
                values[index, rows] = statistic(weights)
        return values


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
    task: Task,
    asked: Asked,
    full_texts: Mapping[Identity, str] | None,
    extra: Callable[[Sequence[AnswerWithTruth]], dict[str, Statistic]] | None = None,
) -> dict[str, Statistic]:
    """Score the answers to a task under a condition.

    Args:
        task: The task.
        asked: Answers to it under the condition.
        full_texts: Under a probe the texts of the answers with everything shown, for the share of
            answers that the probe does not change.
        extra: Gives more statistics of the answers.
    """
    scores = dict(task.score(asked.answers))
    if extra is not None:
        scores |= extra(asked.answers)
    if full_texts is not None:
        scores[UNCHANGED_SHARE] = Mean(unchanged(asked, full_texts))
    return scores


def unchanged(asked: Asked, full_texts: Mapping[Identity, str]) -> list[float | None]:
    """Compare answers under a probe with those given to the patient's own images.

    Left out are questions about no image, those whose truth the probe does not change, and texts
    that quote numbers: any pixel changes a digit, so that such texts say nothing about what was
    read.

    Args:
        asked: Answers under a probe.
        full_texts: Text of each answer with everything shown.

    Returns:
        For each answer 1 when the text is the same and 0 otherwise; None when it is left out.
    """
    is_swapped = asked.condition.probe == "swapped"
    result: list[float | None] = []
    for answer, is_changed in zip(asked.answers, asked.changed, strict=True):
        instruction = answer.instruction
        counts = bool(instruction.views) and not has_quotes(instruction.answer)
        if is_swapped:
            counts = counts and is_changed is True
        earlier_text = full_texts.get(instruction.identity)
        if counts and earlier_text is not None:
            is_same = answer.text == earlier_text
            result.append(float(is_same))
        else:
            result.append(None)
    return result


def with_intervals(
    statistics: Mapping[str, Statistic], patients: Sequence[str], bootstrap: Bootstrap
) -> tuple[Cells, dict[str, Weights]]:
    """Compute values with intervals and counts.

    Args:
        statistics: Metric to statistic over N answers.
        patients: Patient of each answer.
        bootstrap: Resamples of the patients.

    Returns:
        Metric to value, interval and counts, and metric to resampled values (B,).
    """
    values = {metric: statistic.value for metric, statistic in statistics.items()}
    defined = [metric for metric, value in values.items() if value is not None]
    resampled = bootstrap.resampled([statistics[metric] for metric in defined], patients)
    replicates = {metric: np.full(len(bootstrap.weights), math.nan) for metric in statistics}
    replicates |= dict(zip(defined, resampled, strict=True))
    cells: Cells = {}
    for metric, statistic in statistics.items():
        low, high = interval(replicates[metric])
        cells[metric] = {
            "value": rounded(values[metric]),
            "low": low,
            "high": high,
            "n": statistic.n,
            "undefined": statistic.undefined,
        }
    return cells, replicates


def add_differences(
    cells: Cells, task: Task, asked: Asked, full: Asked, bootstrap: Bootstrap
) -> None:
    """Add to each value of a task its paired difference from the full set.

    Only questions that both were asked count: what a subset cannot be asked at all would otherwise
    make it look better, or worse, than it is. Reports and captions are compared each with its own
    reference, which says less where less is shown.

    Args:
        cells: Values of the subset; the differences are added here.
        task: The task.
        asked: Answers to it under the subset.
        full: Answers to it with everything shown.
        bootstrap: Resamples of the patients.
    """
    row_of = {answer.instruction.identity: row for row, answer in enumerate(asked.answers)}
    pairs = [
        (row_of[answer.instruction.identity], answer)
        for answer in full.answers
        if answer.instruction.identity in row_of
    ]
    scores = task.score([asked.answers[row] for row, _ in pairs])
    full_scores = task.score([answer for _, answer in pairs])
    patients = [asked.patients[row] for row, _ in pairs]
    for metric, cell in cells.items():
        cell["difference"] = _paired_difference(
            scores.get(metric), full_scores.get(metric), patients, bootstrap
        )


def _paired_difference(
    statistic: Statistic | None,
    baseline: Statistic | None,
    patients: Sequence[str],
    bootstrap: Bootstrap,
) -> dict[str, Any] | None:
    """Return the difference of a metric from its baseline on the same questions.

    Args:
        statistic: The metric over N answers; None when it is not scored.
        baseline: The same metric over the answers with everything shown.
        patients: Patient of each answer.
        bootstrap: Resamples of the patients.

    Returns:
        Difference, interval and number of questions; None when either is undefined.
    """
    if statistic is None or baseline is None:
        return None
    value = statistic.value
    baseline_value = baseline.value
    if value is None or baseline_value is None:
        return None
    resampled, baseline_resampled = bootstrap.resampled([statistic, baseline], patients)
    low, high = interval(resampled - baseline_resampled)
    return {
        "value": rounded(value - baseline_value),
        "low": low,
        "high": high,
        "n": len(patients),
    }


def rounded(value: float | None) -> float | None:
    """Round a number that is kept; None and NaN, which Parquet would keep as a number, are None."""
    if value is None or math.isnan(value):
        return None
    return round(float(value), DIGITS)


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
    with atomic_write(path) as temporary:
        pq.write_table(table, temporary)
