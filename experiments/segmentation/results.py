"""Keep the results of a comparison: numbers with intervals, a table, and learning curves."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cmrvlm.inference.label_maps import to_native
from cmrvlm.metrics.statistic import Mean, Statistic
from cmrvlm.study.drawing import save
from cmrvlm.study.study import Study
from experiments.commands import CONSOLE
from experiments.segmentation.data import DataSet
from experiments.segmentation.pictures import by_dice, cases_of, thickness_of
from experiments.segmentation.scores import LabelMap, as_rows, difference, overlaps, statistics
from experiments.segmentation.tables import all_metrics, summary

# Spans of time that a learning curve is averaged over.
_SPANS = 30
# Folds on whose held-out patients settings of ours were compared.
_CHOSEN_ON = 2


@dataclass(frozen=True)
class Fold:
    """Held-out studies and what the models made of them.

    Attributes:
        studies: Studies on the model's grid.
        native: The same studies on their native grid.
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
    """Write the tables, the numbers and the curves of a data set beside those of others.

    `dynunet` is the baseline with the larger mean Dice: nnU-Net too keeps the better plan.

    Args:
        name: Name of the data set.
        chosen: The data set.
        folds: Held-out studies and predicted label maps of each fold.
        minutes: Planned minutes of training.
        to: Folder to write into.
    """
    studies = [study for fold in folds for study in fold.studies]
    native = [study for fold in folds for study in fold.native]
    models = list(folds[0].maps)
    maps: dict[str, dict[str, LabelMap]] = {}
    for model in models:
        maps[model] = {}
        for fold in folds:
            maps[model].update(fold.maps[model])
    scored = {model: _scores(maps[model], studies, native, chosen) for model in models}
    to.mkdir(parents=True, exist_ok=True)
    path = to / "metrics.json"
    content: dict[str, Any] = {}
    if path.is_file():
        content = json.loads(path.read_text())
    content[name] = {model: as_rows(metrics, studies) for model, metrics in scored.items()}
    baselines = [model for model in models if model.startswith("dynunet")]
    for other in baselines:
        content[name][f"ours_less_{other}"] = {
            metric: difference(statistic, scored[other][metric], studies)
            for metric, statistic in scored.get("ours", {}).items()
            if isinstance(statistic, Mean) and isinstance(scored[other][metric], Mean)
        }
    if baselines:
        best = max(baselines, key=lambda model: _mean_dice(scored[model], chosen))
        content[name]["dynunet"] = content[name][best] | {"plan": best}
    if len(folds) > _CHOSEN_ON:
        seen = sum(len(fold.studies) for fold in folds[:_CHOSEN_ON])
        content[name]["but_first_two_folds"] = _means_behind(scored, seen)
    spent = {
        model: round(sum(fold.minutes[model] for fold in folds) / len(folds), 2) for model in models
    }
    content[name]["training"] = {
        "minutes": minutes,
        "minutes_taken": spent,
        "folds": len(folds),
        "test_studies": len(studies),
        "cores": os.cpu_count(),
        "seed": 0,
    }
    path.write_text(json.dumps(content, indent=1))
    _tables(name, models, content[name], to)
    _curves(folds, to / f"curves_{name}.png")
    if "ours" in maps:
        _pictures(name, maps["ours"], studies, native, chosen, to)


def _tables(name: str, models: Sequence[str], content: Mapping[str, Any], to: Path) -> None:
    """Write and print the tables of a data set, given its name and results."""
    tables = {
        "table": all_metrics(models, content),
        "summary": summary(models, content),
    }
    for prefix, lines in tables.items():
        text = "\n".join(lines)
        (to / f"{prefix}_{name}.md").write_text(text + "\n")
        CONSOLE.print(text, markup=False)


def _pictures(
    name: str,
    maps: Mapping[str, LabelMap],
    studies: Sequence[Study],
    native: Sequence[Study],
    chosen: DataSet,
    to: Path,
) -> None:
    """Draw cases of our model, and the wall thickness of the median one on the short axis.

    Args:
        name: Name of the data set.
        maps: Study id to predicted labels (Z, T, H, W) on the model's grid.
        studies: Studies on the model's grid.
        native: The same studies on their native grid.
        chosen: The data set.
        to: Folder to write into.
    """
    ordered = by_dice(maps, studies, chosen)
    cases_of(maps, ordered, chosen, to / f"cases_{name}.png")
    if chosen.sequence != "sax":
        return
    _, median = ordered[len(ordered) // 2]
    native_median = next(study for study in native if study.study_id == median.study_id)
    labels = to_native(maps[median.study_id], median, native_median, "sax")
    thickness_of(labels, native_median, to / f"wall_thickness_{name}.png")


def _mean_dice(scores: Mapping[str, Statistic], chosen: DataSet) -> float:
    """Return the mean Dice over the structures for which it is defined."""
    values = [scores[f"{structure}_dice"].value for structure in chosen.structures]
    return float(np.mean([value for value in values if value is not None]))


def _means_behind(
    scored: Mapping[str, Mapping[str, Statistic]], first: int
) -> dict[str, dict[str, float]]:
    """Return each model's mean Dice without the first studies, on which settings were chosen."""
    result: dict[str, dict[str, float]] = {}
    for model, metrics in scored.items():
        result[model] = {}
        for metric, statistic in metrics.items():
            if "dice" not in metric or not isinstance(statistic, Mean):
                continue
            value = Mean(statistic.values[first:]).value
            if value is not None:
                result[model][metric] = round(value, 4)
    return result


def _scores(
    maps: Mapping[str, LabelMap], studies: Sequence[Study], native: Sequence[Study], chosen: DataSet
) -> dict[str, Statistic]:
    """Return scores on the model's grid, and Dice once more on the native one."""
    native_maps: dict[str, LabelMap] = {}
    for study, native_study in zip(studies, native, strict=True):
        labels = maps[study.study_id]
        native_maps[study.study_id] = to_native(labels, study, native_study, chosen.sequence)
    native_metrics = overlaps(native_maps, native, chosen.sequence, chosen.structures)
    metrics = statistics(maps, studies, chosen)
    for name, statistic in native_metrics.items():
        if name.endswith("dice"):
            metrics[f"{name}_native"] = statistic
    return metrics


def _curves(folds: Sequence[Fold], path: Path) -> None:
    """Draw the training loss over minutes, averaged over spans of time.

    It is relative to each model's first value, for the models' losses are not comparable, and
    averaged, for ours has one study a step.
    """
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axis = figure.subplots()
    for number, model in enumerate(folds[0].curves):
        for index, fold in enumerate(folds):
            # A loss of 0 is that of a step without any mask.
            points = [point for point in fold.curves[model] if point[1] > 0]
            minute, loss = np.array(points).T
            # A model has one entry in the legend, whatever the number of folds.
            label = None
            if index == 0:
                label = model
            counts, edges = np.histogram(minute, _SPANS)
            known = counts > 0
            mean = np.histogram(minute, edges, weights=loss)[0][known] / counts[known]
            axis.plot(
                ((edges[1:] + edges[:-1]) / 2)[known],
                mean / mean[0],
                color=f"C{number}",
                alpha=0.7,
                linewidth=1,
                label=label,
            )
    axis.set_xlabel("minutes of training")
    axis.set_ylabel("training loss, first value = 1")
    axis.set_yscale("log")
    axis.legend()
    save(figure, path)
