"""From answers to numbers with intervals, by resampling patients."""

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

DIGITS = 6
OVERALL = "overall"
Tree = dict[str, dict[str, dict[str, Any]]]
Found = dict[str, tuple[list[int], dict[str, Statistic]]]


@dataclass(frozen=True)
class Bootstrap:
    """Resamples of patients, the same for every condition and every run on the same patients.

    Attributes:
        patients: All patients, in order.
        weights: (B, patients), how often each is drawn.
    """

    patients: tuple[str, ...]
    weights: Weights

    @classmethod
    def of(cls, patients: Sequence[str], resamples: int, seed: int = 0) -> Bootstrap:
        """Draw `resamples` times as many patients as there are, with replacement (Efron and Tibshirani, 1993)."""
        names = tuple(sorted(set(patients)))
        count = len(names)
        rng = np.random.default_rng(seed)
        drawn = (
            rng.multinomial(count, np.full(count, 1 / count), size=resamples)
            if count
            else np.zeros((resamples, 0))
        )
        return cls(names, drawn.astype(np.float64))

    def digest(self) -> str:
        """Hash of the patients and the draws: equal for runs that can be compared in pairs."""
        return hashlib.sha256(
            "/".join(self.patients).encode() + self.weights.tobytes()
        ).hexdigest()[:16]

    def rows(self, patients: Sequence[str]) -> Weights:
        """Weights (B, N) of answers by their patients."""
        position = {name: index for index, name in enumerate(self.patients)}
        return self.weights[:, [position[name] for name in patients]]


def interval(replicates: Weights) -> tuple[float | None, float | None]:
    """2.5th and 97.5th percentile of the defined replicates; None when fewer than half are defined."""
    defined = replicates[~np.isnan(replicates)]
    if len(defined) < max(1, len(replicates) / 2):
        return None, None
    low, high = np.percentile(defined, [2.5, 97.5])
    return round(float(low), DIGITS), round(float(high), DIGITS)


def statistics(
    asked: Asked,
    tasks: Mapping[str, Task],
    full: Asked | None,
    extra: Mapping[str, Any] | None = None,
) -> Found:
    """Task to the rows of its answers and to its statistics over them.

    Args:
        asked: Answers under one condition.
        tasks: Tasks that were asked.
        full: Answers with everything shown, for the share of answers that a probe does not change.
        extra: Task to a function that gives more statistics of its answers.
    """
    found: Found = {}
    rows_of = asked.by_task()
    probe = full is not None and bool(asked.condition.probe)
    for name, task in tasks.items():
        rows = rows_of.get(name, [])
        own = [asked.answers[row] for row in rows]
        scores = dict(task.score(own))
        if extra and name in extra:
            scores |= extra[name](own)
        if probe and full is not None:
            scores["unchanged_share"] = Mean(unchanged(asked, full, rows))
        found[name] = rows, scores
    if probe and full is not None:
        rows = list(range(len(asked.answers)))
        label = "mirage_rate" if asked.condition.probe == "swapped" else "unchanged_share"
        found[OVERALL] = rows, {label: Mean(unchanged(asked, full, rows))}
    return found


def as_tree(found: Found, asked: Asked, bootstrap: Bootstrap) -> tuple[Tree, dict[str, Weights]]:
    """Values with intervals, and the replicates of each metric by `task.metric`."""
    tree: Tree = {}
    replicates: dict[str, Weights] = {}
    for task, (rows, metrics) in found.items():
        tree[task] = {}
        weights = bootstrap.rows([asked.patients[row] for row in rows])
        for metric, one in metrics.items():
            value = one.value
            values = one(weights) if value is not None else np.full(len(weights), math.nan)
            low, high = interval(values)
            tree[task][metric] = {
                "value": None if value is None else round(value, DIGITS),
                "low": low,
                "high": high,
                "n": one.n,
                "undefined": one.undefined,
            }
            replicates[f"{task}.{metric}"] = values
    return tree, replicates


def add_differences(
    tree: Tree, asked: Asked, full: Asked, tasks: Mapping[str, Task], bootstrap: Bootstrap
) -> None:
    """Add to each value its paired difference from the full set, over the questions that both were asked.

    What a subset cannot be asked at all would otherwise make it look better, or worse, than it is. Reports and captions
    are compared each with its own reference, which says less where less is shown.
    """
    rows_here = {answer.question.identity: row for row, answer in enumerate(asked.answers)}
    rows_there = {answer.question.identity: row for row, answer in enumerate(full.answers)}
    common = [question for question in rows_here if question in rows_there]
    for name, task in tasks.items():
        own = [question for question in common if question[1] == name]
        here, there = [rows_here[q] for q in own], [rows_there[q] for q in own]
        scores, base = (
            task.score([one.answers[row] for row in rows])
            for one, rows in ((asked, here), (full, there))
        )
        weights = bootstrap.rows([asked.patients[row] for row in here])
        for metric, row in tree[name].items():
            value, before = (
                found[metric].value if metric in found else None for found in (scores, base)
            )
            if value is None or before is None:
                row["difference"] = None
                continue
            low, high = interval(scores[metric](weights) - base[metric](weights))
            row["difference"] = {
                "value": round(value - before, DIGITS),
                "low": low,
                "high": high,
                "n": len(own),
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


def answer_rows(asked: Asked, tasks: Mapping[str, Task], found: Found) -> list[dict[str, Any]]:
    """One row for each answer, graded by its task's primary metric, and one for each study that could not be asked."""
    score: dict[int, float | None] = {}
    for name, task in tasks.items():
        rows, scores = found[name]
        values = [
            None if math.isnan(value) else round(float(value), DIGITS)
            for value in per_answer(scores[task.primary])
        ]
        score |= dict(zip(rows, values, strict=True))
    where = {"subset": asked.condition.subset, "probe": asked.condition.probe}
    lines: list[dict[str, Any]] = [
        {
            "study": a.instruction.study_id,
            "task": a.instruction.task,
            "question": a.instruction.key,
            "language": a.instruction.language,
            "prompt": a.instruction.prompt,
            "target": a.instruction.reference,
            "answer": a.text,
            "truncated": a.truncated,
            "score": score[row],
            "probabilities": tasks[a.instruction.task].probabilities(a),
            "failure": None,
            **where,
        }
        for row, a in enumerate(asked.answers)
    ]
    return lines + [
        {"study": study, "failure": reason, **where} for study, reason in asked.failures.items()
    ]


def write_answers(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """All answers as a Parquet file."""
    pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA), path)


def write_replicates(path: Path, bootstrap: Bootstrap, replicates: Mapping[str, Weights]) -> None:
    """Resampled values of the full set, so that runs on the same patients can be compared in pairs."""
    columns = {name: pa.array(values) for name, values in replicates.items()}
    metadata = {"patients": bootstrap.digest(), "subset": FULL}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)
