"""Batches in windows, so that losses of accumulated batches are normalised as if they were one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader

from cmrvlm.instructions.batch import Batch


class AccumulationWindows:
    """A loader whose batches know the mean of what the losses of their window are over.

    The trainer divides each batch's loss by the number of batches that it accumulates, in the short window at the end
    of an epoch too, and adds up: with the window's total over the same number as divisor the sum is that of one joint
    batch, so a short answer weighs no more beside a long report than in one batch with it.

    Args:
        loader: Batches.
        size: Batches between two optimizer steps.
    """

    def __init__(self, loader: DataLoader[Any], size: int) -> None:
        self.loader, self.size = loader, size

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        batches = iter(self.loader)
        while window := list(islice(batches, self.size)):
            counts = [batch.counts() for batch in window]
            means = {name: sum(one[name] for one in counts) / self.size for name in counts[0]}
            yield from (replace(batch, normalisers=means) for batch in window)
