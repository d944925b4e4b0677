"""Losses of the read-outs; targets that are NaN are left out.

Class imbalance is handled here and nowhere else, by logit adjustment (Menon et al., ICLR 2021): in
training the log odds of each class's share, times a strength, are added to its logit, so that the
model itself need not learn the shares. At a strength of 0 nothing is adjusted, at 1 a rare class is
judged as if it were as frequent as not.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, smooth_l1_loss

# Smallest share that log odds are taken of: those of a class that never occurs are infinite.
_MIN_SHARE = 1e-3
# Difference, in standard deviations, at which the regression loss turns from a square to a line.
_REGRESSION_BETA = 0.2


def log_odds(shares: Tensor) -> Tensor:
    """Compute the log odds of class shares.

    Args:
        shares: Share of each class (classes,), NaN where unknown.

    Returns:
        Log odds (classes,); 0, no adjustment, where the share is NaN.
    """
    odds = torch.logit(shares.clamp(_MIN_SHARE, 1 - _MIN_SHARE))
    return odds.masked_fill(shares.isnan(), 0.0)


def binary_sum(logits: Tensor, target: Tensor, adjustment: Tensor | None = None) -> Tensor:
    """Sum binary cross-entropies over classes and studies.

    Args:
        logits: Logits (N, classes).
        target: Labels (N, classes): 0, 1 or NaN (ignored).
        adjustment: Added to the logits (classes,), or None.

    Returns:
        Scalar.
    """
    known = ~target.isnan()
    logits = logits.float()
    if adjustment is not None:
        logits = logits + adjustment
    losses = binary_cross_entropy_with_logits(
        logits,
        _zero_if_unknown(target),
        reduction="none",
    )
    return (losses * known).sum()


def regression_sum(values: Tensor, target: Tensor) -> Tensor:
    """Sum smooth L1 losses over measurements and studies.

    Args:
        values: Standardised predictions (N, measurements).
        target: Standardised truth (N, measurements), NaN where unknown (ignored).

    Returns:
        Scalar.
    """
    known = ~target.isnan()
    losses = smooth_l1_loss(
        values.float(),
        _zero_if_unknown(target),
        reduction="none",
        beta=_REGRESSION_BETA,
    )
    return (losses * known).sum()


def _zero_if_unknown(target: Tensor) -> Tensor:
    """Replace NaN by 0 in a target of any shape, so that gradients stay finite."""
    return target.masked_fill(target.isnan(), 0.0).float()
