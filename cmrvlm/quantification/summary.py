"""What is told of the masks of one study: rounded numbers, reasons where there are none, and pictures."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmrvlm.quantification.figures import bulls_eye, contour_cine, volume_curves
from cmrvlm.quantification.scar import SCAR_VALUES, quantify_scar
from cmrvlm.quantification.segments import (
    NAMES,
    thickening_percent,
    thickness_mm,
    transmurality_percent,
)
from cmrvlm.quantification.ventricles import WALL, quantify, why_no_volume
from cmrvlm.study.study import Series

PICTURES = ("volumes.png", "contours.webp", "wall_thickness.png", "scar.png")
_NOT_ASKED = "the model was not asked for both wall and scar on late enhancement"
_OF_WALL = ("wall_thickness_mm", "wall_thickness_es_mm", "wall_thickening_percent")
_NO_PHASES = "no frame is known to be ed, or none es"
_NO_SEGMENTS = "no slice at a known level has a closed wall at the time, or none shows where the right ventricle lies"
_NO_SEGMENT = "no slice shows it with a closed wall"
_NOT_BOTH = "no slice shows it with a closed wall both at ed and at es"


def of_ventricles(
    series: Series,
    person: Mapping[str, float | str],
    out: Path | None = None,
    *,
    find_phases: bool = True,
) -> dict[str, Any]:
    """Volumes, ejection fraction and wall thickness of predicted masks on the native grid, with their pictures.

    `frames` tells the frames taken for `ed` and `es`, and among how many of how many they were looked for;
    `volume_curves_ml` the volume in each frame, null where it cannot be counted.

    Args:
        series: Short-axis cine with the masks.
        person: `height_cm` and `weight_kg`, where known.
        out: Folder of the pictures; None draws none.
        find_phases: See `quantify`.
    """
    height, weight = (
        float(person[name]) if name in person else None for name in ("height_cm", "weight_kg")
    )
    found = quantify(series, height, weight, find_phases=find_phases)
    result: dict[str, Any] = {name: round(value, 1) for name, value in found.values.items()}
    result["not_computable"] = dict(found.not_computable)
    result["frames"] = {
        **found.phases,
        "seen": len(series.known_frames()),
        "of": series.image.shape[1],
    }
    by_segment, reasons = _of_wall(series, found.phases)
    result["not_computable"] |= reasons
    result |= {
        name: {str(segment): round(value, 1) for segment, value in own.items()}
        for name, own in by_segment.items()
        if own
    }
    if not series.annotated_frames():
        return result
    result["volume_curves_ml"] = {
        cavity: [None if np.isnan(volume) else round(float(volume), 1) for volume in curve]
        for cavity, curve in found.curves_ml.items()
    }
    times = series.frame_times_ms
    result["frame_times_ms"] = None if times is None else list(times)
    if out is None:
        return result
    if any(not np.isnan(curve).all() for curve in found.curves_ml.values()):
        volume_curves(found, times, out / "volumes.png")
    contour_cine(series, out / "contours.webp")
    thick = by_segment.get("wall_thickness_mm")
    if thick:
        bulls_eye(thick, out / "wall_thickness.png", "end-diastolic wall thickness (mm)", (4, 16))
    return result


def _of_wall(
    series: Series, phases: Mapping[str, int]
) -> tuple[dict[str, dict[int, float]], dict[str, str]]:
    """Thickness and thickening of the wall by name and AHA segment, and why there are none.

    A wall that cannot be counted, because a slice of it is missing or it runs out of view, has no segments either:
    what is seen of them is not all of them, and thirds of it are not thirds of the heart.
    """
    problems = {
        phase: why_no_volume(series, WALL, phases[phase]) if phase in phases else _NO_PHASES
        for phase in ("ed", "es")
    }
    values: dict[str, dict[int, float]] = {}
    if problems["ed"] is None:
        values["wall_thickness_mm"] = thickness_mm(series, phases["ed"])
    if problems["ed"] is None and problems["es"] is None:
        values["wall_thickness_es_mm"] = thickness_mm(series, phases["es"], phases["ed"])
        values["wall_thickening_percent"] = thickening_percent(series, phases["ed"], phases["es"])
    reasons = {
        name: problems["ed"] or problems["es"] or "" for name in _OF_WALL if name not in values
    }
    for name, own in values.items():
        reasons |= _why_no_segments(
            name, own, _NOT_BOTH if name == "wall_thickening_percent" else _NO_SEGMENT
        )
    return values, reasons


def _why_no_segments(
    name: str, values: Mapping[int, float], reason: str = _NO_SEGMENT
) -> dict[str, str]:
    """A reason under the name where no segment has a value, else under `<name>.<segment>` for those without one."""
    if not values:
        return {name: _NO_SEGMENTS}
    return {f"{name}.{segment}": reason for segment in NAMES if segment not in values}


def of_scar(
    series: Series,
    asked: Collection[str],
    out: Path | None = None,
    septum: NDArray[np.float64] | None = None,
) -> dict[str, Any]:
    """Mass and share of the scar of predicted masks on late enhancement, by segment where it can be told.

    Args:
        series: Late enhancement with masks.
        asked: Structures that were looked for; without both wall and scar there is no number.
        out: Folder of the picture; None draws none.
        septum: World direction from the left ventricle to the right one by the short axis.
    """
    if not {"myo", "scar"} <= set(asked):
        return {
            "not_computable": dict.fromkeys((*SCAR_VALUES, "scar_by_segment_percent"), _NOT_ASKED)
        }
    found = quantify_scar(series)
    result: dict[str, Any] = {name: round(value, 1) for name, value in found.values.items()}
    result["not_computable"] = dict(found.not_computable)
    if not found.values:
        result["not_computable"]["scar_by_segment_percent"] = found.not_computable[
            "scar_share_percent"
        ]
        return result
    by_segment = transmurality_percent(series, septum=septum)
    result["not_computable"] |= _why_no_segments("scar_by_segment_percent", by_segment)
    if not by_segment:
        return result
    result["scar_by_segment_percent"] = {
        str(segment): round(value) for segment, value in by_segment.items()
    }
    if out is not None:
        bulls_eye(by_segment, out / "scar.png", "share of the wall that is scar (%)", (0, 100))
    return result
