"""Summary of the masks of a study: rounded numbers, reasons for missing ones, pictures."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmrvlm.quantification.figures import bulls_eye, contour_cine, volume_curves
from cmrvlm.quantification.scar import SCAR_VALUES, quantify_scar
from cmrvlm.quantification.segments import (
    SEGMENT_NAMES,
    thickening_percent,
    thickness_mm,
    transmurality_percent,
)
from cmrvlm.quantification.ventricles import Quantities, quantify
from cmrvlm.quantification.volumes import WALL, why_no_volume
from cmrvlm.study.study import Series
from cmrvlm.study.vocabulary import PHASES

PICTURES = ("volumes.png", "contours.webp", "wall_thickness.png", "scar.png")
_WALL_VALUES = ("wall_thickness_mm", "wall_thickness_es_mm", "wall_thickening_percent")
_SCAR_BY_SEGMENT = "scar_by_segment_percent"
_NOT_ASKED = "the model was not asked for both wall and scar on late enhancement"
_NO_PHASES = "no frame is known to be ed, or none es"
_NO_SEGMENTS = (
    "no slice at a known level has a closed wall at the time, "
    "or none shows where the right ventricle lies"
)
_NO_SEGMENT = "no slice shows it with a closed wall"
_NOT_BOTH = "no slice shows it with a closed wall both at ed and at es"


def summarize_ventricles(
    series: Series,
    demographics: Mapping[str, float | str],
    out: Path | None = None,
    *,
    find_phases: bool = True,
) -> dict[str, Any]:
    """Summarize volumes, ejection fraction and wall thickness of masks on the native grid.

    Pictures of them are written beside.

    Args:
        series: Short-axis cine with the masks.
        demographics: `height_cm` and `weight_kg`, where known.
        out: Folder of the pictures; None draws none.
        find_phases: See `quantify`.

    Returns:
        Name with unit to value, by AHA segment for the wall. `frames` holds the frames taken for
        `ed` and `es`, how many frames have masks (`seen`) and how many there are (`of`);
        `volume_curves_ml` the volume in each frame, null where it cannot be counted;
        `not_computable` the reasons for what is missing; `notes` what does not fit the rest.
    """
    height_cm = _number(demographics, "height_cm")
    weight_kg = _number(demographics, "weight_kg")
    quantities = quantify(series, height_cm, weight_kg, find_phases=find_phases)
    by_segment, wall_reasons = _wall_by_segment(series, quantities.phases)

    result: dict[str, Any] = _rounded(quantities)
    result["not_computable"] = {**quantities.not_computable, **wall_reasons}
    if quantities.notes:
        result["notes"] = list(quantities.notes)
    result["frames"] = {
        **quantities.phases,
        "seen": len(series.known_frames()),
        "of": series.image.shape[1],
    }
    for name, values in by_segment.items():
        if values:
            result[name] = {str(segment): round(value, 1) for segment, value in values.items()}
    if not series.annotated_frames():
        return result

    times = series.frame_times_ms
    result["volume_curves_ml"] = {
        cavity: [_rounded_volume(volume) for volume in curve]
        for cavity, curve in quantities.curves_ml.items()
    }
    result["frame_times_ms"] = None if times is None else list(times)
    if out is None:
        return result
    if any(not np.isnan(curve).all() for curve in quantities.curves_ml.values()):
        volume_curves(quantities, times, out / "volumes.png")
    contour_cine(series, out / "contours.webp")
    thickness = by_segment.get("wall_thickness_mm")
    if thickness:
        label = "end-diastolic wall thickness (mm)"
        bulls_eye(thickness, out / "wall_thickness.png", label, (4, 16))
    return result


def _number(demographics: Mapping[str, float | str], name: str) -> float | None:
    """Return a number among the demographics, None where it is unknown."""
    return float(demographics[name]) if name in demographics else None


def _rounded(quantities: Quantities) -> dict[str, Any]:
    """Return the values of quantities to one decimal place."""
    return {name: round(value, 1) for name, value in quantities.values.items()}


def _rounded_volume(volume_ml: np.floating) -> float | None:
    """Return a volume to one decimal place, None for NaN."""
    return None if np.isnan(volume_ml) else round(float(volume_ml), 1)


def _wall_by_segment(
    series: Series, phases: Mapping[str, int]
) -> tuple[dict[str, dict[int, float]], dict[str, str]]:
    """Measure thickness and thickening of the wall by segment.

    A wall whose volume cannot be counted, because a slice is missing or it runs out of view, has no
    segments either: thirds of the slices that are seen would not be thirds of the heart.

    Returns:
        Name to AHA segment to value, and name to the reason why values are missing.
    """
    problems = {phase: _why_no_wall(series, phases, phase) for phase in PHASES}
    values: dict[str, dict[int, float]] = {}
    if problems["ed"] is None:
        values["wall_thickness_mm"] = thickness_mm(series, phases["ed"])
    if problems["ed"] is None and problems["es"] is None:
        values["wall_thickness_es_mm"] = thickness_mm(series, phases["es"], phases["ed"])
        values["wall_thickening_percent"] = thickening_percent(series, phases["ed"], phases["es"])

    reason = problems["ed"] or problems["es"] or ""
    reasons = {name: reason for name in _WALL_VALUES if name not in values}
    why_segment_missing = {"wall_thickening_percent": _NOT_BOTH}
    for name, by_segment in values.items():
        missing = why_segment_missing.get(name, _NO_SEGMENT)
        reasons |= _why_no_segments(name, by_segment, missing)
    return values, reasons


def _why_no_wall(series: Series, phases: Mapping[str, int], phase: str) -> str | None:
    """Return why the wall cannot be measured at a phase, else None."""
    if phase not in phases:
        return _NO_PHASES
    return why_no_volume(series, WALL, phases[phase])


def _why_no_segments(
    name: str, values: Mapping[int, float], reason: str = _NO_SEGMENT
) -> dict[str, str]:
    """Return the reasons for missing segments.

    Args:
        name: Name of the value.
        values: AHA segment to value.
        reason: Why single segments are missing.

    Returns:
        `<name>.<segment>` to reason for each segment that is missing, or the name alone where all
        are.
    """
    if not values:
        return {name: _NO_SEGMENTS}
    return {f"{name}.{segment}": reason for segment in SEGMENT_NAMES if segment not in values}


def summarize_scar(
    series: Series,
    structures: Collection[str],
    out: Path | None = None,
    septum: NDArray[np.float64] | None = None,
) -> dict[str, Any]:
    """Summarize mass and share of the scar in masks on late enhancement.

    Args:
        series: Late enhancement with masks.
        structures: Structures that the model was asked for; without both wall and scar there is no
            number.
        out: Folder of the picture; None draws none.
        septum: (3,) world direction from the left ventricle to the right one in the short-axis
            cine.

    Returns:
        Name with unit to value; `not_computable` holds the reasons for what is missing.
    """
    if not {"myo", "scar"} <= set(structures):
        return {"not_computable": dict.fromkeys((*SCAR_VALUES, _SCAR_BY_SEGMENT), _NOT_ASKED)}
    quantities = quantify_scar(series)
    result: dict[str, Any] = _rounded(quantities)
    result["not_computable"] = dict(quantities.not_computable)
    if not quantities.values:
        reason = quantities.not_computable["scar_share_percent"]
        result["not_computable"][_SCAR_BY_SEGMENT] = reason
        return result

    by_segment = transmurality_percent(series, septum=septum)
    result["not_computable"] |= _why_no_segments(_SCAR_BY_SEGMENT, by_segment)
    if by_segment:
        result[_SCAR_BY_SEGMENT] = {
            str(segment): round(value) for segment, value in by_segment.items()
        }
        if out is not None:
            bulls_eye(by_segment, out / "scar.png", "share of the wall that is scar (%)", (0, 100))
    return result
