"""Which rows of a batch belong together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

from torch import Tensor

from cmrvlm.instructions.batch import Batch
from cmrvlm.tasks.base import Instruction


def rows_of(batch: Batch) -> list[int]:
    """Study index of each instruction as plain numbers."""
    return [int(owner) for owner in batch.owners.tolist()]


def rows_by_series(
    encoded: Collection[tuple[int, str]], instructions: Sequence[Instruction], owners: Sequence[int]
) -> dict[tuple[int, tuple[str, ...]], list[int]]:
    """Rows by study and whole series that they show; rows that show none are left out.

    Args:
        encoded: Study and sequence of every series that was encoded.
        instructions: R instructions.
        owners: Study of each.
    """
    sets: dict[tuple[int, tuple[str, ...]], list[int]] = defaultdict(list)
    for row, (instruction, owner) in enumerate(zip(instructions, owners, strict=True)):
        shown = tuple(name for name in instruction.whole_series if (owner, name) in encoded)
        if shown:
            sets[owner, shown].append(row)
    return sets


def split_by_length(lengths: Tensor, worth: int = 0) -> list[Tensor]:
    """Row indices in at most two groups such that padding each group to its longest row costs least.

    Args:
        lengths: (R,) tokens of each row.
        worth: Padding that two groups must save for there to be two.
    """
    order = lengths.argsort(stable=True)
    ranked = lengths[order].tolist()
    count, longest = len(ranked), ranked[-1]
    cut = min(range(1, count + 1), key=lambda k: (k * ranked[k - 1] + (count - k) * longest, -k))
    if cut * (longest - ranked[cut - 1]) < worth:
        cut = count
    return [group for group in (order[:cut], order[cut:]) if len(group)]
