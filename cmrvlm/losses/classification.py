"""Loss of class vectors."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


def multi_label_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over studies of the binary cross-entropies summed over classes.

    Args:
        logits: (N, classes).
        target: (N, classes), 0 or 1.
    """
    return binary_cross_entropy_with_logits(logits.float(), target.float(), reduction="none").sum(dim=1).mean()
