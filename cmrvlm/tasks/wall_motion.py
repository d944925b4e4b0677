"""Wall motion by AHA segment: how far the endocardium of a mid-ventricular segment moves in, read from the masks."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from cmrvlm.labels import STRUCTURES, Term
from cmrvlm.study import Series, Study
from cmrvlm.tasks.base import Case, whole_views
from cmrvlm.tasks.perception import ClosedTask

# Mid segments 7 to 12 of the 17-segment model (Cerqueira et al., Circulation 2002;105:539) by the angle of their
# centre, from the direction of the right ventricle towards the inferior wall.
SEGMENTS = {
    "8": (Term("8", "mid anteroseptal segment", "中间段前间隔"), 330),
    "9": (Term("9", "mid inferoseptal segment", "中间段下间隔"), 30),
    "10": (Term("10", "mid inferior segment", "中间段下壁"), 90),
    "11": (Term("11", "mid inferolateral segment", "中间段下侧壁"), 150),
    "12": (Term("12", "mid anterolateral segment", "中间段前侧壁"), 210),
    "7": (Term("7", "mid anterior segment", "中间段前壁"), 270),
}
HYPOKINETIC, AKINETIC = 0.15, 0.05  # radial shortening below these; cut-offs of our own


def shortening(series: Series) -> dict[str, float]:
    """Share by which each segment's cavity radius about the end-diastolic centre shrinks; empty without masks.

    The radius of a sector follows from its cavity area: sqrt(2 area / angle). Angles are taken in world mm.
    """
    middle = [index for index, level in enumerate(series.levels) if level == "mid"]
    if not middle or not {series.phases.get(phase) for phase in ("ed", "es")} <= set(series.annotated_frames()):
        return {}
    assert series.mask is not None
    ed, es = (series.mask[middle[len(middle) // 2], series.phases[phase]] for phase in ("ed", "es"))
    if not (ed == STRUCTURES["lv"]).any() or not (ed == STRUCTURES["rv"]).any():
        return {}
    to_mm = series.affine[:3, [1, 0]]  # (h, w) to world
    points = {name: np.argwhere(ed == STRUCTURES[name]) @ to_mm.T for name in ("lv", "rv")}
    center = points["lv"].mean(axis=0)
    septal = points["rv"].mean(axis=0) - center
    septal /= np.linalg.norm(septal)
    inferior = np.cross(series.affine[:3, 2] / np.linalg.norm(series.affine[:3, 2]), septal)  # slices go to the apex

    def areas(mask: np.ndarray) -> np.ndarray:
        gap = np.argwhere(mask == STRUCTURES["lv"]) @ to_mm.T - center
        degrees = np.rad2deg(np.arctan2(gap @ inferior, gap @ septal)) % 360
        return np.array([(np.abs((degrees - at + 180) % 360 - 180) < 30).sum() for _, at in SEGMENTS.values()])

    before, after = areas(ed), areas(es)
    return {code: float(1 - np.sqrt(after[i] / before[i])) for i, code in enumerate(SEGMENTS) if before[i]}


class WallMotionTask(ClosedTask):
    """How does a mid-ventricular segment move?"""

    name = "wall_motion"
    terms = {"normal": Term("normal", "normokinetic", "运动正常"), "hypo": Term("hypo", "hypokinetic", "运动减弱"),
             "akinetic": Term("akinetic", "akinetic", "运动消失")}  # fmt: skip
    prompts = {"en": ("How does the {name} move?", "Judge the motion of the {name}."),
               "zh": ("{name}运动如何？", "请评价{name}的运动。")}  # fmt: skip
    paraphrases = {"en": ("Does the {name} contract?",), "zh": ("{name}收缩得怎么样？",)}
    answers = {"en": "It is {name}.", "zh": "{name}。"}

    def cases(self, study: Study, shown: Collection[str]) -> list[Case]:
        """Each mid segment of a shown short-axis stack with masks at ED and ES."""
        moved = shortening(study.series["sax"]) if "sax" in shown else {}
        grades = {
            code: "akinetic" if s < AKINETIC else "hypo" if s < HYPOKINETIC else "normal" for code, s in moved.items()
        }
        return [Case(whole_views(shown), truth=grade, key=code) for code, grade in grades.items()]

    def fields(self, study: Study, case: Case, language: str) -> Mapping[str, str]:
        """The segment's name."""
        return {"name": SEGMENTS[case.key][0].name(language)}
