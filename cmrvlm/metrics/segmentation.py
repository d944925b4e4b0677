"""Overlap of predicted and true structures.

Convention for empties: truth and prediction both empty is not defined (None, counted); truth empty and prediction not,
or the other way round, is 0. Voxels with 255 are in neither.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cmrvlm.labels import NOT_ANNOTATED
from cmrvlm.tasks.base import Answer, Score


def dice(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float | None:
    """2 |A and B| / (|A| + |B|); None when both are empty."""
    total = int(predicted.sum(dtype=np.int64)) + int(truth.sum(dtype=np.int64))
    return None if total == 0 else 2 * int((predicted & truth).sum(dtype=np.int64)) / total


def mean_score(values: Sequence[float | None]) -> Score:
    """Mean over the defined values, with the number of the others."""
    defined = [v for v in values if v is not None]
    return Score(float(np.mean(defined)) if defined else None, len(defined), len(values) - len(defined))


def mask_scores(answers: Sequence[Answer]) -> dict[str, Score]:
    """3D Dice over the frames asked, by phase where known, and the share of answers that gave a mask.

    An answer without <SEG> gives no mask: it is scored as an empty one.
    """
    columns: dict[str, list[float | None]] = {"dice": [], "dice_ed": [], "dice_es": []}
    given = 0
    for answer in answers:
        target = answer.instruction.case.mask
        if target is None or answer.truth_mask is None:
            continue
        known = answer.truth_mask != NOT_ANNOTATED
        truth = np.isin(answer.truth_mask, target.values) & known
        predicted = np.zeros_like(truth) if answer.mask is None else answer.mask & known
        given += answer.mask is not None
        columns["dice"].append(dice(predicted, truth))
        for index, phase in enumerate(target.phases):
            if phase is not None:
                columns[f"dice_{phase}"].append(dice(predicted[:, index], truth[:, index]))
    n = len(columns["dice"])
    share = Score(given / n if n else None, n)
    return {name: mean_score(values) for name, values in columns.items()} | {"mask_share": share}
