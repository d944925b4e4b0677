"""Find which rows of a batch belong together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Sequence

from torch import Tensor

from cmrvlm.instructions.question import Question

# A study's index and the sequences that are shown of it.
ShownSet = tuple[int, tuple[str, ...]]


def rows_by_shown_set(
    encoded: Container[tuple[int, str]], questions: Sequence[Question], owners: Sequence[int]
) -> dict[ShownSet, list[int]]:
    """Return the rows that show each set of whole series of a study; rows that show none are left out.

    Args:
        encoded: Contains (study, sequence) of every series that was encoded.
        questions: R questions.
        owners: Index of the study of each question.
    """
    sets: dict[ShownSet, list[int]] = defaultdict(list)
    for row, (question, owner) in enumerate(zip(questions, owners, strict=True)):
        shown = tuple(name for name in question.whole_series if (owner, name) in encoded)
        if shown:
            sets[owner, shown].append(row)
    return sets


def split_by_length(lengths: Tensor, worth: int = 0) -> list[Tensor]:
    """Return row indices in at most two groups, so that padding each to its longest row costs least.

    Args:
        lengths: (R,) tokens of each row.
        worth: Padding in tokens that two groups must save for there to be two.

    Returns:
        One or two tensors of row indices.
    """
    order = lengths.argsort(stable=True)
    ranked = lengths[order].tolist()
    count = len(ranked)
    longest = ranked[-1]

    def padded_size(cut: int) -> int:
        return cut * ranked[cut - 1] + (count - cut) * longest

    # Of equal costs the largest first group.
    cut = min(range(1, count + 1), key=lambda size: (padded_size(size), -size))
    saved = cut * (longest - ranked[cut - 1])
    if saved < worth:
        cut = count
    return [group for group in (order[:cut], order[cut:]) if len(group)]
