"""Figures of an evaluation: agreement of volumes, calibration, and what each subset of sequences is good for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cmrvlm.evaluation.results import Tree
from cmrvlm.metrics.agreement import LIMIT
from cmrvlm.metrics.statistic import CalibrationError
from cmrvlm.reports.numbers import numbers_stated
from cmrvlm.study.drawing import save
from cmrvlm.study.measurements import MEASUREMENTS
from cmrvlm.study.vocabulary import DISEASES, FINDINGS
from cmrvlm.tasks.base import Answer
from cmrvlm.tasks.quantification import QUANTITIES


def bland_altman(answers: Sequence[Answer], path: Path) -> None:
    """Difference against mean of each quantity that `volume` answers state, with bias and limits of agreement."""
    names = [name for own in QUANTITIES.values() for name in own]
    pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for answer in answers:
        for name, said in numbers_stated(answer.text).items():
            if name in QUANTITIES.get(answer.instruction.case.key, ()):
                pairs[name].append((said, answer.instruction.values[name]))
    if not any(pairs.values()):
        return
    figure = Figure(figsize=(11, 6.2), layout="constrained")
    for axis, name in zip(figure.subplots(2, 3).flat, names, strict=True):
        one = MEASUREMENTS[name]
        axis.set_title(f"{one.en} ({one.unit})", fontsize=9)
        axis.set_xlabel("mean of model and truth", fontsize=8)
        axis.set_ylabel("model - truth", fontsize=8)
        if len(pairs[name]) > 1:
            values = np.array(pairs[name])
            gap = values[:, 0] - values[:, 1]
            axis.scatter(values.mean(axis=1), gap, s=9, alpha=0.6)
            for height in (
                gap.mean(),
                *(gap.mean() + sign * LIMIT * gap.std(ddof=1) for sign in (-1, 1)),
            ):
                axis.axhline(
                    height,
                    color="black",
                    linewidth=0.8,
                    linestyle="-" if height == gap.mean() else "--",
                )
    save(figure, path, vector=True)


def _reliability(axis: Axes, truth: np.ndarray, guess: np.ndarray, title: str) -> None:
    index = np.clip((guess * CalibrationError.bins).astype(int), 0, CalibrationError.bins - 1)
    filled = np.unique(index)
    axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    axis.plot(
        [guess[index == b].mean() for b in filled],
        [truth[index == b].mean() for b in filled],
        marker="o",
    )
    axis.set_title(title, fontsize=9)
    axis.set_xlabel("predicted probability", fontsize=8)
    axis.set_ylabel("observed share", fontsize=8)


def reliability(diseases: Sequence[Answer], findings: Sequence[Answer], path: Path) -> None:
    """Observed against predicted share for the probabilities of diseases and of findings."""
    panels = []
    known = [
        a for a in diseases if "disease" in a.read_outs and a.instruction.case.truth is not None
    ]
    if known:
        truth = np.array(
            [[c in str(a.instruction.case.truth).split("+") for c in DISEASES] for a in known]
        )
        panels.append(
            ("disease", truth.ravel(), np.stack([a.read_outs["disease"] for a in known]).ravel())
        )
    asked = [a for a in findings if "findings" in a.read_outs]
    if asked:
        codes = list(FINDINGS)
        guess = np.array(
            [a.read_outs["findings"][codes.index(a.instruction.case.key)] for a in asked]
        )
        panels.append(
            ("abnormality", np.array([a.instruction.case.truth == "yes" for a in asked]), guess)
        )
    if not panels:
        return
    figure = Figure(figsize=(4 * len(panels), 3.6), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, truth, guess) in zip(axes, panels, strict=True):
        _reliability(axis, truth, guess, title)
    save(figure, path, vector=True)


def subset_map(trees: Mapping[str, Tree], path: Path) -> None:
    """AUROC of each disease by subset of sequences, as a map with numbers."""
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
