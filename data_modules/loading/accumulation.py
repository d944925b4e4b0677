"""Normalisation of losses over the batches that are accumulated for one optimizer step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader

from cmrvlm.instructions.batch import Batch


class AccumulationWindows:
    """A loader that gives each batch the loss normalisers of its accumulation window.

    The trainer divides each batch's loss by the number of batches that it accumulates, in the short
    window at the end of an epoch too, and adds up. A batch's loss is therefore divided by the mean
    count of its window: the sum is then the loss of one joint batch, in which a short answer weighs
    no more than beside a long report.

    Args:
        loader: Loader of batches.
        size: Batches between two optimizer steps.
    """

    def __init__(self, loader: DataLoader[Any], size: int) -> None:
        self.loader = loader
        self.size = size

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        batches = iter(self.loader)
        while window := list(islice(batches, self.size)):
            counts = [batch.counts() for batch in window]
            means = {name: sum(count[name] for count in counts) / self.size for name in counts[0]}
            for batch in window:
                yield replace(batch, normalisers=means)
