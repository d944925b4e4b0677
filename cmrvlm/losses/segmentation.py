"""Losses of mask logits, in float32 outside autocast; voxels with target 255 are ignored."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate

from cmrvlm.study.vocabulary import NOT_ANNOTATED

SMOOTH_VOXELS = 1.0
# Logit of ignored voxels in a projection: the maximum along a line never falls on them.
_LOWEST_LOGIT = -30.0


def soft_dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Average 1 - (2 |AB| + s) / (|A| + |B| + s) with soft A over masks.

    The smoothing term s stands above and below, so that a correct empty prediction costs nothing
    (Milletari et al., V-Net, 3DV 2016, with the term of later practice).

    Args:
        logits: Logits (M, ...) of M masks, any trailing shape.
        target: Same shape: 0, 1 or 255 (ignored).

    Returns:
        Scalar.
    """
    with torch.autocast(logits.device.type, enabled=False):
        known = target != NOT_ANNOTATED
        probability = torch.sigmoid(logits.float()) * known
        probability = probability.flatten(1)
        truth = (target == 1).float().flatten(1)

        intersection = (probability * truth).sum(dim=1)
        total = probability.sum(dim=1) + truth.sum(dim=1)
        numerator = 2 * intersection + SMOOTH_VOXELS
        dice = numerator / (total + SMOOTH_VOXELS)
        return (1 - dice).mean()


def mask_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Average binary cross-entropies over the annotated voxels.

    Args:
        logits: Logits of any shape, such as (Z, F, H, W).
        target: Same shape: 0, 1 or 255 (ignored).

    Returns:
        Scalar; 0 without annotated voxels.
    """
    with torch.autocast(logits.device.type, enabled=False):
        known = target != NOT_ANNOTATED
        truth = (target == 1).float()
        losses = binary_cross_entropy_with_logits(
            logits.float(),
            truth,
            reduction="none",
        )
        annotated_voxels = known.sum().clamp(min=1)
        return (losses * known).sum() / annotated_voxels


def scale_weights(count: int) -> list[float]:
    """Return the weights of the scales of deep supervision, finest first, as in nnU-Net.

    Each is half of the weight of the next finer scale; their sum is 1.

    Args:
        count: Number of scales.
    """
    # Powers of 2, the coarsest scale's being 1, and their sum.
    powers = [2.0**level for level in reversed(range(count))]
    total = 2**count - 1
    return [power / total for power in powers]


def targets_at_scales(target: Tensor, logits: Sequence[Tensor]) -> list[Tensor]:
    """Resample a target to the grid of the logits at each scale, by the nearest voxel.

    Args:
        target: Mask (Z, F, H, W).
        logits: Logits (Z, F, H / s, W / s) at each scale.

    Returns:
        Masks of the shapes of the logits and the type of the target.
    """
    targets = []
    for scale in logits:
        resampled = target
        if scale.shape != target.shape:
            size = scale.shape[-2:]
            resampled = interpolate(
                target.float(),
                size=size,
                mode="nearest-exact",
            )
        targets.append(resampled.to(target.dtype))
    return targets


def box_profile_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Compare the projections of a map and of a structure onto each axis.

    The extents of the projections, maxima over the two other axes, are the box (Tian et al.,
    BoxInst, CVPR 2021). The loss is soft Dice and cross-entropy, averaged over the axes.

    Args:
        logits: Logits (Z, H, W).
        target: Same shape: 0, 1 or 255 (ignored).

    Returns:
        Scalar.
    """
    unknown = target == NOT_ANNOTATED
    structure = (target == 1).to(target.dtype)
    logits = logits.masked_fill(unknown, _LOWEST_LOGIT)
    loss = logits.new_zeros((), dtype=torch.float32)
    for others in ((1, 2), (0, 2), (0, 1)):
        profile = logits.amax(dim=others)
        truth = structure.amax(dim=others)
        hidden = unknown.all(dim=others)
        truth = truth.masked_fill(hidden, NOT_ANNOTATED)
        loss = loss + soft_dice_loss(profile[None], truth[None])
        loss = loss + mask_cross_entropy(profile, truth)
    return loss / 3
