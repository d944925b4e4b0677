"""Label maps to scores, the same for every model: overlap, distances, and what is counted from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmrvlm.evaluation.results import Bootstrap, interval
from cmrvlm.metrics.agreement import agreement_scores
from cmrvlm.metrics.segmentation import mask_scores
from cmrvlm.metrics.statistic import Statistic, Weights
from cmrvlm.quantification.scar import quantify_scar
from cmrvlm.quantification.ventricles import quantify
from cmrvlm.study import Series, Study
from cmrvlm.tasks.base import Answer
from cmrvlm.tasks.segmentation import STRUCTURE_VALUES, SegmentTask

LabelMap = NDArray[np.uint8]
COUNTED = {"sax": ("lvedv_ml", "lvesv_ml", "lvef_percent", "rvedv_ml", "rvesv_ml", "rvef_percent", "lv_mass_g"),
           "lge": ("scar_mass_g", "scar_share_percent")}  # fmt: skip


def statistics(maps: Mapping[str, LabelMap], studies: Sequence[Study], sequence: str, structures: Sequence[str]
               ) -> dict[str, Statistic]:  # fmt: skip
    """Each metric over the studies, in their order.

    Args:
        maps: Study id to labels (Z, T, H, W) on the study's grid; frames that are not annotated are not looked at.
        studies: With true masks.
        sequence: Series of the masks.
        structures: Structures to score.
    """
    found: dict[str, Statistic] = {}
    for structure in structures:
        task = SegmentTask(structure, sequence)
        answers = []
        for study in studies:
            (case,) = task.cases(study, [sequence]) or [None]
            if case is None or case.mask is None:
                continue
            frames = list(case.mask.frames)
            inside = np.isin(maps[study.study_id][:, frames], STRUCTURE_VALUES[structure])
            series = study.series[sequence]
            assert series.mask is not None
            answers.append(Answer(task.word(study, case, "en"), "", inside, series.mask[:, frames], series.spacing_mm))
        found |= {f"{structure}_{name}": one for name, one in mask_scores(answers).items() if name != "mask_share"}
    said = [_counted(study.series[sequence], maps[study.study_id], sequence) for study in studies]
    truth = [_counted(study.series[sequence], None, sequence) for study in studies]
    for name in COUNTED[sequence]:
        found |= agreement_scores([one.get(name) for one in said], [one.get(name) for one in truth], name)
    return found


def _counted(series: Series, labels: LabelMap | None, sequence: str) -> Mapping[str, float]:
    own = series if labels is None else replace(series, mask=np.where(series.mask == 255, series.mask, labels))
    return (quantify(own) if sequence == "sax" else quantify_scar(own)).values


def as_rows(found: Mapping[str, Statistic], studies: Sequence[Study]) -> dict[str, Any]:
    """Values with 95 % intervals by bootstrap over patients."""
    weights, rows = _resampled(studies), {}
    for name, one in found.items():
        if one.value is None or one.size != len(studies):
            rows[name] = {"value": one.value, "low": None, "high": None, "n": one.n, "undefined": one.undefined}
            continue
        low, high = interval(one(weights))
        rows[name] = {"value": round(one.value, 4), "low": low, "high": high, "n": one.n, "undefined": one.undefined}
    return rows


def _resampled(studies: Sequence[Study]) -> Weights:
    """How often each study is drawn in each of a thousand resamples of patients."""
    patients = [one.patient_id for one in studies]
    return Bootstrap.of(patients, 1000).rows(patients)


def difference(one: Statistic, other: Statistic, studies: Sequence[Study]) -> dict[str, float | None]:
    """One less the other on the same patients, with its paired interval."""
    weights = _resampled(studies)
    low, high = interval(one(weights) - other(weights))
    known = one.value is not None and other.value is not None
    return {"value": round(one.value - other.value, 4) if known else None, "low": low, "high": high}
