"""Figures of measurements: volume curves, bull's eye of segments, cine with contours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image

from cmrvlm.quantification.segments import CENTRES
from cmrvlm.quantification.ventricles import Quantities
from cmrvlm.quantification.volumes import mask_of
from cmrvlm.study.drawing import COLORS, outline, save, show_grey
from cmrvlm.study.study import Series
from cmrvlm.study.vocabulary import STRUCTURES

# Level to the inner and the outer radius of its ring.
_RINGS = {"basal": (2.0, 3.0), "mid": (1.0, 2.0), "apical": (0.35, 1.0)}
_MOST_SLICES = 5
# Milliseconds that a frame of an animation is shown: where times are unknown, and at least.
_FRAME_MS = 60
_SHORTEST_FRAME_MS = 20


def volume_curves(quantities: Quantities, times_ms: Sequence[float] | None, path: Path) -> None:
    """Plot the volume of both ventricles over the cycle, with ED and ES marked.

    Args:
        quantities: Volumes and phases.
        times_ms: Time of each frame; None plots over frame indices.
        path: File of the figure.
    """
    figure = Figure(figsize=(5, 3), layout="constrained")
    axis = figure.subplots()
    positions: Sequence[float]
    if times_ms is None:
        positions = range(len(quantities.curves_ml["lv"]))
        axis.set_xlabel("frame")
    else:
        positions = times_ms
        axis.set_xlabel("time after the trigger (ms)")
    for cavity, curve in quantities.curves_ml.items():
        axis.plot(positions, curve, marker=".", color=COLORS[cavity], label=cavity.upper())
    for phase, frame in quantities.phases.items():
        axis.axvline(positions[frame], color="grey", linestyle=":")
        axis.annotate(phase.upper(), (positions[frame], axis.get_ylim()[1]), fontsize=8)
    axis.set_ylabel("volume (ml)")
    axis.legend()
    save(figure, path)


def bulls_eye(
    values: Mapping[int, float], path: Path, label: str, limits: tuple[float, float]
) -> None:
    """Draw the segments as a bull's eye: base outside, anterior on top, septum left.

    Args:
        values: AHA segment to value.
        path: File of the figure.
        label: Meaning of the colours, with the unit.
        limits: Values of the first and the last colour.
    """
    figure = Figure(figsize=(4.2, 3.6), layout="constrained")
    axis = figure.add_subplot(projection="polar")
    scale = Normalize(*limits)
    colors = colormaps["viridis"]
    for level, (inner, outer) in _RINGS.items():
        width = 2 * np.pi / len(CENTRES[level])
        for segment, degrees in CENTRES[level].items():
            # Angles of segments start at the septum, which lies left on the page, and go to the
            # inferior wall.
            angle = np.pi + np.deg2rad(degrees)
            face_color: Any = "white"
            text = f"{segment}"
            if segment in values:
                face_color = colors(scale(values[segment]))
                text = f"{segment}\n{values[segment]:.0f}"
            axis.bar(
                angle,
                outer - inner,
                width,
                bottom=inner,
                color=face_color,
                edgecolor="black",
                linewidth=0.8,
            )
            axis.text(
                angle,
                (inner + outer) / 2,
                text,
                ha="center",
                va="center",
                fontsize=7,
                color="black",
                bbox={"facecolor": "white", "alpha": 0.6, "linewidth": 0, "pad": 0.5},
            )
    axis.set_axis_off()
    figure.colorbar(ScalarMappable(scale, colors), ax=axis, label=label, shrink=0.8)
    save(figure, path)


def contour_cine(series: Series, path: Path) -> None:
    """Write the cine with contours of its masks as an animation, slices side by side.

    Args:
        series: Series with masks; frames without any are left out.
        path: File ending in `.gif` or `.webp`, which decides the format.
    """
    count = len(mask_of(series))
    slices = np.linspace(0, count - 1, min(_MOST_SLICES, count)).round().astype(int).tolist()
    pictures = [_contours(series, frame, slices) for frame in series.annotated_frames()]
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures[0].save(
        path,
        save_all=True,
        append_images=pictures[1:],
        duration=_frame_duration_ms(series.frame_times_ms),
        loop=0,
    )


def _frame_duration_ms(times_ms: Sequence[float] | None) -> int:
    """Return how long a frame of the animation is shown: the mean distance of the frame times."""
    if times_ms is None or len(times_ms) < 2:
        return _FRAME_MS
    return max(_SHORTEST_FRAME_MS, round(float(np.diff(times_ms).mean())))


def _contours(series: Series, frame: int, slices: Sequence[int]) -> Image.Image:
    """Draw slices of one frame side by side, with the outlines of their masks."""
    mask = mask_of(series)
    figure = Figure(figsize=(2 * len(slices), 2.1), dpi=90)
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(slices), squeeze=False)[0]
    for axis, index in zip(axes, slices, strict=True):
        # All frames are shown under one window, so that the cine does not flicker.
        frames = np.asarray(series.image[index], dtype=np.float32)  # (T, H, W)
        show_grey(axis, frames[frame], windowed=frames)
        outline(axis, {name: mask[index, frame] == STRUCTURES[name] for name in COLORS})
    figure.subplots_adjust(0, 0, 1, 1, 0.02, 0)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
