"""Wall motion by AHA segment: how far the endocardium of a mid-ventricular segment moves in, read from the masks."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from cmrvlm.quantification.segments import SEGMENT_NAMES, sectors
from cmrvlm.study.study import Series, Study
from cmrvlm.study.vocabulary import Term
from cmrvlm.tasks.base import Case, whole_views
from cmrvlm.tasks.perception import ClosedTask

HYPOKINETIC, AKINETIC = 0.15, 0.05  # radial shortening below these; cut-offs of our own


def shortening(series: Series) -> dict[int, float]:
    """AHA segment of the middle slice to the share by which its cavity's radius shrinks; empty without masks."""
    middle = [index for index, level in enumerate(series.levels) if level == "mid"]
    if not middle or not {series.phases.get(phase) for phase in ("ed", "es")} <= set(
        series.annotated_frames()
    ):
        return {}
    at, ed = middle[len(middle) // 2], series.phases["ed"]
    before, after = (
        {
            one.segment: one.radius_mm
            for one in sectors(series, frame, reference=ed)
            if one.slice == at
        }
        for frame in (ed, series.phases["es"])
    )
    return {
        segment: 1 - after[segment] / radius
        for segment, radius in before.items()
        if segment in after and radius
    }


class WallMotionTask(ClosedTask):
    """How does a mid-ventricular segment move?"""

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
        """Each mid segment of a shown short-axis stack with masks at ED and ES."""
        moved = shortening(study.series["sax"]) if "sax" in shown else {}
        grades = {
            code: "akinetic" if s < AKINETIC else "hypo" if s < HYPOKINETIC else "normal"
            for code, s in moved.items()
        }
        return [
            Case(whole_views(shown), truth=grade, key=str(code)) for code, grade in grades.items()
        ]

    def fields(self, study: Study, case: Case, language: str) -> Mapping[str, str]:
        """The segment's name."""
        english, chinese = SEGMENT_NAMES[int(case.key)]
        return {"name": chinese if language == "zh" else f"{english} segment"}
