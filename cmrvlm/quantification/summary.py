"""What is told of the masks of one study: rounded numbers, reasons where there are none, and pictures."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmrvlm.quantification.figures import bulls_eye, contour_cine, volume_curves
from cmrvlm.quantification.scar import SCAR_VALUES, quantify_scar, scar_by_segment
from cmrvlm.quantification.segments import thickening_percent, thickness_mm
from cmrvlm.quantification.ventricles import quantify
from cmrvlm.study import Series

_NOT_ASKED = "the model was not asked for both wall and scar on late enhancement"
_NO_SEGMENTS = "no slice with a closed wall beside a right ventricle, or nothing says where the apex is"


def of_ventricles(series: Series, person: Mapping[str, float | str], out: Path) -> dict[str, Any]:
    """Volumes, ejection fraction and wall thickness of predicted masks on the native grid, with their pictures.

    `frames` tells the frames taken for `ed` and `es`, and among how many of how many they were looked for.

    Args:
        series: Short-axis cine with the masks.
        person: `height_cm` and `weight_kg`, where known.
        out: Folder of the pictures.
    """
    height, weight = (float(person[name]) if name in person else None for name in ("height_cm", "weight_kg"))
    found = quantify(series, height, weight)
    result: dict[str, Any] = {name: round(value, 1) for name, value in found.values.items()}
    result["not_computable"] = dict(found.not_computable)
    result["frames"] = {**found.phases, "seen": len(series.known_frames()), "of": series.image.shape[1]}
    if not series.annotated_frames():
        return result
    volume_curves(found, series.frame_times_ms, out / "volumes.png")
    contour_cine(series, out / "contours.webp")
    ed, es = (found.phases.get(phase) for phase in ("ed", "es"))
    thick = thickness_mm(series, ed) if ed is not None else {}
    if not thick:
        result["not_computable"] |= dict.fromkeys(("wall_thickness_mm", "wall_thickening_percent"), _NO_SEGMENTS)
    if ed is not None and es is not None and thick:
        result["wall_thickness_mm"] = {str(segment): round(value, 1) for segment, value in thick.items()}
        more = thickening_percent(series, ed, es)
        result["wall_thickening_percent"] = {str(segment): round(value) for segment, value in more.items()}
        bulls_eye(thick, out / "wall_thickness.png", "end-diastolic wall thickness (mm)", (4, 16))
    return result


def of_scar(
    series: Series, asked: Collection[str], out: Path, septum: NDArray[np.float64] | None = None
) -> dict[str, Any]:
    """Mass and share of the scar of predicted masks on late enhancement, by segment where it can be told.

    Args:
        series: Late enhancement with masks.
        asked: Structures that were looked for; without both wall and scar there is no number.
        out: Folder of the picture.
        septum: World direction from the left ventricle to the right one by the short axis.
    """
    if not {"myo", "scar"} <= set(asked):
        return {"not_computable": dict.fromkeys((*SCAR_VALUES, "scar_by_segment_percent"), _NOT_ASKED)}
    found = quantify_scar(series)
    result: dict[str, Any] = {name: round(value, 1) for name, value in found.values.items()}
    result["not_computable"] = dict(found.not_computable)
    by_segment, reason = scar_by_segment(series, septum)
    if reason is not None:
        result["not_computable"]["scar_by_segment_percent"] = reason
        return result
    result["scar_by_segment_percent"] = {str(segment): round(value) for segment, value in by_segment.items()}
    bulls_eye(by_segment, out / "scar.png", "share of the wall that is scar (%)", (0, 100))
    return result
