"""Draw the figures of an evaluation: agreement of numbers, calibration, and scores by sequences shown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cmrvlm.evaluation.results import Tree
from cmrvlm.metrics.agreement import LIMIT
from cmrvlm.metrics.statistic import CalibrationError
from cmrvlm.study.drawing import save
from cmrvlm.study.measurements import MEASUREMENTS
from cmrvlm.study.vocabulary import DISEASES
from cmrvlm.tasks.base import Calibration


def bland_altman(pairs: Mapping[str, Sequence[tuple[float, float]]], path: Path) -> None:
    """Draw difference against mean of each measurement, with bias and limits of agreement.

    Args:
        pairs: Measurement to pairs of stated and true number.
        path: File to write; nothing is written without any pair.
    """
    if not any(pairs.values()):
        return
    columns = min(3, len(pairs))
    rows = math.ceil(len(pairs) / columns)
    figure = Figure(figsize=(11 * columns / 3, 3.1 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for axis, (name, numbers) in zip(axes, pairs.items(), strict=False):
        measurement = MEASUREMENTS[name]
        axis.set_title(f"{measurement.en} ({measurement.unit})", fontsize=9)
        axis.set_xlabel("mean of model and truth", fontsize=8)
        axis.set_ylabel("model - truth", fontsize=8)
        if len(numbers) > 1:
            _draw_agreement(axis, np.array(numbers))
    save(figure, path, vector=True)


def _draw_agreement(axis: Axes, pairs: NDArray[np.float64]) -> None:
    """Draw one Bland-Altman plot.

    Args:
        axis: Where to draw.
        pairs: (N, 2) stated and true numbers.
    """
    difference = pairs[:, 0] - pairs[:, 1]
    bias = difference.mean()
    spread = LIMIT * difference.std(ddof=1)
    axis.scatter(pairs.mean(axis=1), difference, s=9, alpha=0.6)
    axis.axhline(bias, color="black", linewidth=0.8, linestyle="-")
    for limit in (bias - spread, bias + spread):
        axis.axhline(limit, color="black", linewidth=0.8, linestyle="--")


def reliability(calibrations: Mapping[str, Calibration], path: Path) -> None:
    """Draw observed share against predicted probability.

    Args:
        calibrations: Task to its probabilities and what was true.
        path: File to write; nothing is written without any task.
    """
    if not calibrations:
        return
    count = len(calibrations)
    figure = Figure(figsize=(4 * count, 3.6), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    for axis, (task, calibration) in zip(axes, calibrations.items(), strict=True):
        _draw_reliability(axis, calibration, task)
    save(figure, path, vector=True)


def _draw_reliability(axis: Axes, calibration: Calibration, title: str) -> None:
    truth = np.asarray(calibration.truth)
    probability = np.asarray(calibration.probability)
    bins = CalibrationError.bins
    bin_of = np.clip((probability * bins).astype(int), 0, bins - 1)
    filled = np.unique(bin_of)
    axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    axis.plot(
        [probability[bin_of == number].mean() for number in filled],
        [truth[bin_of == number].mean() for number in filled],
        marker="o",
    )
    axis.set_title(title, fontsize=9)
    axis.set_xlabel("predicted probability", fontsize=8)
    axis.set_ylabel("observed share", fontsize=8)


def subset_map(trees: Mapping[str, Tree], path: Path) -> None:
    """Draw the AUROC of each disease by subset of sequences, as a map with numbers."""
    rows = [name for name in trees if trees[name].get("disease")]
    if len(rows) < 2:
        return
    table = [
        [trees[name]["disease"][f"auroc_{code}"]["value"] for code in DISEASES] for name in rows
    ]
    values = np.array([[np.nan if value is None else value for value in row] for row in table])
    figure = Figure(figsize=(11, 0.55 * len(rows) + 1.6), layout="constrained")
    axis = figure.subplots()
    picture = axis.imshow(values, vmin=0.5, vmax=1.0, cmap="viridis", aspect="auto")
    axis.set_xticks(range(len(DISEASES)), list(DISEASES), fontsize=8)
    axis.set_yticks(range(len(rows)), rows, fontsize=8)
    for row, column in np.ndindex(values.shape):
        if not np.isnan(values[row, column]):
            shade = "white" if values[row, column] < 0.8 else "black"
            axis.text(
                column,
                row,
                f"{values[row, column]:.2f}",
                ha="center",
                va="center",
                fontsize=7,
                color=shade,
            )
    figure.colorbar(picture, label="AUROC")
    axis.set_title("Diseases by sequences shown", fontsize=10)
    save(figure, path, vector=True)
