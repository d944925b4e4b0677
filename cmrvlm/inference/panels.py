"""Draw predicted masks over images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cmrvlm.quantification.ventricles import phases_of_masks
from cmrvlm.study.drawing import COLORS, overlay, save
from cmrvlm.study.study import Series
from cmrvlm.study.vocabulary import STRUCTURES

_MOST_SLICES = 6


def study_panel(series: Series, path: Path) -> None:
    """Draw slices at the largest and the smallest left ventricle, or of the first frame with masks.

    Args:
        series: Series with a mask (Z, T, H, W).
        path: File to write.
    """
    assert series.mask is not None
    phases = phases_of_masks(series)
    if phases:
        frames = {"largest LV, ": phases["ed"], "smallest LV, ": phases["es"]}
    else:
        frames = {"": series.known_frames()[0]}
    columns = min(_MOST_SLICES, len(series.mask))
    slices = np.linspace(0, len(series.mask) - 1, columns).round().astype(int)
    figure = Figure(figsize=(1.9 * columns, 2.1 * len(frames)))
    axes = figure.subplots(len(frames), columns, squeeze=False)
    for row, (name, frame) in enumerate(frames.items()):
        for column, index in enumerate(slices):
            picture = np.asarray(series.image[index, frame], dtype=np.float32)
            labels = series.mask[index, frame]
            masks = {structure: labels == STRUCTURES[structure] for structure in COLORS}
            overlay(axes[row, column], picture, masks, f"{name}slice {index}")
    save(figure, path)
