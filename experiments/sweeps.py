"""Sweep settings of stage 3 on synthetic phantoms, evaluate each, and draw table and figure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cmrvlm.study.drawing import save
from experiments.commands import CONSOLE, metrics, run, train_anew
from experiments.phantom.demo import SHARED

# Task, metric and label of each column.
Shown = Sequence[tuple[str, str, str]]


def sweep(
    jobs: Mapping[str, Sequence[str]], out: Path, steps: str, evaluation: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Train stage 3 for each job from the same settings and evaluate it on the phantoms' test set.

    Args:
        jobs: Name to the overrides that set it apart from the others.
        out: Folder of the runs.
        steps: Training steps of each job.
        evaluation: Settings of the evaluation.

    Returns:
        Name to the content of its `metrics.json`.
    """
    results = {}
    for name, overrides in jobs.items():
        folder = out / name.replace(" ", "_")
        train_anew(
            "+experiment=stage3",
            f"out={folder}",
            *SHARED,
            "trainer.limit_val_batches=1",
            "data.batch_size=8",
            f"trainer.max_steps={steps}",
            *overrides,
        )
        run("cmrvlm.evaluate", f"run={folder}", "+data=phantom_test", "probes=null", *evaluation)
        results[name] = metrics(folder / "evaluation")
    return results


def value(content: Mapping[str, Any], task: str, metric: str) -> float | None:
    """Return a metric of an evaluation; None when undefined or not asked."""
    row = content["tasks"].get(task, {}).get(metric)
    if row is None or row["value"] is None:
        return None
    return float(row["value"])


def _text(score: float | None) -> str:
    """Format a score with three digits."""
    if score is None:
        return "undefined"
    return f"{score:.3f}"


def keep(folder: Path, results: Mapping[str, Mapping[str, Any]], shown: Shown, steps: str) -> None:
    """Write `metrics.json`, `table.md` and `scores.png` into an experiment's folder.

    Args:
        folder: Folder of the experiment.
        results: Job to the content of its `metrics.json`.
        shown: Task, metric and label of each column.
        steps: Training steps of each job.
    """
    (folder / "metrics.json").write_text(
        json.dumps({"steps": int(steps), "jobs": results}, indent=1)
    )
    labels = [label for *_, label in shown]
    lines = [
        f"| job | {' | '.join(labels)} |",
        "|---|" + "---:|" * len(shown),
    ]
    table = {
        name: [value(content, task, metric) for task, metric, _ in shown]
        for name, content in results.items()
    }
    for name, row in table.items():
        cells = [_text(score) for score in row]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    (folder / "table.md").write_text("\n".join(lines) + "\n")
    _draw(table, labels, folder / "scores.png")
    CONSOLE.print("\n".join(lines), markup=False)


def _draw(table: Mapping[str, Sequence[float | None]], labels: Sequence[str], path: Path) -> None:
    """Draw the scores of each job as bars, grouped by metric.

    Args:
        table: Job to its scores.
        labels: Names of the scores.
        path: File to write.
    """
    figure = Figure(figsize=(1.6 * len(labels) + 2, 3.4), layout="constrained")
    axis = figure.subplots()
    width = 0.8 / len(table)
    positions = np.arange(len(labels))
    for index, (name, row) in enumerate(table.items()):
        # NumPy reads None as NaN, for which no bar is drawn.
        heights = np.array(row, dtype=np.float64)
        axis.bar(positions + index * width, heights, width, label=name)
    axis.set_xticks(positions + 0.4 - width / 2, labels, fontsize=8)
    axis.set_ylabel("score, synthetic test set")
    figure.legend(loc="outside right upper", fontsize=8)
    save(figure, path, vector=True)
