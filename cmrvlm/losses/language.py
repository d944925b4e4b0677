"""Loss of the language model."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy


def answer_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Sum the weighted cross-entropies of the answer tokens of a batch.

    Args:
        logits: Predictions (K, V) at the positions before the answer tokens.
        labels: Answer tokens (K,).
        weights: Weights (K,) of the tokens.

    Returns:
        Scalar.
    """
    losses = cross_entropy(logits.float(), labels, reduction="none")
    return (weights * losses).sum()
