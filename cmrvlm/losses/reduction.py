"""Losses as sums with their normalisers, so that accumulated batches can be averaged as one."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Loss(NamedTuple):
    """A loss summed over its items.

    Attributes:
        total: Sum, a scalar.
        normaliser: Name of the count in `cmrvlm.instructions.batch.Batch.counts` that divides the
            sum, so that a window of accumulated batches counts each token or study once, however
            they are spread over the batches; empty for a loss that is a batch mean already.
    """

    total: Tensor
    normaliser: str = ""
