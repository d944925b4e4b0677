"""Losses of mask logits, in float32 outside autocast; voxels with target 255 count for nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate

from cmrvlm.study.vocabulary import NOT_ANNOTATED

SMOOTH_VOXELS = 1.0
_NO_SHADOW = -30.0  # a logit that no voxel beside it loses against


def soft_dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over masks of 1 - (2 |AB| + s) / (|A| + |B| + s) with soft A.

    The smoothing term stands above and below, so that a right empty prediction costs nothing (Milletari et al., V-Net,
    3DV 2016, with the term of later practice).

    Args:
        logits: (M, ...) any trailing shape.
        target: Same shape, 0, 1 or 255 (ignored).
    """
    with torch.autocast(logits.device.type, enabled=False):
        known = target != NOT_ANNOTATED
        probability = (torch.sigmoid(logits.float()) * known).flatten(1)
        truth = ((target == 1) & known).float().flatten(1)
        both = (probability * truth).sum(dim=1)
        total = probability.sum(dim=1) + truth.sum(dim=1)
        return (1 - (2 * both + SMOOTH_VOXELS) / (total + SMOOTH_VOXELS)).mean()


def mask_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy over the annotated voxels; 0 when there are none."""
    with torch.autocast(logits.device.type, enabled=False):
        known = target != NOT_ANNOTATED
        loss = binary_cross_entropy_with_logits(
            logits.float(), (target == 1).float(), reduction="none"
        )
        return (loss * known).sum() / known.sum().clamp(min=1)


def scale_weights(count: int) -> list[float]:
    """Weight of each scale of deep supervision, each half of the finer one's, together 1 (as in nnU-Net)."""
    return [2.0 ** (count - 1 - level) / (2**count - 1) for level in range(count)]


def targets_at_scales(target: Tensor, logits: Sequence[Tensor]) -> list[Tensor]:
    """The target (Z, F, H, W) on the grid of each of the logits (Z, F, H / s, W / s): the nearest voxel's value."""
    return [
        target
        if one.shape == target.shape
        else interpolate(target.float(), size=one.shape[-2:], mode="nearest-exact").to(target.dtype)
        for one in logits
    ]


def box_profile_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Soft Dice and cross-entropy of the shadows that a map and a structure cast on each axis.

    The extents of the shadows are the box (Tian et al., BoxInst, CVPR 2021, use the same projection).

    Args:
        logits: (Z, H, W).
        target: Same shape, 0, 1 or 255 (ignored).
    """
    structure, unknown = (target == 1).to(target.dtype), target == NOT_ANNOTATED
    logits = logits.masked_fill(unknown, _NO_SHADOW)
    loss = logits.new_zeros((), dtype=torch.float32)
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        cast, wanted = logits.amax(dim=others), structure.amax(dim=others)
        wanted = wanted.masked_fill(unknown.all(dim=others), NOT_ANNOTATED)
        loss = loss + soft_dice_loss(cast[None], wanted[None]) + mask_cross_entropy(cast, wanted)
    return loss / 3
