"""A sweep of stage 3 on synthetic phantoms with one evaluation each, and its table and figure."""

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

Shown = Sequence[tuple[str, str, str]]  # task, metric, label


def sweep(
    jobs: Mapping[str, Sequence[str]], out: Path, steps: str, asked: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Train stage 3 for each job from the same settings and evaluate it on the phantoms' test set.

    Args:
        jobs: Name to the overrides that tell it from the others.
        out: Folder of the runs.
        steps: Steps of each.
        asked: Settings of the evaluation.

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
        run("cmrvlm.evaluate", f"run={folder}", "+data=phantom_test", "probes=null", *asked)
        results[name] = metrics(folder / "evaluation")
    return results


def value(content: Mapping[str, Any], task: str, metric: str) -> float | None:
    """A metric of an evaluation; None when undefined or not asked."""
    row = content["tasks"].get(task, {}).get(metric)
    return None if row is None or row["value"] is None else float(row["value"])


def keep(folder: Path, results: Mapping[str, Mapping[str, Any]], shown: Shown, steps: str) -> None:
    """Write `metrics.json`, `table.md` and `scores.png` into an experiment's folder."""
    (folder / "metrics.json").write_text(
        json.dumps({"steps": int(steps), "jobs": results}, indent=1)
    )
    lines = [
        f"| job | {' | '.join(label for *_, label in shown)} |",
        "|---|" + "---:|" * len(shown),
    ]
    table = {
        name: [value(content, task, metric) for task, metric, _ in shown]
        for name, content in results.items()
    }
    for name, row in table.items():
        lines.append(
            f"| {name} | {' | '.join('undefined' if one is None else f'{one:.3f}' for one in row)} |"
        )
    (folder / "table.md").write_text("\n".join(lines) + "\n")
    figure = Figure(figsize=(1.6 * len(shown) + 2, 3.4), layout="constrained")
    axis = figure.subplots()
    width = 0.8 / len(table)
    for index, (name, row) in enumerate(table.items()):
        heights = [np.nan if one is None else one for one in row]
        axis.bar(np.arange(len(shown)) + index * width, heights, width, label=name)
    axis.set_xticks(
        np.arange(len(shown)) + 0.4 - width / 2, [label for *_, label in shown], fontsize=8
    )
    axis.set_ylabel("score, synthetic test set")
    figure.legend(loc="outside right upper", fontsize=8)
    save(figure, folder / "scores.png", vector=True)
    CONSOLE.print("\n".join(lines), markup=False)
