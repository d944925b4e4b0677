"""What is kept of a comparison: numbers with intervals, a table, and learning curves."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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

_SPANS = 30  # of a learning curve
_CHOSEN_ON = 2  # folds on whose held-out patients settings of ours were compared


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
    """Write the tables, the numbers and the curves of this data set beside those of others into a folder.

    `dynunet` is the baseline with the larger mean Dice on these patients: nnU-Net too keeps the better of its plans.
    """
    studies = [one for fold in folds for one in fold.studies]
    native = [one for fold in folds for one in fold.native]
    models = list(folds[0].maps)
    maps = {
        model: {study: labels for fold in folds for study, labels in fold.maps[model].items()}
        for model in models
    }
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
            if isinstance(one, Mean) and isinstance(scored[other][metric], Mean)
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
    for kind, lines in (
        ("table", all_metrics(models, content[name])),
        ("summary", summary(models, content[name])),
    ):
        (to / f"{kind}_{name}.md").write_text("\n".join(lines) + "\n")
        CONSOLE.print("\n".join(lines), markup=False)
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


def _mean_dice(scores: Mapping[str, Statistic], chosen: DataSet) -> float:
    found = [
        value for one in chosen.structures if (value := scores[f"{one}_dice"].value) is not None
    ]
    return float(np.mean(found))


def _means_behind(
    scored: Mapping[str, Mapping[str, Statistic]], first: int
) -> dict[str, dict[str, float]]:
    """Mean Dice over the studies behind the first so many, on which settings were chosen."""
    return {
        model: {
            metric: round(value, 4)
            for metric, one in own.items()
            if "dice" in metric
            and isinstance(one, Mean)
            and (value := Mean(one.values[first:]).value) is not None
        }
        for model, own in scored.items()
    }


def _scores(
    maps: Mapping[str, LabelMap], studies: Sequence[Study], native: Sequence[Study], chosen: DataSet
) -> dict[str, Statistic]:
    """Scores on the model's grid, and Dice once more on the native one."""
    moved = {
        one.study_id: to_native(maps[one.study_id], one, there, chosen.sequence)
        for one, there in zip(studies, native, strict=True)
    }
    there = overlaps(moved, native, chosen.sequence, chosen.structures)
    return statistics(maps, studies, chosen) | {
        f"{name}_native": one for name, one in there.items() if name.endswith("dice")
    }


def _curves(folds: Sequence[Fold], path: Path) -> None:
    """Training loss over minutes, averaged over spans of time, relative to each model's own first value.

    Relative, for their losses are made up differently; averaged, for ours has one study a step.
    """
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axis = figure.subplots()
    for number, model in enumerate(folds[0].curves):
        for index, fold in enumerate(folds):
            minute, loss = np.array(
                [point for point in fold.curves[model] if point[1] > 0]
            ).T  # 0: no mask was asked
            counts, edges = np.histogram(minute, _SPANS)
            known = counts > 0
            mean = np.histogram(minute, edges, weights=loss)[0][known] / counts[known]
            axis.plot(
                ((edges[1:] + edges[:-1]) / 2)[known],
                mean / mean[0],
                color=f"C{number}",
                alpha=0.7,
                linewidth=1,
                label=model if index == 0 else None,
            )
    axis.set_xlabel("minutes of training")
    axis.set_ylabel("training loss, first value = 1")
    axis.set_yscale("log")
    axis.legend()
    save(figure, path)
