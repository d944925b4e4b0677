"""Primitives of figures: grey images, coloured structures over them, and files.

Figures hold no names of patients, only ids that the data module gives.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from cmrvlm.study.structures import STRUCTURE_TABLE
from cmrvlm.study.vocabulary import STRUCTURES

COLORS = {name: structure.color for name, structure in STRUCTURE_TABLE.items()}
_BRIGHTEST = 0.995  # quantile of the grey values that is shown white


def save(figure: Figure, path: Path, dpi: int = 110, *, vector: bool = False) -> None:
    """Write a figure as PNG, and as SVG beside it when `vector`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=dpi, bbox_inches="tight")
    if vector:
        figure.savefig(path.with_suffix(".svg"), bbox_inches="tight", metadata={"Date": None})


def show_grey(
    axis: Axes, picture: NDArray[np.floating], windowed: NDArray[np.floating] | None = None
) -> None:
    """Draw a grey picture without axes.

    Args:
        axis: Axes to draw on.
        picture: (H, W) grey values from 0.
        windowed: Grey values of any shape that set the brightest grey; None for those of the
            picture.
    """
    values = picture if windowed is None else windowed
    # An image without any signal has no range to show.
    brightest = max(1e-6, float(np.quantile(values, _BRIGHTEST)))
    axis.imshow(picture, cmap="gray", vmin=0, vmax=brightest)
    axis.axis("off")


def overlay(
    axis: Axes,
    picture: NDArray[np.floating],
    masks: Mapping[str, NDArray[np.bool_]],
    title: str = "",
) -> None:
    """Draw a grey picture with outlined, half transparent structures.

    Args:
        axis: Axes to draw on.
        picture: (H, W) grey values from 0.
        masks: Structure to its mask (H, W).
        title: Text above the picture.
    """
    show_grey(axis, picture)
    for name, mask in masks.items():
        if mask.any():
            area = np.ma.masked_where(~mask, np.ones_like(mask, dtype=float))
            axis.imshow(area, cmap=ListedColormap([COLORS[name]]), alpha=0.3, interpolation="none")
    outline(axis, masks)
    # A study may have a name with dollars, which is no formula.
    axis.set_title(title, fontsize=7, parse_math=False)


def outline(axis: Axes, masks: Mapping[str, NDArray[np.bool_]]) -> None:
    """Draw the contours of structures, given as name to mask (H, W)."""
    for name, mask in masks.items():
        if mask.any():
            axis.contour(mask, levels=[0.5], colors=COLORS[name], linewidths=0.9)


def structures_in(label_map: NDArray[np.integer]) -> dict[str, NDArray[np.bool_]]:
    """Return structure to its mask (H, W), for the structures that a label map (H, W) holds."""
    present = np.unique(label_map)
    return {name: label_map == STRUCTURES[name] for name in COLORS if STRUCTURES[name] in present}


def legend(figure: Figure, structures: Collection[str]) -> None:
    """Write the names of structures in their colours below a figure; nothing without any."""
    handles = [
        Patch(color=color, label=STRUCTURE_TABLE[name].en)
        for name, color in COLORS.items()
        if name in structures
    ]
    if handles:
        figure.legend(
            handles=handles,
            loc="upper center",
            bbox_to_anchor=(0.5, 0.05),
            ncols=min(3, len(handles)),
            fontsize=6,
            frameon=False,
        )
