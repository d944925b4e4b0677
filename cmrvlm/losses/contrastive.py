"""Contrast of image and text embeddings."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, normalize


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
        logits = scale.float() * normalize(images.float(), dim=-1) @ normalize(texts.float(), dim=-1).T
        target = same.float() / same.sum(dim=1, keepdim=True)
        rows = -(target * log_softmax(logits, dim=1)).sum(dim=1).mean()
        columns = -(target.T * log_softmax(logits.T, dim=1)).sum(dim=1).mean()
        # A target shared by several positives has an entropy of its own; without it the loss can reach 0.
        floor = -(target * target.clamp(min=1e-12).log()).sum(dim=1).mean()
        return (rows + columns) / 2 - floor
