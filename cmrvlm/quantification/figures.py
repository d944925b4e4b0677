"""Pictures of what was measured: volume curves, the bull's eye, and the cine with the contours of its masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image

from cmrvlm.quantification.segments import CENTRES
from cmrvlm.quantification.ventricles import Quantities
from cmrvlm.study.drawing import COLORS, outline, save, show_grey
from cmrvlm.study.study import Series
from cmrvlm.study.vocabulary import STRUCTURES

_RINGS = {"basal": (2.0, 3.0), "mid": (1.0, 2.0), "apical": (0.35, 1.0)}
_FRAME_MS = 60  # of an animation when the series says nothing


def volume_curves(found: Quantities, times_ms: Sequence[float] | None, path: Path) -> None:
    """Volume of both ventricles over the cycle, ED and ES marked."""
    figure = Figure(figsize=(5, 3), layout="constrained")
    axis = figure.subplots()
    for name, curve in found.curves_ml.items():
        when = np.arange(len(curve)) if times_ms is None else np.asarray(times_ms)
        axis.plot(when, curve, marker=".", color=COLORS[name], label=name.upper())
    for phase, frame in found.phases.items():
        axis.axvline(frame if times_ms is None else times_ms[frame], color="grey", linestyle=":")
        axis.annotate(
            phase.upper(),
            (frame if times_ms is None else times_ms[frame], axis.get_ylim()[1]),
            fontsize=8,
        )
    axis.set_xlabel("frame" if times_ms is None else "time after the trigger (ms)")
    axis.set_ylabel("volume (ml)")
    axis.legend()
    save(figure, path)


def bulls_eye(
    values: Mapping[int, float], path: Path, label: str, limits: tuple[float, float]
) -> None:
    """The segments around the axis, base outside, anterior on top, septum left; white where there is no value.

    Args:
        values: AHA segment to value.
        path: Where the picture goes.
        label: What the colour means, with its unit.
        limits: Values of the first and the last colour.
    """
    figure = Figure(figsize=(4.2, 3.6), layout="constrained")
    axis = figure.add_subplot(projection="polar")
    scale, colors = Normalize(*limits), colormaps["viridis"]
    for level, (inner, outer) in _RINGS.items():
        width = 2 * np.pi / len(CENTRES[level])
        for segment, degrees in CENTRES[level].items():
            # Angles of segments start at the septum and go towards the inferior wall; on the page it lies on the left.
            angle = np.pi + np.deg2rad(degrees)
            value = values.get(segment)
            face = "white" if value is None else colors(scale(value))
            axis.bar(
                angle,
                outer - inner,
                width,
                bottom=inner,
                color=face,
                edgecolor="black",
                linewidth=0.8,
            )
            shown = f"{segment}" if value is None else f"{segment}\n{value:.0f}"
            axis.text(
                angle,
                (inner + outer) / 2,
                shown,
                ha="center",
                va="center",
                fontsize=7,
                color="black",
                bbox={"facecolor": "white", "alpha": 0.6, "linewidth": 0, "pad": 0.5},
            )
    axis.set_axis_off()
    figure.colorbar(ScalarMappable(scale, colors), ax=axis, label=label, shrink=0.8)
    save(figure, path)


def contour_cine(series: Series, path: Path, slices: Sequence[int] | None = None) -> None:
    """The cine with the outlines of its masks as an animation; the ending decides between GIF and WebP.

    Args:
        series: With masks; frames without any are left out.
        path: `.gif` or `.webp`.
        slices: Slices side by side; None takes five from base to apex.
    """
    assert series.mask is not None
    frames = series.annotated_frames()
    shown = np.linspace(0, len(series.mask) - 1, min(5, len(series.mask))).round().astype(int)
    pictures = [
        _drawn(series, frame, list(slices) if slices is not None else shown.tolist())
        for frame in frames
    ]
    times = series.frame_times_ms
    each_ms = (
        _FRAME_MS
        if times is None or len(times) < 2
        else max(20, round(float(np.diff(times).mean())))
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=each_ms, loop=0)


def _drawn(series: Series, frame: int, slices: Sequence[int]) -> Image.Image:
    figure = Figure(figsize=(2 * len(slices), 2.1), dpi=90)
    canvas = FigureCanvasAgg(figure)
    for axis, index in zip(figure.subplots(1, len(slices), squeeze=False)[0], slices, strict=True):
        assert series.mask is not None
        # All frames are shown under one window, so that the cine does not flicker.
        frames = np.asarray(series.image[index], dtype=np.float32)  # (T, H, W)
        show_grey(axis, frames[frame], windowed=frames)
        outline(axis, {name: series.mask[index, frame] == STRUCTURES[name] for name in COLORS})
    figure.subplots_adjust(0, 0, 1, 1, 0.02, 0)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
