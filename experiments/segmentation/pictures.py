"""Draw the best, the median and the worst case, and a bull's eye."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cmrvlm.metrics.segmentation import dice
from cmrvlm.quantification.figures import bulls_eye
from cmrvlm.quantification.segments import thickness_mm
from cmrvlm.study.drawing import COLORS, overlay, save
from cmrvlm.study.structures import STRUCTURE_VALUES
from cmrvlm.study.study import Study
from cmrvlm.study.vocabulary import STRUCTURES
from experiments.segmentation.data import DataSet
from experiments.segmentation.scores import LabelMap

# Slices of each case.
_SLICES = 5


def by_dice(
    maps: Mapping[str, LabelMap], studies: Sequence[Study], chosen: DataSet
) -> list[tuple[float, Study]]:
    """Return the mean Dice of each study with the study, the best first."""
    scored = [(_mean_dice(maps[study.study_id], study, chosen), study) for study in studies]
    return sorted(scored, key=lambda pair: pair[0], reverse=True)


def thickness_of(labels: LabelMap, native: Study, path: Path) -> None:
    """Draw the end-diastolic wall thickness of a study as a bull's eye.

    Args:
        labels: Predicted label map (Z, T, H, W) on the native grid.
        native: Study on its native grid.
        path: File to write.
    """
    series = replace(native.series["sax"], mask=labels)
    bulls_eye(
        thickness_mm(series, series.phases["ed"]),
        path,
        "end-diastolic wall thickness (mm)",
        (4, 16),
    )


def cases_of(
    maps: Mapping[str, LabelMap],
    ordered: Sequence[tuple[float, Study]],
    chosen: DataSet,
    path: Path,
) -> None:
    """Draw predicted above true structures of the best, the median and the worst study.

    Args:
        maps: Study id to predicted labels (Z, T, H, W).
        ordered: Mean Dice and study, as `by_dice` gives them.
        chosen: The data set.
        path: File to write.
    """
    shown = {"best": ordered[0], "median": ordered[len(ordered) // 2], "worst": ordered[-1]}
    figure = Figure(figsize=(1.9 * _SLICES, 2.1 * 2 * len(shown)), layout="constrained")
    axes = figure.subplots(2 * len(shown), _SLICES, squeeze=False)
    for row, (name, (score, study)) in enumerate(shown.items()):
        series = study.series[chosen.sequence]
        labels = maps[study.study_id]
        assert series.mask is not None
        # End-systole, the harder one.
        frame = series.annotated_frames()[-1]
        drawn = (series.mask[:, frame] > 0).any(axis=(1, 2)).nonzero()[0]
        indices = np.unique(np.linspace(drawn[0], drawn[-1], _SLICES).round().astype(int))
        # A stack may have fewer slices than there are columns.
        unused = axes[2 * row : 2 * row + 2, len(indices) :]
        for axis in unused.flat:
            axis.axis("off")
        for column, index in enumerate(indices):
            titles = [f"slice {index}", f"slice {index}"]
            if column == 0:
                titles = [f"{name}, {score:.3f}", "truth"]
            picture = np.asarray(series.image[index, frame], dtype=np.float32)
            for offset, values in enumerate((labels, series.mask)):
                masks = {
                    structure: values[index, frame] == STRUCTURES[structure] for structure in COLORS
                }
                overlay(axes[2 * row + offset, column], picture, masks, titles[offset])
    save(figure, path, dpi=75)


def _mean_dice(labels: LabelMap, study: Study, chosen: DataSet) -> float:
    """Compute the mean Dice of a label map (Z, T, H, W) over the data set's structures."""
    series = study.series[chosen.sequence]
    assert series.mask is not None
    frames = list(series.annotated_frames())
    scores: list[float] = []
    for structure in chosen.structures:
        values = STRUCTURE_VALUES[structure]
        predicted = np.isin(labels[:, frames], values)
        truth = np.isin(series.mask[:, frames], values)
        score = dice(predicted, truth)
        if score is not None:
            scores.append(score)
    return float(np.mean(scores))
