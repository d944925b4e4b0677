"""Normalisation of losses over the batches that are accumulated for one optimizer step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader

from cmrvlm.instructions.batch import Batch


def with_window_counts(batches: Iterable[Batch], size: int) -> Iterator[Batch]:
    """Yield batches with the loss normalisers of their accumulation window.

    The trainer divides each batch's loss by the number of batches that it accumulates, in the short
    window at the end of an epoch too, and adds up. A batch's loss is therefore divided by the mean
    count of its window: the sum is then the loss of one joint batch, in which a short answer weighs
    no more than beside a long report.

    Args:
        batches: Batches of an epoch, from the first of a window.
        size: Batches between two optimizer steps.
    """
    remaining = iter(batches)
    while window := list(islice(remaining, size)):
        counts = [batch.counts() for batch in window]
        means = {name: sum(count[name] for count in counts) / size for name in counts[0]}
        for batch in window:
            yield replace(batch, normalisers=means)


class AccumulationLoader(DataLoader[Any]):
    """A loader of batches with the loss normalisers of their accumulation window.

    It is a `DataLoader`, whose workers the trainer ends when the training ends.

    Args:
        size: Batches between two optimizer steps.
        arguments: Arguments of the `DataLoader`.
        settings: Settings of the `DataLoader`.
    """

    def __init__(self, size: int, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.size = size

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """Yield the batches of an epoch."""
        return with_window_counts(super().__iter__(), self.size)
