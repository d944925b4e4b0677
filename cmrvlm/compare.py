"""Evaluated runs side by side, with intervals of their paired differences: `python -m cmrvlm.compare A B …`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console

from cmrvlm.errors import CmrvlmError
from cmrvlm.evaluation.results import interval
from cmrvlm.evaluation.tables import PER_CLASS, rich_table, shown


def evaluation_folder(path: Path) -> Path:
    """The folder that holds `metrics.json`: the path itself, or `evaluation` in it.

    Raises:
        CmrvlmError: Neither does.
    """
    for folder in (path, path / "evaluation"):
        if (folder / "metrics.json").is_file():
            return folder
    raise CmrvlmError(
        "there is no metrics.json here", file=path, remedy="Run python -m cmrvlm.evaluate first."
    )


def compare(
    paths: Sequence[Path], *, classes: bool = False
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows of the table: each metric of the first run, and of the others with the difference from it.

    Args:
        paths: Runs or their evaluation folders.
        classes: Show single classes too.

    Raises:
        CmrvlmError: Runs were not evaluated on the same patients with the same resamples, or were asked or scored
            in another way.
    """
    folders = [evaluation_folder(path) for path in paths]
    contents: list[dict[str, Any]] = [
        json.loads((folder / "metrics.json").read_text()) for folder in folders
    ]
    resamples = [pq.read_table(folder / "replicates.parquet") for folder in folders]
    marks = [table.schema.metadata[b"patients"] for table in resamples]
    if len(set(marks)) > 1:
        raise CmrvlmError(
            "the runs were not evaluated on the same patients",
            file=folders[-1],
            remedy="Evaluate them on one split with the same number of resamples.",
        )
    _check_settings(folders, contents)
    rows = []
    for task, name in _metrics(contents, classes=classes):
        first, *others = (content["tasks"].get(task, {}).get(name) for content in contents)
        cells = [shown(first, interval=True)]
        for other, table in zip(others, resamples[1:], strict=True):
            cells += [
                shown(other),
                _difference(first, other, resamples[0], table, f"{task}.{name}"),
            ]
        rows.append((task, name, *cells))
    names = [
        folder.parent.name if folder.name == "evaluation" else folder.name for folder in folders
    ]
    head = (
        "task",
        "metric",
        names[0],
        *(cell for name in names[1:] for cell in (name, "difference (95 %)")),
    )
    return head, rows


# Settings of an evaluation that change what is asked or how answers are scored, whatever model is asked.
_SAME = (
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


def _check_settings(folders: Sequence[Path], contents: Sequence[dict[str, Any]]) -> None:
    first = contents[0]["settings"]
    for folder, content in zip(folders[1:], contents[1:], strict=True):
        for name in _SAME:
            if content["settings"].get(name) != first.get(name):
                raise CmrvlmError(
                    f"evaluated with {content['settings'].get(name)}, the first with {first.get(name)}",
                    file=folder,
                    field=name,
                    remedy="Evaluate the runs in the same way.",
                )


def _metrics(contents: Sequence[dict[str, Any]], *, classes: bool) -> list[tuple[str, str]]:
    """Task and metric of everything that any of the runs was scored on, in the order in which they come."""
    names = {
        (task, name): None
        for content in contents
        for task, metrics in content["tasks"].items()
        for name in metrics
        if classes or not name.startswith(PER_CLASS)
    }
    return list(names)


def _difference(
    first: dict[str, Any] | None, other: dict[str, Any] | None, a: Any, b: Any, column: str
) -> str:
    if first is None or other is None or first["value"] is None or other["value"] is None:
        return ""
    low, high = interval(np.asarray(b[column]) - np.asarray(a[column]))
    gap = f"{other['value'] - first['value']:+.3f}"
    return gap if low is None else f"{gap} ({low:+.3f} to {high:+.3f})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m cmrvlm.compare", description=__doc__)
    parser.add_argument(
        "runs", nargs="+", type=Path, help="run folders or their evaluation folders"
    )
    parser.add_argument("--classes", action="store_true", help="show single classes too")
    given = parser.parse_args(arguments)
    try:
        head, rows = compare(given.runs, classes=given.classes)
    except CmrvlmError as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(
            f"error: {error}", style="red", markup=False
        )
        sys.exit(1)
    Console(width=160).print(
        rich_table(head, rows, "Evaluated runs, paired over the same patients")
    )


if __name__ == "__main__":
    main()
