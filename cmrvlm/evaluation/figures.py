"""Draw agreement of numbers, calibration, and scores by sequences shown, for an evaluation."""

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

# The picture of masks is drawn while questions are asked.
_PANEL = "panel"
# Name of each figure to the reason for which it is not there.
_NOTHING_TO_DRAW = {
    _PANEL: "no mask was asked for",
    "bland_altman": "no answer states a number whose true value is known",
    "reliability": "no task was asked that gives probabilities",
    "subsets": "diseases were not asked about with two subsets of the sequences",
}


def draw_all(
    stated_and_true: Mapping[str, Sequence[tuple[float, float]]],
    calibrations: Mapping[str, Calibration],
    subsets: Mapping[str, Tree],
    folder: Path,
) -> list[str]:
    """Draw agreement, calibration and scores by sequences shown.

    Figures of an earlier evaluation of the folder are removed first.

    Args:
        stated_and_true: Measurement to pairs of stated and true number.
        calibrations: Task to probabilities beside what was true.
        subsets: Subset of sequences to scores.
        folder: Folder for the figures.

    Returns:
        For each figure that is not there, that of masks included, its name and why.
    """
    paths = {name: folder / f"{name}.png" for name in _NOTHING_TO_DRAW}
    for name, path in paths.items():
        if name != _PANEL:
            path.unlink(missing_ok=True)
            path.with_suffix(".svg").unlink(missing_ok=True)
    bland_altman(stated_and_true, paths["bland_altman"])
    reliability(calibrations, paths["reliability"])
    subset_map(subsets, paths["subsets"])
    # Whoever names no subsets does not look for their figure.
    expected = [name for name in paths if subsets or name != "subsets"]
    return [
        f"no {paths[name].name}: {_NOTHING_TO_DRAW[name]}"
        for name in expected
        if not paths[name].is_file()
    ]


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
    width = 11 * columns / 3
    height = 3.1 * rows
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    # The last row may have more axes than measurements are left.
    for axis, (name, numbers) in zip(axes, pairs.items(), strict=False):
        measurement = MEASUREMENTS[name]
        title = f"{measurement.en} ({measurement.unit})"
        _label(axis, title, "mean of model and truth", "model - truth")
        # A single pair has no standard deviation, so no limits.
        if len(numbers) > 1:
            _draw_agreement(axis, np.array(numbers))
    save(figure, path, vector=True)


def _label(axis: Axes, title: str, x_label: str, y_label: str) -> None:
    """Write a title and the names of both axes."""
    # A task may have a name with dollars, which is no formula.
    axis.set_title(title, fontsize=9, parse_math=False)
    axis.set_xlabel(x_label, fontsize=8)
    axis.set_ylabel(y_label, fontsize=8)


def _draw_agreement(axis: Axes, pairs: NDArray[np.float64]) -> None:
    """Draw one Bland-Altman plot.

    Args:
        axis: Axes to draw on.
        pairs: (N, 2) stated and true numbers.
    """
    difference = pairs[:, 0] - pairs[:, 1]
    bias = difference.mean()
    half_width = LIMIT * difference.std(ddof=1)
    axis.scatter(
        pairs.mean(axis=1),
        difference,
        s=9,
        alpha=0.6,
    )
    axis.axhline(bias, color="black", linewidth=0.8, linestyle="-")
    lower_limit = bias - half_width
    upper_limit = bias + half_width
    for limit in (lower_limit, upper_limit):
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
    width = 4 * count
    figure = Figure(figsize=(width, 3.6), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    for axis, (task, calibration) in zip(axes, calibrations.items(), strict=True):
        _draw_reliability(axis, calibration, task)
    save(figure, path, vector=True)


def _draw_reliability(axis: Axes, calibration: Calibration, title: str) -> None:
    """Draw the observed share of positives in each bin of the predicted probability.

    Args:
        axis: Axes to draw on.
        calibration: Probabilities (N,) and whether each was true (N,).
        title: Text above the plot.
    """
    truth = np.asarray(calibration.truth)
    probability = np.asarray(calibration.probability)
    bin_count = CalibrationError.bins
    bin_of = (probability * bin_count).astype(int)
    # A probability of 1 belongs to the last bin.
    bin_of = np.clip(bin_of, 0, bin_count - 1)
    mean_probabilities = []
    observed_shares = []
    for number in np.unique(bin_of):
        in_bin = bin_of == number
        mean_probabilities.append(probability[in_bin].mean())
        observed_shares.append(truth[in_bin].mean())
    axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    axis.plot(mean_probabilities, observed_shares, marker="o")
    _label(axis, title, "predicted probability", "observed share")


def subset_map(trees: Mapping[str, Tree], path: Path) -> None:
    """Draw the AUROC of each disease by subset of sequences, as a map with numbers.

    Args:
        trees: Subset to its scores.
        path: File to write; nothing is written for fewer than two subsets with diseases.
    """
    subsets = [name for name in trees if trees[name].get("disease")]
    if len(subsets) < 2:
        return
    aurocs = []
    for name in subsets:
        scores = trees[name]["disease"]
        aurocs.append([scores[f"auroc_{code}"]["value"] for code in DISEASES])
    # NumPy reads None as NaN.
    values = np.array(aurocs, dtype=np.float64)
    height = 0.55 * len(subsets) + 1.6
    figure = Figure(figsize=(11, height), layout="constrained")
    axis = figure.subplots()
    picture = axis.imshow(values, vmin=0.5, vmax=1.0, cmap="viridis", aspect="auto")
    axis.set_xticks(range(len(DISEASES)), list(DISEASES), fontsize=8)
    axis.set_yticks(range(len(subsets)), subsets, fontsize=8)
    _write_numbers(axis, values)
    figure.colorbar(picture, label="AUROC")
    axis.set_title("Diseases by sequences shown", fontsize=10)
    save(figure, path, vector=True)


def _write_numbers(axis: Axes, values: NDArray[np.float64]) -> None:
    """Write the defined values (R, C) into the cells of a map."""
    for (row, column), value in np.ndenumerate(values):
        if np.isnan(value):
            continue
        shade = "black"
        # The map is dark below this value.
        if value < 0.8:
            shade = "white"
        axis.text(
            column,
            row,
            f"{value:.2f}",
            ha="center",
            va="center",
            fontsize=7,
            color=shade,
        )
