"""Measure a study from its predicted masks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cmrvlm.quantification.segments import septum_direction
from cmrvlm.quantification.summary import summarize_scar, summarize_ventricles
from cmrvlm.study.study import Series


@dataclass(frozen=True)
class MaskMeasurements:
    """Rounded numbers that are counted in masks, with reasons for those that are missing.

    Attributes:
        from_masks: Ventricles and wall on the short axis; empty without masks there.
        from_lge_masks: Scar on late enhancement; empty without masks there.
    """

    from_masks: Mapping[str, Any] = field(default_factory=dict)
    from_lge_masks: Mapping[str, Any] = field(default_factory=dict)


def measure_masks(
    series: Mapping[str, Series],
    person: Mapping[str, float | str],
    lge_structures: Collection[str],
    out: Path | None = None,
    *,
    find_phases: bool = True,
) -> MaskMeasurements:
    """Return what the masks of a study measure.

    Args:
        series: Sequence to series on its own grid, with the predicted label map as its mask.
        person: `height_cm` and `weight_kg`, where known.
        lge_structures: Structures that were looked for on late enhancement.
        out: Folder of the pictures; None draws none.
        find_phases: Look for ED and ES among the frames; else they must be known.
    """
    from_masks: Mapping[str, Any] = {}
    from_lge_masks: Mapping[str, Any] = {}
    cine = series.get("sax")
    if cine is not None:
        from_masks = summarize_ventricles(cine, person, out, find_phases=find_phases)
    if "lge" in series:
        septum = None
        if cine is not None:
            # The cine shows the right ventricle, by which segments are numbered; late enhancement need not.
            frame = from_masks["frames"].get("ed", cine.known_frames()[0])
            septum = septum_direction(cine, frame)
        from_lge_masks = summarize_scar(series["lge"], lge_structures, out, septum)
    return MaskMeasurements(from_masks, from_lge_masks)
