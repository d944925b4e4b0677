"""Contrastive losses of image and text embeddings."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, logsigmoid, normalize

# Upper limit of the inverse temperature, as in CLIP.
_MAX_SCALE = 100.0


def info_nce(
    images: Tensor,
    texts: Tensor,
    scale: Tensor,
    same: Tensor,
) -> Tensor:
    """Compute the symmetric InfoNCE loss with several positives.

    See van den Oord et al. (2018) and Radford et al. (CLIP, ICML 2021).

    Args:
        images: Image embeddings (N, D).
        texts: Text embeddings (N, D); text i belongs to image i.
        scale: Inverse temperature, a scalar.
        same: True (N, N) where text j also describes study i: identical texts are no negatives.

    Returns:
        Scalar; 0 for a single pair, which has no negatives.
    """
    with torch.autocast(images.device.type, enabled=False):
        logits = _scaled_similarities(images, texts, scale)
        positives = same.sum(dim=1, keepdim=True)
        target = same.float() / positives
        image_to_text = _cross_entropy(target, log_softmax(logits, dim=1))
        text_to_image = _cross_entropy(target.T, log_softmax(logits.T, dim=1))

        # A target shared by several positives has an entropy, below which the cross-entropy
        # cannot fall; without it the loss can reach 0.
        log_target = target.clamp(min=1e-12).log()
        entropy = _cross_entropy(target, log_target)
        return (image_to_text + text_to_image) / 2 - entropy


def sig_lip(
    images: Tensor,
    texts: Tensor,
    scale: Tensor,
    bias: Tensor,
    same: Tensor,
) -> Tensor:
    """Compute the sigmoid loss over all pairs with several positives.

    See Zhai et al. (SigLIP, ICCV 2023).

    Args:
        images: Image embeddings (N, D).
        texts: Text embeddings (N, D); text i belongs to image i.
        scale: Inverse temperature, a scalar.
        bias: Added to each similarity, a scalar.
        same: True (N, N) where text j also describes study i.

    Returns:
        Scalar, summed over the texts and averaged over the images.
    """
    with torch.autocast(images.device.type, enabled=False):
        logits = _scaled_similarities(images, texts, scale) + bias.float()
        signs = torch.where(same, 1.0, -1.0)
        log_likelihoods = logsigmoid(signs * logits)
        return -log_likelihoods.sum() / len(images)


def _cross_entropy(target: Tensor, log_probabilities: Tensor) -> Tensor:
    """Average the cross-entropies of N rows, both (N, N), to a scalar."""
    losses = -(target * log_probabilities).sum(dim=1)
    return losses.mean()


def _scaled_similarities(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """Compute cosine similarities (N, N) of embeddings (N, D) and (N, D), times a scalar."""
    unit_images = normalize(images.float(), dim=-1)
    unit_texts = normalize(texts.float(), dim=-1)
    return scale.float() * unit_images @ unit_texts.T


class ContrastiveLoss(nn.Module, ABC):
    """Base of the losses of stage 1."""

    @abstractmethod
    def forward(self, images: Tensor, texts: Tensor, same: Tensor) -> Tensor:
        """Compute the loss, a scalar.

        Args:
            images: Image embeddings (N, D).
            texts: Text embeddings (N, D).
            same: True (N, N) where text j describes study i.
        """


class InfoNce(ContrastiveLoss):
    """`info_nce` with a learned temperature."""

    def __init__(self) -> None:
        super().__init__()
        # CLIP's initial temperature is 0.07.
        log_scale = math.log(1 / 0.07)
        self.log_scale = nn.Parameter(torch.tensor(log_scale))

    def forward(self, images: Tensor, texts: Tensor, same: Tensor) -> Tensor:
        """Compute the loss of images (N, D) and texts (N, D); see `ContrastiveLoss`."""
        scale = self.log_scale.exp().clamp(max=_MAX_SCALE)
        return info_nce(images, texts, scale, same)


class SigLip(ContrastiveLoss):
    """`sig_lip` with a learned temperature and bias."""

    def __init__(self) -> None:
        super().__init__()
        # Both initial values are those of the paper.
        log_scale = math.log(10.0)
        self.log_scale = nn.Parameter(torch.tensor(log_scale))
        self.bias = nn.Parameter(torch.tensor(-10.0))

    def forward(self, images: Tensor, texts: Tensor, same: Tensor) -> Tensor:
        """Compute the loss of images (N, D) and texts (N, D); see `ContrastiveLoss`."""
        scale = self.log_scale.exp().clamp(max=_MAX_SCALE)
        return sig_lip(images, texts, scale, self.bias, same)
