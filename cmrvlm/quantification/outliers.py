"""Frames and numbers of masks that do not fit the others: named, and never taken for ED or ES."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cmrvlm.study.study import Series

FloatArray = NDArray[np.float64]
# Frames that a curve through the others needs.
_FEWEST_FRAMES = 6
# Frames from which a curve alone tells: of fewer, end-systole may be a sharp corner.
_FRAMES_FOR_CURVE = 10
# Share of the stroke volume by which a frame lies beside every curve through its neighbours.
_BESIDE_ALL = 0.2
# The same beside the curve through both sides, where slices are lacking too. A valve that moves
# towards the apex takes one slice away at end-systole, but not two for a single frame.
_BESIDE_CURVE = 0.15
_SLICES_LACKING = 2
# Never are more frames than this share called outliers: then the curve is none.
_MOST_OUTLIERS = 0.25
# The ventricles pump the same blood: measured by MRI their stroke volumes differ by about a tenth.
STROKE_VOLUMES_DIFFER = 0.25


def outlier_frames(
    curve_ml: FloatArray, lacking: NDArray[np.intp] | None = None
) -> dict[int, float]:
    """Find frames whose volume does not lie on a smooth curve through the other frames.

    Each frame is compared with the cubic through two frames on either side of it, the cycle being
    closed, and with lines through two of these, which a sharp end-systole and the end
    of a cine that does not close lie on. The worst is left out and the others are compared anew, so
    that it bends no curve.

    Args:
        curve_ml: (T,) volumes, NaN where unknown.
        lacking: (T,) number of slices that a frame lacks and both frames beside it show; None for
            none.

    Returns:
        Frame to the distance from the cubic in ml, negative where the volume is too small.
    """
    frames = [int(frame) for frame in np.flatnonzero(~np.isnan(curve_ml))]
    most = int(len(frames) * _MOST_OUTLIERS)
    if lacking is None:
        lacking = np.zeros(len(curve_ml), dtype=np.intp)
    is_coarse = len(frames) < _FRAMES_FOR_CURVE
    outliers: dict[int, float] = {}
    while len(frames) >= _FEWEST_FRAMES and len(outliers) <= most:
        distances = [_distances(curve_ml, frames, place) for place in range(len(frames))]
        scores = [
            _score(
                distances[place],
                int(lacking[frame]),
                needs_slices=is_coarse or _is_beside_gap(frames, place),
            )
            for place, frame in enumerate(frames)
        ]
        worst = int(np.argmax(scores))
        kept = [curve_ml[frame] for place, frame in enumerate(frames) if place != worst]
        if scores[worst] <= max(kept) - min(kept):
            return outliers
        outliers[frames.pop(worst)] = distances[worst][0]
    return {}


def _is_beside_gap(frames: list[int], place: int) -> bool:
    """Return whether the frame before or after one is unknown or was left out."""
    before = place > 0 and frames[place] - frames[place - 1] > 1
    after = place < len(frames) - 1 and frames[place + 1] - frames[place] > 1
    return before or after


def _score(distances: list[float], lacking: int, *, needs_slices: bool) -> float:
    """Return the stroke volume in ml below which a frame is an outlier.

    Args:
        distances: Distances from the cubic and from the lines in ml.
        lacking: Slices that frames on both sides of it show and it does not.
        needs_slices: Frames are few or one beside it is missing, so that curves alone say little.
    """
    score = 0.0
    if not needs_slices:
        score = min(abs(distance) for distance in distances) / _BESIDE_ALL
    if lacking >= _SLICES_LACKING and distances[0] < 0:
        score = max(score, -distances[0] / _BESIDE_CURVE)
    return score


def _distances(curve_ml: FloatArray, frames: list[int], place: int) -> list[float]:
    """Return how far a frame lies from the cubic and the lines through its neighbours in ml.

    Args:
        curve_ml: (T,) volumes.
        frames: Frames that count, ascending.
        place: Index of the frame among them.
    """
    count = len(frames)
    frame = frames[place]
    positions = []
    volumes = []
    for step in (-2, -1, 1, 2):
        cycles, other = divmod(place + step, count)
        positions.append(frames[other] + len(curve_ml) * cycles - frame)
        volumes.append(float(curve_ml[frames[other]]))
    chosen = (slice(0, 4), slice(0, 2), slice(2, 4), slice(1, 3))
    return [
        float(curve_ml[frame]) - _polynomial_at_zero(positions[some], volumes[some])
        for some in chosen
    ]


def _polynomial_at_zero(positions: list[int], volumes: list[float]) -> float:
    """Return the value at 0 of the polynomial through some points, by Lagrange's formula."""
    total = 0.0
    for position, volume in zip(positions, volumes, strict=True):
        others = [other for other in positions if other != position]
        total += volume * float(np.prod([other / (other - position) for other in others]))
    return total


def _lacking_slices(shown: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return (Z, T): whether a slice shows nothing in a frame, but on both sides of it in time.

    One of the two frames on a side is enough, as two frames may lack a slice together.

    Args:
        shown: (Z, T) whether a slice shows the structure.
    """
    before = np.roll(shown, 1, axis=1) | np.roll(shown, 2, axis=1)
    after = np.roll(shown, -1, axis=1) | np.roll(shown, -2, axis=1)
    return np.asarray(before & after & ~shown)


def outliers_of_masks(
    series: Series, structures: tuple[int, ...], curve_ml: FloatArray
) -> dict[int, str]:
    """Return the frames whose structure does not fit the other frames, each with a sentence.

    Args:
        series: Series with masks.
        structures: Mask values of the structure.
        curve_ml: (T,) its volumes, NaN where unknown.
    """
    assert series.mask is not None
    shown = np.asarray(np.isin(series.mask, structures).any(axis=(2, 3)))  # (Z, T)
    lacking = _lacking_slices(shown)
    sentences = {}
    for frame, distance in sorted(outlier_frames(curve_ml, lacking.sum(axis=0)).items()):
        word = "below" if distance < 0 else "above"
        sentence = (
            f"frame {frame} is neither ed nor es: its left ventricle of {curve_ml[frame]:.0f} ml "
            f"lies {abs(distance):.0f} ml {word} the curve of the others"
        )
        slices = np.flatnonzero(lacking[:, frame]).tolist()
        if slices:
            sentence += f"; it lacks slices {', '.join(map(str, slices))} of its neighbours"
        sentences[frame] = sentence
    return sentences


def notes_on_stroke_volumes(values: Mapping[str, float]) -> list[str]:
    """Return a sentence where the ventricles' stroke volumes do not fit each other.

    Args:
        values: Name with unit to value.
    """
    if not {"lvsv_ml", "rvsv_ml"} <= set(values):
        return []
    left = values["lvsv_ml"]
    right = values["rvsv_ml"]
    mean = (left + right) / 2
    if not mean or abs(left - right) <= STROKE_VOLUMES_DIFFER * mean:
        return []
    return [
        f"the stroke volumes differ by {abs(left - right) / mean:.0%} of their mean (LV {left:.0f} "
        f"ml, RV {right:.0f} ml), more than {STROKE_VOLUMES_DIFFER:.0%}: a mask is wrong, a valve "
        "leaks or there is a shunt"
    ]
