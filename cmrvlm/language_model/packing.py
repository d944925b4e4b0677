"""Several instructions behind one copy of their images, and short rows side by side, so that little is read twice."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from cmrvlm.instructions.batch import TextRows
from cmrvlm.language_model.attention_mask import ANSWER, IMAGES, QUESTION, Layout
from cmrvlm.language_model.network import LanguageModel

_ROOMS = (
    1.0,
    1.25,
    1.5,
    2.0,
    3.0,
    4.0,
    6.0,
    8.0,
)  # widths of packed rows that are tried, of the largest group


@dataclass(frozen=True)
class Packed:
    """Rows of text in fewer and fuller rows.

    Attributes:
        ids: (B, L) token ids.
        layout: Where each of them belongs.
        image_sources: For each packed row the instructions whose image tokens fill its image places, in order.
        flat_positions: (R, L') place of each token of the instructions in the flattened packed rows, 0 for padding.
    """

    ids: Tensor
    layout: Layout
    image_sources: list[list[int]]
    flat_positions: Tensor


def arrange(rows: TextRows, llm: LanguageModel) -> Packed:
    """Rows as a language model reads them: packed where it can be told who may read whom, else as they are."""
    return pack(rows, llm.width) if llm.packs else unpacked(rows)


def pack(rows: TextRows, width: int) -> Packed:
    """Put instructions with the same images behind one copy of them, and fill rows up with whole groups.

    Args:
        rows: R instructions.
        width: Of the language model's hidden states; the wider, the less attention counts.
    """
    heads, prompts, lengths = (
        one.tolist() for one in (rows.image_lengths, rows.prompt_lengths, rows.lengths)
    )
    members: dict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(rows.groups.tolist()):
        members[group].append(row)
    sizes = {
        group: heads[own[0]] + sum(lengths[row] - heads[row] for row in own)
        for group, own in members.items()
    }
    bins = min(
        (_fill(sizes, int(room * max(sizes.values()))) for room in _ROOMS),
        key=lambda one: _cost(one, sizes, width),
    )
    length = _length(bins, sizes)
    # For each packed token: row and place in it that it is a copy of; nothing for padding.
    row_of = torch.zeros(len(bins), length, dtype=torch.long)
    place_of, group_of = torch.zeros_like(row_of), torch.full_like(row_of, -1)
    where = torch.zeros(rows.ids.shape, dtype=torch.long)
    for index, own in enumerate(bins):
        at = 0
        for group in own:
            first = members[group][0]
            head = heads[first]
            start, at = at, at + head
            row_of[index, start:at], place_of[index, start:at] = first, torch.arange(head)
            for row in members[group]:
                end = at + lengths[row] - head
                row_of[index, at:end], place_of[index, at:end] = (
                    row,
                    torch.arange(head, lengths[row]),
                )
                where[row, :head] = torch.arange(start, start + head) + index * length
                where[row, head : lengths[row]] = torch.arange(at, end) + index * length
                at = end
            group_of[index, start:at] = group
    starts = torch.tensor([heads, prompts])[:, row_of]  # (2, B, L)
    blocks = torch.where(
        place_of < starts[0], IMAGES, torch.where(place_of < starts[1], QUESTION, ANSWER)
    )
    device = rows.ids.device
    layout = Layout(*(one.to(device) for one in (group_of, row_of, blocks, place_of)))
    ids = rows.ids[layout.rows, layout.positions]
    # A packed row's padding copies the first token of row 0, which is the begin mark and never an image place.
    return Packed(
        ids, layout, [[members[group][0] for group in own] for own in bins], where.to(device)
    )


def unpacked(rows: TextRows) -> Packed:
    """The rows as they are, for language models that cannot be told who may read whom."""
    count, longest = rows.ids.shape
    where = torch.arange(count * longest, device=rows.ids.device).reshape(count, longest)
    layout = Layout.of_rows(rows.is_token(), rows.image_lengths, rows.prompt_lengths)
    return Packed(rows.ids, layout, [[row] for row in range(count)], where)


def _fill(sizes: dict[int, int], capacity: int) -> list[list[int]]:
    """Groups in bins of at most `capacity`: the largest first, each into the first bin with room."""
    bins: list[list[int]] = []
    room: list[int] = []
    for group in sorted(sizes, key=lambda one: (-sizes[one], one)):
        index = next((k for k, free in enumerate(room) if free >= sizes[group]), len(bins))
        if index == len(bins):
            bins.append([])
            room.append(capacity)
        bins[index].append(group)
        room[index] -= sizes[group]
    return bins


def _length(bins: list[list[int]], sizes: dict[int, int]) -> int:
    return max(sum(sizes[group] for group in own) for own in bins)


def _cost(bins: list[list[int]], sizes: dict[int, int], width: int) -> int:
    """Operations of a layer, up to a factor: 24 width^2 for each token, and 4 width for each pair in a packed row."""
    length = _length(bins, sizes)
    return len(bins) * length * (6 * width + length)
