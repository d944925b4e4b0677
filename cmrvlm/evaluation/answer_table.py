"""Write `answers.parquet`: a row for each answer, and for each study that could not be asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cmrvlm.evaluation.conditions import Condition
from cmrvlm.evaluation.kept_answers import Asked
from cmrvlm.evaluation.results import rounded
from cmrvlm.metrics.statistic import Statistic, per_answer
from cmrvlm.study.atomic_files import atomic_write
from cmrvlm.tasks.base import Task

_SCHEMA = pa.schema(
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


class AnswerTable:
    """The table, written task by task.

    Args:
        writer: Writer of the file.
    """

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer

    @classmethod
    @contextmanager
    def at(cls, path: Path) -> Iterator[AnswerTable]:
        """Yield a table that is put in place when all of it is written."""
        with atomic_write(path) as temporary, pq.ParquetWriter(temporary, _SCHEMA) as writer:
            yield cls(writer)

    def add(self, task: Task, asked: Asked, statistics: Mapping[str, Statistic]) -> None:
        """Add the answers to a task under a condition, graded by the task's primary metric."""
        condition = _columns_of(asked.condition)
        scores = per_answer(statistics[task.primary])
        rows = []
        for answer, score in zip(asked.answers, scores, strict=True):
            instruction = answer.instruction
            rows.append(
                {
                    "study": instruction.study_id,
                    "task": instruction.task,
                    "question": instruction.key,
                    "language": instruction.language,
                    "prompt": instruction.prompt,
                    "target": instruction.reference,
                    "answer": answer.text,
                    "truncated": answer.truncated,
                    "score": rounded(score),
                    "probabilities": task.probabilities(answer),
                    **condition,
                }
            )
        self._write(rows)

    def add_failures(self, condition: Condition, failures: Mapping[str, str]) -> None:
        """Add the studies that could not be asked under a condition, with the reasons."""
        of_condition = _columns_of(condition)
        self._write(
            [
                {"study": study, "failure": reason, **of_condition}
                for study, reason in failures.items()
            ]
        )

    def _write(self, rows: list[dict[str, Any]]) -> None:
        """Write rows."""
        if rows:
            self._writer.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA))


def _columns_of(condition: Condition) -> dict[str, str]:
    """Return the columns that tell a condition from others."""
    return {"subset": condition.subset, "probe": condition.probe}
