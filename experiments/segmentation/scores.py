"""Score label maps, the same for every model: overlap, distances, and measurements."""

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
from cmrvlm.metrics.segmentation import MASK_SCORES, mask_scores, means
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
# `dice_ed` becomes `ed_dice`.
_PHASE_BEHIND = re.compile(r"^(dice|hd95|asd)_(ed|es)")
_PHASE_FIRST = r"\2_\1"
# Ventricles are in every study, so their presence is no score.
_PRESENCE = re.compile(r"^presence_")
_IN_UNITS = re.compile(r"_(mm|ml|g)$|_mass_")


def statistics(
    maps: Mapping[str, LabelMap], studies: Sequence[Study], chosen: DataSet
) -> dict[str, Statistic]:
    """Compute all metrics over the studies: `lv_ed_dice`, `rv_hd95_mm`, `lvef_bias_points`.

    Args:
        maps: Study id to labels (Z, T, H, W) on the study's grid; only annotated frames count.
        studies: Studies with true masks.
        chosen: The data set. Without a true spacing nothing is scored in units of length, volume
            or mass.
    """
    metrics = overlaps(maps, studies, chosen.sequence, chosen.structures)
    predicted = []
    truth = []
    for study in studies:
        series = study.series[chosen.sequence]
        predicted.append(_measured(series, maps[study.study_id], chosen.sequence))
        truth.append(_measured(series, None, chosen.sequence))
    for name in COUNTED[chosen.sequence]:
        predicted_values = [values.get(name) for values in predicted]
        true_values = [values.get(name) for values in truth]
        scores = agreement_scores(predicted_values, true_values, name)
        for metric, statistic in scores.items():
            metrics[metric.replace("_percent", "_points")] = statistic
    if chosen.in_mm:
        return metrics
    return {name: metric for name, metric in metrics.items() if not _IN_UNITS.search(name)}


def overlaps(
    maps: Mapping[str, LabelMap], studies: Sequence[Study], sequence: str, structures: Sequence[str]
) -> dict[str, Statistic]:
    """Compute Dice and distances by structure.

    They are by phase on the short axis (`lv_ed_dice`), and with presence on late enhancement.

    Frames without any label are those that the models did not see.
    """
    metrics: dict[str, Statistic] = {}
    for structure in structures:
        task = SegmentTask(structure, sequence)
        answers: list[AnswerWithTruth] = []
        for study in studies:
            series = study.series[sequence]
            assert series.mask is not None
            labels = maps[study.study_id]
            frames = tuple(
                frame
                for frame in series.annotated_frames()
                if (labels[:, frame] != NOT_ANNOTATED).any()
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
        left_out = _PRESENCE
        # Late enhancement is a single frame without a phase.
        if sequence == "lge":
            left_out = _PHASE_BEHIND
        scores = [mask_scores(answer) for answer in answers]
        for name, statistic in means(scores, MASK_SCORES).items():
            if name == "mask_share" or left_out.match(name):
                continue
            metric = _PHASE_BEHIND.sub(_PHASE_FIRST, name)
            metrics[f"{structure}_{metric}"] = statistic
    return metrics


def _measured(series: Series, labels: LabelMap | None, sequence: str) -> Mapping[str, float]:
    """Compute measurements from labels (Z, T, H, W), or from the true mask when they are None."""
    assert series.mask is not None
    if labels is not None:
        mask = np.where(series.mask == NOT_ANNOTATED, series.mask, labels)
        series = replace(series, mask=mask)
    if sequence == "sax":
        return quantify(series).values
    return quantify_scar(series).values


def as_rows(metrics: Mapping[str, Statistic], studies: Sequence[Study]) -> dict[str, Any]:
    """Return values with 95 % intervals by bootstrap over patients."""
    weights = _resampled(studies)
    rows: dict[str, Any] = {}
    for name, statistic in metrics.items():
        value = statistic.value
        low = None
        high = None
        if value is not None:
            value = round(value, 4)
            low, high = interval(statistic(weights))
        rows[name] = {
            "value": value,
            "low": low,
            "high": high,
            "n": statistic.n,
            "undefined": statistic.undefined,
        }
    return rows


def _resampled(studies: Sequence[Study]) -> Weights:
    """Return weights (1000, N) of the studies, by drawing their patients a thousand times."""
    patients = [study.patient_id for study in studies]
    return Bootstrap.of(patients, 1000).rows(patients)


def difference(
    one: Statistic, other: Statistic, studies: Sequence[Study]
) -> dict[str, float | int | None]:
    """Return the mean difference where both are defined, with its paired interval."""
    both = Mean(per_answer(one) - per_answer(other))
    if both.value is None:
        return {"value": None, "low": None, "high": None, "n": 0}
    low, high = interval(both(_resampled(studies)))
    return {"value": round(both.value, 4), "low": low, "high": high, "n": both.n}
