"""Overlap and distance of predicted and true structures, on the model's grid with its spacing.

Where truth and prediction are both empty, the score is not defined (None, counted). Where one of
them is empty, Dice is 0 and there is no distance (None, counted): a large number in its place would
be made up. Voxels with 255 (not annotated) belong to neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
Scores = dict[str, float | None]

# Scores of a mask answer, in the order in which they are listed.
MASK_SCORES = (
    "dice",
    "dice_ed",
    "dice_es",
    "hd95_mm",
    "hd95_ed_mm",
    "hd95_es_mm",
    "asd_mm",
    "asd_ed_mm",
    "asd_es_mm",
    "false_positive_slices",
    "missed_slices",
    "presence_sensitivity",
    "presence_specificity",
    "mask_share",
)
# Scores of a box answer.
BOX_SCORES = ("iou", "half_overlap_share", "box_share")


def dice(predicted: Mask, truth: Mask) -> float | None:
    """Return 2 |A and B| / (|A| + |B|) of two masks of one shape; None when both are empty."""
    total = int(predicted.sum(dtype=np.int64)) + int(truth.sum(dtype=np.int64))
    if total == 0:
        return None
    overlap = int((predicted & truth).sum(dtype=np.int64))
    return 2 * overlap / total


def surface_distances_mm(
    predicted: Mask, truth: Mask, spacing_mm: Sequence[float]
) -> tuple[float, float] | None:
    """Compute the distances between the surfaces of two masks.

    Surfaces are those of the whole stack; a single slice is measured in its plane.

    Args:
        predicted: (Z, H, W).
        truth: (Z, H, W).
        spacing_mm: Along (Z, H, W).

    Returns:
        95th percentile of the Hausdorff distance and mean symmetric surface distance in mm; None
        when either mask is empty.
    """
    if not predicted.any() or not truth.any():
        return None
    # Only the box around both, with a margin of one voxel, is measured: the distances are the same.
    box = box_of(predicted | truth)
    assert box is not None
    inside = tuple(slice(max(0, box[k] - 1), box[k + 3] + 1) for k in range(3))
    first = torch.from_numpy(predicted[inside].astype(np.float32))[None, None]  # (1, 1, Z, H, W)
    second = torch.from_numpy(truth[inside].astype(np.float32))[None, None]
    spacing = [float(distance) for distance in spacing_mm]
    if first.shape[2] == 1:
        first = first[:, :, 0]  # (1, 1, H, W)
        second = second[:, :, 0]
        spacing = spacing[1:]
    settings = {"include_background": True, "spacing": spacing}
    hausdorff = compute_hausdorff_distance(first, second, percentile=95, **settings)
    mean = compute_average_surface_distance(first, second, symmetric=True, **settings)
    return float(hausdorff), float(mean)


def means(
    scores: Sequence[Mapping[str, float | None]], names: Sequence[str]
) -> dict[str, Statistic]:
    """Return the mean of each named score over N answers; one that an answer lacks is undefined."""
    return {name: Mean([of_answer.get(name) for of_answer in scores]) for name in names}


def mask_scores(answer: AnswerWithTruth) -> Scores:
    """Return the scores of an answer that outlines a structure, by names of `MASK_SCORES`.

    Dice is over the frames of the question, distances are averaged over them, both also by phase
    where known. Slices in which only the prediction, or only the truth, has the structure are
    counted. Presence of the structure is a test with a sensitivity and a specificity. An answer
    that neither gives a mask nor says that there is nothing is scored as an empty mask, and missed
    in `mask_share`. A score that is undefined is None or absent.
    """
    target = answer.instruction.region
    if target is None or answer.truth_mask is None or answer.spacing_mm is None:
        return {}
    known = answer.truth_mask != NOT_ANNOTATED
    truth = np.isin(answer.truth_mask, target.values) & known
    predicted = np.zeros_like(truth)
    if answer.mask is not None:
        predicted = answer.mask & known

    scores: Scores = {"dice": dice(predicted, truth), "mask_share": float(answer.mask is not None)}
    if known.any():
        scores |= _presence(predicted, truth)
    predicted_slices = predicted.any(axis=(2, 3))  # (Z, F)
    true_slices = truth.any(axis=(2, 3))  # (Z, F)
    scores["false_positive_slices"] = float((predicted_slices & ~true_slices).sum())
    scores["missed_slices"] = float((true_slices & ~predicted_slices).sum())
    return scores | _scores_of_frames(predicted, truth, target.phases, answer.spacing_mm)


def _presence(predicted: Mask, truth: Mask) -> Scores:
    """Return 1 or 0 for masks (Z, F, H, W) that agree or not on whether a structure is there."""
    correct = float(bool(predicted.any()) == bool(truth.any()))
    if truth.any():
        return {"presence_sensitivity": correct}
    return {"presence_specificity": correct}


def _scores_of_frames(
    predicted: Mask,
    truth: Mask,
    phases: Sequence[str | None],
    spacing_mm: tuple[float, float, float],
) -> Scores:
    """Return distances averaged over frames, and Dice and distances of those of a known phase.

    Args:
        predicted: (Z, F, H, W).
        truth: (Z, F, H, W).
        phases: Phase of each of the F frames, None where unknown.
        spacing_mm: Along (Z, H, W).
    """
    scores: Scores = {}
    distances_of_frames = []
    for frame, phase in enumerate(phases):
        distances = surface_distances_mm(predicted[:, frame], truth[:, frame], spacing_mm)
        if distances is not None:
            distances_of_frames.append(distances)
        if phase is None:
            continue
        hausdorff, mean = distances or (None, None)
        scores[f"dice_{phase}"] = dice(predicted[:, frame], truth[:, frame])
        scores[f"hd95_{phase}_mm"] = hausdorff
        scores[f"asd_{phase}_mm"] = mean
    # A mean over some of the frames would hide those that have no distance.
    if distances_of_frames and len(distances_of_frames) == len(phases):
        all_hausdorff, all_means = zip(*distances_of_frames, strict=True)
        scores["hd95_mm"] = float(np.mean(all_hausdorff))
        scores["asd_mm"] = float(np.mean(all_means))
    return scores


def box_scores(answer: AnswerWithTruth) -> Scores:
    """Return the scores of an answer that gives a box, by names of `BOX_SCORES`.

    They are the intersection over union, whether it is at least one half, and whether there is a
    box. An answer without a box where there is a structure has an overlap of 0; where there is no
    structure the overlap is not defined.
    """
    overlap, has_box = _box_overlap(answer)
    at_least_half = None
    if overlap is not None:
        at_least_half = float(overlap >= 0.5)
    return {"iou": overlap, "half_overlap_share": at_least_half, "box_share": float(has_box)}


def _box_overlap(answer: AnswerWithTruth) -> tuple[float | None, bool]:
    """Return the overlap of an answer's box with the true one, and whether the answer has a box."""
    target = answer.instruction.region
    predicted = None
    if answer.mask is not None:
        predicted = answer.mask[:, 0]  # (Z, H, W)
    true_box = None
    if target is not None and answer.truth_mask is not None:
        truth = answer.truth_mask[:, 0]  # (Z, H, W)
        true_box = box_of(np.isin(truth, target.values))
        if predicted is not None:
            predicted = predicted & (truth != NOT_ANNOTATED)

    predicted_box = None
    if predicted is not None:
        predicted_box = box_of(predicted)
    if true_box is None:
        return None, predicted_box is not None
    if predicted_box is None:
        return 0.0, False
    return box_iou(predicted_box, true_box), True
