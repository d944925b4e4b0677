"""The best, the median and the worst case, and a bull's eye."""

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

_SLICES = 5


def by_dice(
    maps: Mapping[str, LabelMap], studies: Sequence[Study], chosen: DataSet
) -> list[tuple[float, Study]]:
    """Mean Dice and study, the best first."""
    scored = [(_mean_dice(maps[one.study_id], one, chosen), one) for one in studies]
    return sorted(scored, key=lambda pair: pair[0], reverse=True)


def thickness_of(labels: LabelMap, native: Study, path: Path) -> None:
    """Bull's eye of the end-diastolic wall of one study by its predicted masks on its own grid."""
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
    """Predicted above true structures of the best, the median and the worst study of `by_dice`."""
    shown = {"best": ordered[0], "median": ordered[len(ordered) // 2], "worst": ordered[-1]}
    figure = Figure(figsize=(1.9 * _SLICES, 2.1 * 2 * len(shown)), layout="constrained")
    axes = figure.subplots(2 * len(shown), _SLICES, squeeze=False)
    for row, (name, (score, study)) in enumerate(shown.items()):
        series, labels = study.series[chosen.sequence], maps[study.study_id]
        assert series.mask is not None
        frame = series.annotated_frames()[-1]  # end-systole, the harder one
        drawn = (series.mask[:, frame] > 0).any(axis=(1, 2)).nonzero()[0]
        indices = np.unique(np.linspace(drawn[0], drawn[-1], _SLICES).round().astype(int))
        for axis in axes[
            2 * row : 2 * row + 2, len(indices) :
        ].flat:  # a stack may have fewer slices
            axis.axis("off")
        for column, index in enumerate(indices):
            for offset, values in enumerate((labels, series.mask)):
                masks = {one: values[index, frame] == STRUCTURES[one] for one in COLORS}
                title = f"{name}, {score:.3f}" if offset == 0 else "truth"
                overlay(
                    axes[2 * row + offset, column],
                    np.asarray(series.image[index, frame], dtype=np.float32),
                    masks,
                    title if column == 0 else f"slice {index}",
                )
    save(figure, path, dpi=75)


def _mean_dice(labels: LabelMap, study: Study, chosen: DataSet) -> float:
    series = study.series[chosen.sequence]
    assert series.mask is not None
    frames = list(series.annotated_frames())
    found = [
        dice(
            np.isin(labels[:, frames], STRUCTURE_VALUES[one]),
            np.isin(series.mask[:, frames], STRUCTURE_VALUES[one]),
        )
        for one in chosen.structures
    ]
    return float(np.mean([one for one in found if one is not None]))
