"""Pictures: masks over images. Figures hold no names, only ids that the data module gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cmrvlm.instructions.batch import Batch
from cmrvlm.study.structures import STRUCTURE_TABLE
from cmrvlm.study.vocabulary import NOT_ANNOTATED
from cmrvlm.tasks.base import Answer

COLORS = {name: structure.color for name, structure in STRUCTURE_TABLE.items()}


def save(figure: Figure, path: Path, dpi: int = 110, *, vector: bool = False) -> None:
    """Write a figure as PNG, and as SVG beside it when `vector`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=dpi, bbox_inches="tight")
    if vector:
        figure.savefig(path.with_suffix(".svg"), bbox_inches="tight", metadata={"Date": None})


def overlay(
    axis: Axes, picture: NDArray[np.floating], masks: dict[str, NDArray[np.bool_]], title: str = ""
) -> None:
    """Draw a grey picture (H, W) with outlined, half transparent structures."""
    axis.imshow(picture, cmap="gray", vmin=0, vmax=max(1e-6, float(np.quantile(picture, 0.995))))
    for name, mask in masks.items():
        if mask.any():
            axis.imshow(
                np.ma.masked_where(~mask, np.ones_like(mask, dtype=float)),
                cmap=ListedColormap([COLORS[name]]),
                alpha=0.3,
                interpolation="none",
            )
    outline(axis, masks)
    axis.set_title(title, fontsize=7)
    axis.axis("off")


def outline(axis: Axes, masks: Mapping[str, NDArray[np.bool_]]) -> None:
    """Draw the contours of structures (H, W)."""
    for name, mask in masks.items():
        if mask.any():
            axis.contour(mask, levels=[0.5], colors=COLORS[name], linewidths=0.9)


def mask_panel(
    asked: Sequence[tuple[Batch, Sequence[Answer]]], path: Path, columns: int = 8
) -> None:
    """Predicted above true structures on the middle slice of the asked frames, one column for each study and frame.

    Args:
        asked: Batches with the answers to them.
        path: Where the picture goes; nothing is written when no answer is about a mask.
        columns: Most columns.
    """
    found: dict[tuple[int, int, int], dict[str, Answer]] = {}
    for number, (batch, answers) in enumerate(asked):
        for row, answer in enumerate(answers):
            target = answer.instruction.case.mask
            if target is None or target.as_box or answer.truth_mask is None:
                continue
            for index in range(len(target.frames)):
                found.setdefault((number, int(batch.owners[row]), index), {})[target.structure] = (
                    answer
                )
    shown = list(found.items())[:columns]
    if not shown:
        return
    figure = Figure(figsize=(1.9 * len(shown), 4.2))
    axes = figure.subplots(2, len(shown), squeeze=False)
    for column, ((number, owner, index), structures) in enumerate(shown):
        first = next(iter(structures.values()))
        target = first.instruction.case.mask
        assert target is not None
        assert first.truth_mask is not None
        middle = first.truth_mask.shape[0] // 2
        picture = _picture(asked[number][0], owner, target.sequence)[middle, target.frames[index]]
        said = {name: a.mask[middle, index] for name, a in structures.items() if a.mask is not None}
        truth = {name: _truth(a)[middle, index] for name, a in structures.items()}
        phase = (target.phases[index] or "").upper()
        overlay(axes[0, column], picture, said, f"{first.instruction.study_id} {phase}")
        overlay(axes[1, column], picture, truth, "truth")
    save(figure, path)


def _truth(answer: Answer) -> NDArray[np.bool_]:
    target = answer.instruction.case.mask
    assert target is not None
    assert answer.truth_mask is not None
    return np.isin(answer.truth_mask, target.values) & (answer.truth_mask != NOT_ANNOTATED)


def _picture(batch: Batch, owner: int, sequence: str) -> NDArray[np.floating]:
    for stack in batch.media.get(sequence, []):
        where = (stack.owners == owner).nonzero()
        if len(where):
            return stack.images[int(where[0])][0].float().cpu().numpy()  # (Z, T, H, W)
    raise KeyError(f"study {owner} of the batch has no {sequence}")
