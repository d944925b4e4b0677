"""Losses as sums with what they are over, so that accumulated batches can be normalised as one."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Loss(NamedTuple):
    """A loss summed over its items.

    Attributes:
        total: Sum, a scalar.
        over: What it is divided by: a name in `cmrvlm.instructions.batch.Batch.counts`, so that a window of accumulated
            batches counts each token or study once, however they are spread over the batches; empty for a loss that is
            a mean of its batch already.
    """

    total: Tensor
    over: str = ""
