"""Loss of the language model."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy

IGNORE = -100


def answer_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Weighted cross-entropy summed over the answer tokens of the batch.

    Args:
        logits: (K, V) predictions at the positions before the answer tokens.
        labels: (K,) answer tokens, `IGNORE` elsewhere.
        weights: (K,) of the tokens.
    """
    return (
        weights * cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="none")
    ).sum()
