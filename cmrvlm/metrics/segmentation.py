"""Overlap and distance of predicted and true structures, on the model's grid with its spacing in mm.

Convention for empties: truth and prediction both empty is not defined (None, counted). One of them empty has a Dice of
0 and no distance (None, counted): a large number in its place would be made up. Voxels with 255 are in neither.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.surface_distance import compute_average_surface_distance
from numpy.typing import NDArray

from cmrvlm.instructions.answer import AnswerWithTruth
from cmrvlm.metrics.boxes import box_iou, box_of
from cmrvlm.metrics.statistic import Mean, Statistic
from cmrvlm.study.vocabulary import NOT_ANNOTATED

Mask = NDArray[np.bool_]


def dice(predicted: Mask, truth: Mask) -> float | None:
    """2 |A and B| / (|A| + |B|); None when both are empty."""
    total = int(predicted.sum(dtype=np.int64)) + int(truth.sum(dtype=np.int64))
    return None if total == 0 else 2 * int((predicted & truth).sum(dtype=np.int64)) / total


def surface_distances_mm(
    predicted: Mask, truth: Mask, spacing_mm: Sequence[float]
) -> tuple[float, float] | None:
    """95th percentile of the Hausdorff distance, and mean symmetric surface distance, in mm.

    Surfaces are those of the whole stack; a single slice is measured in its plane.

    Args:
        predicted: (Z, H, W).
        truth: (Z, H, W).
        spacing_mm: Along (Z, H, W).

    Returns:
        None when either is empty.
    """
    if not predicted.any() or not truth.any():
        return None
    box = box_of(predicted | truth)
    assert box is not None
    inside = tuple(slice(max(0, box[k] - 1), box[k + 3] + 1) for k in range(3))
    a, b = (
        torch.from_numpy(one[inside].astype(np.float32))[None, None] for one in (predicted, truth)
    )
    spacing = [float(v) for v in spacing_mm]
    if a.shape[2] == 1:
        a, b, spacing = a[:, :, 0], b[:, :, 0], spacing[1:]
    settings = {"include_background": True, "spacing": spacing}
    far = compute_hausdorff_distance(a, b, percentile=95, **settings)
    mean = compute_average_surface_distance(a, b, symmetric=True, **settings)
    return float(far), float(mean)


def mask_scores(answers: Sequence[AnswerWithTruth]) -> dict[str, Statistic]:
    """Dice over the frames asked, distances averaged over them, both by phase where known, and the share of masks.

    Slices in which only the prediction, or only the truth, has the structure are counted for each answer. Whether the
    structure is there at all is a test with a sensitivity and a specificity. An answer that neither gives a mask nor
    says that there is nothing is scored as an empty mask, and missed in `mask_share`.
    """
    counted = (
        "false_positive_slices",
        "missed_slices",
        "presence_sensitivity",
        "presence_specificity",
    )
    names = [
        f"{kind}{phase}{unit}"
        for kind, unit in (("dice", ""), ("hd95", "_mm"), ("asd", "_mm"))
        for phase in ("", "_ed", "_es")
    ]
    columns: dict[str, list[float | None]] = {
        name: [None] * len(answers) for name in (*names, *counted)
    }
    given: list[float | None] = [None] * len(answers)
    for row, answer in enumerate(answers):
        target = answer.instruction.region
        if target is None or answer.truth_mask is None or answer.spacing_mm is None:
            continue
        known = answer.truth_mask != NOT_ANNOTATED
        truth = np.isin(answer.truth_mask, target.values) & known
        predicted = np.zeros_like(truth) if answer.mask is None else answer.mask & known
        given[row] = float(answer.mask is not None)
        columns["dice"][row] = dice(predicted, truth)
        presence = "presence_sensitivity" if truth.any() else "presence_specificity"
        columns[presence][row] = (
            float(bool(predicted.any()) == bool(truth.any())) if known.any() else None
        )
        said, there = predicted.any(axis=(2, 3)), truth.any(axis=(2, 3))  # (Z, F)
        columns["false_positive_slices"][row] = float((said & ~there).sum())
        columns["missed_slices"][row] = float((there & ~said).sum())
        far, near = [], []
        for index, phase in enumerate(target.phases):
            distances = surface_distances_mm(
                predicted[:, index], truth[:, index], answer.spacing_mm
            )
            if distances:
                far.append(distances[0])
                near.append(distances[1])
            if phase is not None:
                columns[f"dice_{phase}"][row] = dice(predicted[:, index], truth[:, index])
                columns[f"hd95_{phase}_mm"][row] = distances[0] if distances else None
                columns[f"asd_{phase}_mm"][row] = distances[1] if distances else None
        if len(far) == len(target.phases):
            columns["hd95_mm"][row], columns["asd_mm"][row] = (
                float(np.mean(far)),
                float(np.mean(near)),
            )
    scores: dict[str, Statistic] = {name: Mean(values) for name, values in columns.items()}
    return scores | {"mask_share": Mean(given)}


def box_scores(answers: Sequence[AnswerWithTruth]) -> dict[str, Statistic]:
    """Intersection over union of the boxes, the share of at least one half, and the share of answers with a box.

    An answer without a box where there is a structure has an IoU of 0; where there is none it is not defined.
    """
    overlaps: list[float | None] = []
    given: list[float] = []
    for answer in answers:
        target = answer.instruction.region
        truth, known = None, None
        if target is not None and answer.truth_mask is not None:
            known = answer.truth_mask[:, 0] != NOT_ANNOTATED
            truth = box_of(np.isin(answer.truth_mask, target.values)[:, 0])
        said = None
        if answer.mask is not None:
            said = box_of(answer.mask[:, 0] if known is None else answer.mask[:, 0] & known)
        given.append(float(said is not None))
        overlaps.append(None if truth is None else 0.0 if said is None else box_iou(said, truth))
    half = [None if one is None else float(one >= 0.5) for one in overlaps]
    return {"iou": Mean(overlaps), "half_overlap_share": Mean(half), "box_share": Mean(given)}
