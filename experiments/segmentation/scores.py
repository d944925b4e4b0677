"""Label maps to scores, the same for every model: overlap, distances, and what is counted from them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmrvlm.evaluation.results import Bootstrap, interval
from cmrvlm.instructions.answer import AnswerWithTruth
from cmrvlm.metrics.agreement import agreement_scores
from cmrvlm.metrics.segmentation import mask_scores
from cmrvlm.metrics.statistic import Mean, Statistic, Weights, per_answer
from cmrvlm.quantification.scar import quantify_scar
from cmrvlm.quantification.ventricles import quantify
from cmrvlm.study.structures import STRUCTURE_VALUES
from cmrvlm.study.study import Series, Study
from cmrvlm.study.vocabulary import NOT_ANNOTATED
from cmrvlm.tasks.segmentation import SegmentTask
from experiments.segmentation.data import DataSet

LabelMap = NDArray[np.uint8]
COUNTED = {
    "sax": (
        "lvedv_ml",
        "lvesv_ml",
        "lvef_percent",
        "rvedv_ml",
        "rvesv_ml",
        "rvef_percent",
        "lv_mass_g",
    ),
    "lge": ("scar_mass_g", "scar_share_percent"),
}
_PHASE_BEHIND, _PHASE_FIRST = re.compile(r"^(dice|hd95|asd)_(ed|es)"), r"\2_\1"
_PRESENCE = re.compile(r"^presence_")  # of ventricles, which are in every study
_IN_UNITS = re.compile(r"_(mm|ml|g)$|_mass_")


def statistics(
    maps: Mapping[str, LabelMap], studies: Sequence[Study], chosen: DataSet
) -> dict[str, Statistic]:
    """Each metric over the studies, in their order: `lv_ed_dice`, `rv_hd95_mm`, `lvef_bias_points`.

    Args:
        maps: Study id to labels (Z, T, H, W) on the study's grid; frames that are not annotated are not looked at.
        studies: With true masks.
        chosen: The data set. Without a true spacing nothing is told in units of length, volume or mass.
    """
    found = overlaps(maps, studies, chosen.sequence, chosen.structures)
    said = [
        _counted(one.series[chosen.sequence], maps[one.study_id], chosen.sequence)
        for one in studies
    ]
    truth = [_counted(one.series[chosen.sequence], None, chosen.sequence) for one in studies]
    for name in COUNTED[chosen.sequence]:
        scores = agreement_scores(
            [own.get(name) for own in said], [own.get(name) for own in truth], name
        )
        found |= {metric.replace("_percent", "_points"): one for metric, one in scores.items()}
    return (
        found
        if chosen.in_mm
        else {name: one for name, one in found.items() if not _IN_UNITS.search(name)}
    )


def overlaps(
    maps: Mapping[str, LabelMap], studies: Sequence[Study], sequence: str, structures: Sequence[str]
) -> dict[str, Statistic]:
    """Dice and distances by structure, by phase on the short axis and by presence on late enhancement: `lv_ed_dice`.

    Frames without any label are those that the models did not see.
    """
    found: dict[str, Statistic] = {}
    for structure in structures:
        task, answers = SegmentTask(structure, sequence), []
        for study in studies:
            series = study.series[sequence]
            assert series.mask is not None
            labels = maps[study.study_id]
            frames = tuple(
                f for f in series.annotated_frames() if (labels[:, f] != NOT_ANNOTATED).any()
            )
            phase_of = {frame: phase for phase, frame in series.phases.items()}
            case = task.case_on([sequence], frames, tuple(phase_of.get(frame) for frame in frames))
            instruction = task.make_instruction(study, case, "en")
            inside = np.isin(labels[:, list(frames)], STRUCTURE_VALUES[structure])
            answers.append(
                AnswerWithTruth(
                    question=instruction,
                    instruction=instruction,
                    text="",
                    mask=inside,
                    truth_mask=series.mask[:, list(frames)],
                    spacing_mm=series.spacing_mm,
                )
            )
        for name, one in mask_scores(answers).items():
            shown = not (_PHASE_BEHIND if sequence == "lge" else _PRESENCE).match(name)
            if name != "mask_share" and shown:
                found[f"{structure}_{_PHASE_BEHIND.sub(_PHASE_FIRST, name)}"] = one
    return found


def _counted(series: Series, labels: LabelMap | None, sequence: str) -> Mapping[str, float]:
    assert series.mask is not None
    own = series
    if labels is not None:
        own = replace(series, mask=np.where(series.mask == NOT_ANNOTATED, series.mask, labels))
    return (quantify(own) if sequence == "sax" else quantify_scar(own)).values


def as_rows(found: Mapping[str, Statistic], studies: Sequence[Study]) -> dict[str, Any]:
    """Values with 95 % intervals by bootstrap over patients."""
    weights, rows = _resampled(studies), {}
    for name, one in found.items():
        low, high = (None, None) if one.value is None else interval(one(weights))
        value = None if one.value is None else round(one.value, 4)
        rows[name] = {
            "value": value,
            "low": low,
            "high": high,
            "n": one.n,
            "undefined": one.undefined,
        }
    return rows


def _resampled(studies: Sequence[Study]) -> Weights:
    """How often each study is drawn in each of a thousand resamples of patients."""
    patients = [one.patient_id for one in studies]
    return Bootstrap.of(patients, 1000).rows(patients)


def difference(
    one: Statistic, other: Statistic, studies: Sequence[Study]
) -> dict[str, float | int | None]:
    """Mean difference over the patients for whom both are defined, with its paired interval."""
    both = Mean(per_answer(one) - per_answer(other))
    if both.value is None:
        return {"value": None, "low": None, "high": None, "n": 0}
    low, high = interval(both(_resampled(studies)))
    return {"value": round(both.value, 4), "low": low, "high": high, "n": both.n}
