"""What is kept of a comparison: numbers with intervals, a table, and learning curves."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cmrvlm.figures import save
from cmrvlm.label_maps import to_native
from cmrvlm.metrics.statistic import Mean, Statistic
from cmrvlm.study import Study
from experiments.commands import CONSOLE
from experiments.segmentation.data import DataSet
from experiments.segmentation.pictures import by_dice, cases_of, thickness_of
from experiments.segmentation.scores import LabelMap, as_rows, difference, overlaps, statistics

_SPANS = 30  # of a learning curve


@dataclass(frozen=True)
class Fold:
    """Held-out studies and what the models made of them.

    Attributes:
        studies: On the model's grid.
        native: The same on their own grid.
        maps: Model to study id to labels (Z, T, H, W) on the model's grid.
        curves: Model to minutes and training loss.
        minutes: Model to the minutes that its training took.
    """

    studies: list[Study]
    native: list[Study]
    maps: Mapping[str, Mapping[str, LabelMap]]
    curves: Mapping[str, Sequence[tuple[float, float]]]
    minutes: Mapping[str, float]


def keep(name: str, chosen: DataSet, folds: Sequence[Fold], minutes: float, to: Path) -> None:
    """Write the table, the numbers and the curves of this data set beside those of others into a folder."""
    studies = [one for fold in folds for one in fold.studies]
    native = [one for fold in folds for one in fold.native]
    models = list(folds[0].maps)
    maps = {model: {study: labels for fold in folds for study, labels in fold.maps[model].items()} for model in models}
    scored = {model: _scores(own, studies, native, chosen) for model, own in maps.items()}
    to.mkdir(parents=True, exist_ok=True)
    path = to / "metrics.json"
    content = json.loads(path.read_text()) if path.is_file() else {}
    content[name] = {model: as_rows(own, studies) for model, own in scored.items()}
    baselines = [model for model in models if model.startswith("dynunet")]
    for other in baselines:
        content[name][f"ours_less_{other}"] = {
            metric: difference(one, scored[other][metric], studies)
            for metric, one in scored.get("ours", {}).items()
            if isinstance(one, Mean) and isinstance(scored[other][metric], Mean)}  # fmt: skip
    if len(folds) > 1:
        content[name]["but_first_fold"] = _but_first_fold(scored, len(folds[0].studies))
    spent = {model: round(sum(fold.minutes[model] for fold in folds) / len(folds), 2) for model in models}
    content[name]["training"] = {"minutes": minutes, "minutes_taken": spent, "folds": len(folds),
                                 "test_studies": len(studies), "cores": os.cpu_count(), "seed": 0}  # fmt: skip
    path.write_text(json.dumps(content, indent=1))
    _table(name, len(studies), scored, content[name], to)
    _curves(folds, to / f"curves_{name}.png")
    if "ours" not in maps:
        return
    ordered = by_dice(maps["ours"], studies, chosen)
    cases_of(maps["ours"], ordered, chosen, to / f"cases_{name}.png")
    if chosen.sequence == "sax":
        _, median = ordered[len(ordered) // 2]
        there = next(one for one in native if one.study_id == median.study_id)
        moved = to_native(maps["ours"][median.study_id], median, there, "sax")
        thickness_of(moved, there, to / f"wall_thickness_{name}.png")


def _but_first_fold(scored: Mapping[str, Mapping[str, Statistic]], first: int) -> dict[str, dict[str, float]]:
    """Mean Dice over the studies behind the first fold's, on which settings were chosen."""
    return {model: {metric: round(value, 4) for metric, one in own.items() if "dice" in metric and isinstance(one, Mean)
                    and (value := Mean(one.values[first:]).value) is not None}
            for model, own in scored.items()}  # fmt: skip


def _scores(maps: Mapping[str, LabelMap], studies: Sequence[Study], native: Sequence[Study], chosen: DataSet
            ) -> dict[str, Statistic]:  # fmt: skip
    """Scores on the model's grid, and Dice once more on the native one."""
    moved = {one.study_id: to_native(maps[one.study_id], one, there, chosen.sequence)
             for one, there in zip(studies, native, strict=True)}  # fmt: skip
    there = overlaps(moved, native, chosen.sequence, chosen.structures)
    return statistics(maps, studies, chosen) | {
        f"{name}_native": one for name, one in there.items() if name.endswith("dice")}  # fmt: skip


def _table(name: str, count: int, scored: Mapping[str, Mapping[str, Statistic]], content: Mapping[str, Any],
           to: Path) -> None:  # fmt: skip
    lines = [f"| {name}, {count} studies held out | {' | '.join(scored)} |", "|---|" + "---:|" * len(scored)]
    for metric in next(iter(scored.values())):
        shown = [_shown(content[model][metric], count) for model in scored]
        lines.append(f"| {metric} | {' | '.join(shown)} |")
    for other in (key for key in content if key.startswith("ours_less_")):
        found = {metric: one for metric, one in content[other].items() if one["value"] is not None}
        lines += ["", f"| {other.replace('_', ' ')} | difference | 95 % interval | n |", "|---|---:|---:|---:|"]
        lines += [f"| {metric} | {one['value']:+.3f} | {one['low']:+.3f} to {one['high']:+.3f} | {one['n']} |"
                  for metric, one in found.items()]  # fmt: skip
    (to / f"table_{name}.md").write_text("\n".join(lines) + "\n")
    CONSOLE.print("\n".join(lines), markup=False)


def _shown(row: Mapping[str, Any], count: int) -> str:
    """A value, with the number of studies that it is over where those are not all."""
    if row["value"] is None:
        return "undefined"
    return f"{row['value']:.3f}" + ("" if row["n"] == count else f" (n {row['n']})")


def _curves(folds: Sequence[Fold], path: Path) -> None:
    """Training loss over minutes, averaged over spans of time, relative to each model's own first value.

    Relative, for their losses are made up differently; averaged, for ours has one study a step.
    """
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axis = figure.subplots()
    for number, model in enumerate(folds[0].curves):
        for index, fold in enumerate(folds):
            minute, loss = np.array([point for point in fold.curves[model] if point[1] > 0]).T  # 0: no mask was asked
            counts, edges = np.histogram(minute, _SPANS)
            known = counts > 0
            mean = np.histogram(minute, edges, weights=loss)[0][known] / counts[known]
            axis.plot(((edges[1:] + edges[:-1]) / 2)[known], mean / mean[0], color=f"C{number}", alpha=0.7, linewidth=1,
                      label=model if index == 0 else None)  # fmt: skip
    axis.set_xlabel("minutes of training")
    axis.set_ylabel("training loss, first value = 1")
    axis.set_yscale("log")
    axis.legend()
    save(figure, path)
