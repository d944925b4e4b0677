"""Ask how the wall moves by AHA segment, read from how far the endocardium moves in between the masks."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from cmrvlm.instructions.question import whole_views
from cmrvlm.quantification.segments import SEGMENT_NAMES, sectors
from cmrvlm.study.study import Series, Study
from cmrvlm.study.vocabulary import Term
from cmrvlm.tasks.base import Case
from cmrvlm.tasks.perception import ClosedTask

# Radial shortening, as a share, below which a segment is hypokinetic or akinetic; cut-offs of our own.
HYPOKINETIC = 0.15
AKINETIC = 0.05


def shortening(series: Series) -> dict[int, float]:
    """Return for each AHA segment of the middle slice the share by which its cavity's radius shrinks.

    Returns:
        Segment number to share; empty without masks at ED and ES, or without a mid-ventricular slice.
    """
    mid_slices = [index for index, level in enumerate(series.levels) if level == "mid"]
    phase_frames = {series.phases.get(phase) for phase in ("ed", "es")}
    if not mid_slices or not phase_frames <= set(series.annotated_frames()):
        return {}
    middle = mid_slices[len(mid_slices) // 2]
    radius_at_ed = _radius_by_segment(series, middle, series.phases["ed"])
    radius_at_es = _radius_by_segment(series, middle, series.phases["es"])
    return {
        segment: 1 - radius_at_es[segment] / radius
        for segment, radius in radius_at_ed.items()
        if segment in radius_at_es and radius
    }


def _radius_by_segment(series: Series, slice_index: int, frame: int) -> dict[int, float]:
    """Return the cavity's radius in mm for each segment of a slice, segments as they lie at ED."""
    return {
        sector.segment: sector.radius_mm
        for sector in sectors(series, frame, reference=series.phases["ed"])
        if sector.slice == slice_index
    }


def motion_grade(share: float) -> str:
    """Return the code of the grade of a radial shortening."""
    if share < AKINETIC:
        return "akinetic"
    if share < HYPOKINETIC:
        return "hypo"
    return "normal"


class WallMotionTask(ClosedTask):
    """Ask how a mid-ventricular segment moves."""

    name = "wall_motion"
    terms = {
        "normal": Term("normal", "normokinetic", "运动正常"),
        "hypo": Term("hypo", "hypokinetic", "运动减弱"),
        "akinetic": Term("akinetic", "akinetic", "运动消失"),
    }
    prompts = {
        "en": ("How does the {name} move?", "Judge the motion of the {name}."),
        "zh": ("{name}运动如何？", "请评价{name}的运动。"),
    }
    paraphrases = {"en": ("Does the {name} contract?",), "zh": ("{name}收缩得怎么样？",)}
    answers = {"en": "It is {name}.", "zh": "{name}。"}

    def cases(self, study: Study, shown: Collection[str]) -> list[Case]:
        """Return each mid segment of a shown short-axis stack with masks at ED and ES."""
        if "sax" not in shown:
            return []
        return [
            Case(whole_views(shown), truth=motion_grade(share), key=str(segment))
            for segment, share in shortening(study.series["sax"]).items()
        ]

    def fields(self, study: Study, case: Case, language: str) -> Mapping[str, str]:
        """Return the segment's name."""
        english, chinese = SEGMENT_NAMES[int(case.key)]
        return {"name": chinese if language == "zh" else f"{english} segment"}
