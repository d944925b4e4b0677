"""Contrast of image and text embeddings."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, logsigmoid, normalize

_STEEPEST = 100.0  # most that a similarity is multiplied by, as in CLIP


def info_nce(images: Tensor, texts: Tensor, scale: Tensor, same: Tensor) -> Tensor:
    """Symmetric InfoNCE (van den Oord et al., 2018; Radford et al., CLIP, ICML 2021) with several positives.

    Args:
        images: (N, D).
        texts: (N, D).
        scale: Inverse temperature, scalar.
        same: (N, N) true where text j also describes study i (identical texts are no negatives).

    Returns:
        Scalar; 0 for one pair, which has nothing to be told from.
    """
    with torch.autocast(images.device.type, enabled=False):
        logits = (
            scale.float() * normalize(images.float(), dim=-1) @ normalize(texts.float(), dim=-1).T
        )
        target = same.float() / same.sum(dim=1, keepdim=True)
        rows = -(target * log_softmax(logits, dim=1)).sum(dim=1).mean()
        columns = -(target.T * log_softmax(logits.T, dim=1)).sum(dim=1).mean()
        # A target shared by several positives has an entropy of its own; without it the loss can reach 0.
        floor = -(target * target.clamp(min=1e-12).log()).sum(dim=1).mean()
        return (rows + columns) / 2 - floor


def sig_lip(images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor, same: Tensor) -> Tensor:
    """Sigmoid loss over all pairs (Zhai et al., SigLIP, ICCV 2023) with several positives.

    Args:
        images: (N, D).
        texts: (N, D).
        scale: Inverse temperature, scalar.
        bias: Added to each similarity, scalar.
        same: (N, N) true where text j also describes study i.

    Returns:
        Scalar: summed over the texts, averaged over the images.
    """
    with torch.autocast(images.device.type, enabled=False):
        logits = (
            scale.float() * normalize(images.float(), dim=-1) @ normalize(texts.float(), dim=-1).T
            + bias.float()
        )
        signs = torch.where(same, 1.0, -1.0)
        return -logsigmoid(signs * logits).sum() / len(images)


class ContrastiveLoss(nn.Module, ABC):
    """Base of the losses of stage 1."""

    @abstractmethod
    def forward(self, images: Tensor, texts: Tensor, same: Tensor) -> Tensor:
        """Return the loss of images (N, D) and texts (N, D); `same` (N, N) is true where they fit."""


class InfoNce(ContrastiveLoss):
    """`info_nce` with a learned temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(
            torch.tensor(math.log(1 / 0.07))
        )  # CLIP's initial temperature

    def forward(self, images: Tensor, texts: Tensor, same: Tensor) -> Tensor:
        """Loss of images (N, D) and texts (N, D)."""
        return info_nce(images, texts, self.log_scale.exp().clamp(max=_STEEPEST), same)


class SigLip(ContrastiveLoss):
    """`sig_lip` with a learned temperature and bias."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))  # both as in the paper
        self.bias = nn.Parameter(torch.tensor(-10.0))

    def forward(self, images: Tensor, texts: Tensor, same: Tensor) -> Tensor:
        """Loss of images (N, D) and texts (N, D)."""
        return sig_lip(images, texts, self.log_scale.exp().clamp(max=_STEEPEST), self.bias, same)
