"""Compare evaluated runs by the intervals of their paired differences.

`python -m cmrvlm.compare A B …`
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from cmrvlm.config.command import exit_on_error
from cmrvlm.config.console import print_table
from cmrvlm.config.terminal import PlainConsole
from cmrvlm.errors import CmrvlmError
from cmrvlm.evaluation.results import interval
from cmrvlm.evaluation.tables import PER_CLASS, Row, rich_table, shown

# A million resamples of a hundred metrics.
_MOST_BYTES = 2**30
# Settings of an evaluation that change what is asked or how answers are scored, whatever model
# is asked.
_SAME_SETTINGS = (
    "part",
    "study_ids",
    "cases_per_task",
    "languages",
    "context",
    "decoding",
    "cleaning",
    "text_scale",
    "bleu_tokenizers",
    "rouge_and_meteor_tokenizer",
    "meteor",
    "bert_score",
)


@dataclass(frozen=True)
class EvaluatedRun:
    """Results of a run's evaluation.

    Attributes:
        folder: Folder of the evaluation.
        content: Content of its `metrics.json`.
        replicates: Columns `task.metric` with the value of each bootstrap resample of patients.
    """

    folder: Path
    content: dict[str, Any]
    replicates: pyarrow.Table

    @classmethod
    def read(cls, path: Path) -> EvaluatedRun:
        """Read the results in a run folder or in an evaluation folder.

        Raises:
            CmrvlmError: A file is missing or damaged, or is no result of an evaluation.
        """
        # It loads PyTorch, which `--help` need not wait for.
        from cmrvlm.runs.run_files import check_regular, naming_damage, read_mapping

        folder = evaluation_folder(path)
        content = read_mapping(folder / "metrics.json", "runs")
        replicates_file = folder / "replicates.parquet"
        check_regular(replicates_file, "runs")
        with naming_damage(folder, "runs"):
            replicates = _read_replicates(replicates_file)
            _check_content(content, replicates)
        return cls(folder, content, replicates)

    @property
    def name(self) -> str:
        """Name of the run."""
        if self.folder.name == "evaluation":
            return self.folder.parent.name
        return self.folder.name

    @property
    def patients(self) -> bytes:
        """Hash of the patients and of how they were resampled."""
        digest: bytes = self.replicates.schema.metadata[b"patients"]
        return digest

    def metric(self, task: str, name: str) -> dict[str, Any] | None:
        """Return value and interval of a metric, or None where the run was not scored on it."""
        result: dict[str, Any] | None = self.content["tasks"].get(task, {}).get(name)
        return result


def _read_replicates(file: Path) -> pyarrow.Table:
    """Read the resampled values of an evaluation.

    Raises:
        ValueError: It is too large unpacked, or names no patients.
    """
    with pyarrow.parquet.ParquetFile(file) as parquet:
        groups = [parquet.metadata.row_group(index) for index in range(parquet.num_row_groups)]
        if sum(group.total_byte_size for group in groups) > _MOST_BYTES:
            raise ValueError(f"{file.name} is too large for an evaluation")
        table = parquet.read()
    if b"patients" not in (table.schema.metadata or {}):
        raise ValueError(f"{file.name} names no patients")
    return table


def _check_content(content: Mapping[str, Any], replicates: pyarrow.Table) -> None:
    """Refuse scores that are no numbers, or without resampled values.

    Raises:
        ValueError: There are such scores.
        KeyError: Something is missing.
    """
    dict(content["settings"])
    for task, metrics in content["tasks"].items():
        for metric, row in metrics.items():
            for name in ("value", "low", "high"):
                if not isinstance(row[name], (int, float, NoneType)):
                    raise ValueError(f"{name} of {task}.{metric} is {row[name]!r:.60}")
            if f"{task}.{metric}" not in replicates.column_names:
                raise ValueError(f"{task}.{metric} has no resampled values")


def evaluation_folder(path: Path) -> Path:
    """Return the folder that holds `metrics.json`: the path itself, or `evaluation` in it.

    Raises:
        CmrvlmError: Neither does.
    """
    for folder in (path, path / "evaluation"):
        if (folder / "metrics.json").is_file():
            return folder
    raise CmrvlmError(
        "there is no metrics.json here",
        file=path,
        remedy="Run python -m cmrvlm.evaluate first.",
    )


def compare(paths: Sequence[Path], *, classes: bool = False) -> tuple[Row, list[Row]]:
    """Build the table of each metric of the first run, and of the others with their differences.

    Args:
        paths: Runs or their evaluation folders.
        classes: Show single classes too.

    Returns:
        Head and rows of the table.

    Raises:
        CmrvlmError: Runs were not evaluated on the same patients with the same resamples, or were
            asked or scored in another way.
    """
    first, *others = (EvaluatedRun.read(path) for path in paths)
    _check_patients(first, others)
    _check_settings(first, others)

    head = ["task", "metric", first.name]
    for other in others:
        head += [other.name, "difference (95 %)"]
    rows = []
    for task, name in _metrics([first, *others], classes=classes):
        row = [task, name, shown(first.metric(task, name), interval=True)]
        for other in others:
            row.append(shown(other.metric(task, name)))
            row.append(_difference(first, other, task, name))
        rows.append(tuple(row))
    return tuple(head), rows


def _check_patients(first: EvaluatedRun, others: Sequence[EvaluatedRun]) -> None:
    """Refuse runs whose metrics are not paired, for they were not scored on the same patients."""
    if any(other.patients != first.patients for other in others):
        raise CmrvlmError(
            "the runs were not evaluated on the same patients",
            file=others[-1].folder,
            remedy="Evaluate them on one split with the same number of resamples.",
        )


def _check_settings(first: EvaluatedRun, others: Sequence[EvaluatedRun]) -> None:
    """Refuse runs that were asked or scored in another way than the first."""
    expected = first.content["settings"]
    for other in others:
        settings = other.content["settings"]
        for name in _SAME_SETTINGS:
            if settings.get(name) != expected.get(name):
                raise CmrvlmError(
                    f"evaluated with {settings.get(name)}, the first with {expected.get(name)}",
                    file=other.folder,
                    field=name,
                    remedy="Evaluate the runs in the same way.",
                )


def _metrics(runs: Sequence[EvaluatedRun], *, classes: bool) -> list[tuple[str, str]]:
    """Return task and metric of all that any run was scored on, in the order of the runs."""
    # A dictionary, because a set has no order.
    metrics: dict[tuple[str, str], None] = {}
    for run in runs:
        for task, name in _metrics_of(run):
            if classes or not name.startswith(PER_CLASS):
                metrics[task, name] = None
    return list(metrics)


def _metrics_of(run: EvaluatedRun) -> Iterator[tuple[str, str]]:
    """Yield task and metric of all that a run was scored on."""
    for task, metrics in run.content["tasks"].items():
        for name in metrics:
            yield task, name


def _difference(first: EvaluatedRun, other: EvaluatedRun, task: str, name: str) -> str:
    """Return the paired difference of a metric with its interval, or "" where one has no value."""
    base = first.metric(task, name)
    metric = other.metric(task, name)
    if base is None or metric is None:
        return ""
    if base["value"] is None or metric["value"] is None:
        return ""
    column = f"{task}.{name}"
    base_replicates = np.asarray(first.replicates[column])
    low, high = interval(np.asarray(other.replicates[column]) - base_replicates)
    difference = f"{metric['value'] - base['value']:+.3f}"
    if low is None:
        return difference
    return f"{difference} ({low:+.3f} to {high:+.3f})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare the runs that the command line names and print the table."""
    parser = argparse.ArgumentParser(prog="python -m cmrvlm.compare", description=__doc__)
    parser.add_argument(
        "runs", nargs="+", type=Path, help="run folders or their evaluation folders"
    )
    parser.add_argument("--classes", action="store_true", help="show single classes too")
    options = parser.parse_args(arguments)
    with exit_on_error():
        head, rows = compare(options.runs, classes=options.classes)
    table = rich_table(head, rows, "Evaluated runs, paired over the same patients")
    print_table(table, PlainConsole(width=160))


if __name__ == "__main__":
    main()
