"""Losses of the read-outs; targets that are NaN count for nothing.

Class imbalance is handled here and nowhere else, by logit adjustment (Menon et al., ICLR 2021): in training the log
odds of each class's share are added to its logit, times a strength, so that the model itself need not learn the
shares. At a strength of 0 nothing is adjusted, at 1 a rare class is judged as if it were as frequent as not.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, smooth_l1_loss

_RAREST = 1e-3  # a class that never occurs in training has no log odds


def log_odds(shares: Tensor) -> Tensor:
    """Log odds of class shares; 0 (no adjustment) where a share is NaN."""
    odds = torch.logit(shares.clamp(_RAREST, 1 - _RAREST))
    return torch.where(shares.isnan(), torch.zeros_like(odds), odds)


def binary_sum(logits: Tensor, target: Tensor, adjustment: Tensor | None = None) -> Tensor:
    """Binary cross-entropies summed over classes and studies.

    Args:
        logits: (N, classes).
        target: (N, classes), 0, 1 or NaN.
        adjustment: (classes,) added to the logits, or None.
    """
    known = ~target.isnan()
    wanted = torch.where(known, target, torch.zeros_like(target)).float()
    shifted = logits.float() if adjustment is None else logits.float() + adjustment
    return (binary_cross_entropy_with_logits(shifted, wanted, reduction="none") * known).sum()


def regression_sum(values: Tensor, target: Tensor) -> Tensor:
    """Smooth L1 losses summed over measurements and studies.

    Args:
        values: (N, measurements), standardised.
        target: (N, measurements), NaN where unknown.
    """
    known = ~target.isnan()
    wanted = torch.where(known, target, torch.zeros_like(target)).float()
    return (smooth_l1_loss(values.float(), wanted, reduction="none", beta=0.2) * known).sum()
