"""Packing of token rows: instructions share their images, and short rows stand side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cmrvlm.instructions.batch import TextRows
from cmrvlm.language_model.attention_mask import ANSWER, IMAGES, QUESTION, Layout
from cmrvlm.language_model.network import LanguageModel

# Lengths of a packed row that are tried, as multiples of the largest group.
_LENGTH_FACTORS = (1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)


@dataclass(frozen=True)
class Packed:
    """R token rows (R, L) packed into B fewer and fuller rows (B, P).

    Attributes:
        ids: (B, P) token ids.
        layout: Layout of the packed tokens (B, P).
        image_sources: For each packed row the instructions whose image tokens fill its image
            places, in order.
        flat_positions: (R, L) position of each token of the instructions in the flattened packed
            rows (B * P), 0 for padding.
    """

    ids: Tensor
    layout: Layout
    image_sources: list[list[int]]
    flat_positions: Tensor


class _Segment(NamedTuple):
    """Consecutive tokens of an instruction, `start` to `stop`, that are copied to a packed row."""

    group: int
    row: int
    start: int
    stop: int

    def groups(self) -> Tensor:
        """Return the group (n,) of each token."""
        return torch.full((self.stop - self.start,), self.group)

    def rows(self) -> Tensor:
        """Return the row (n,) of each token."""
        return torch.full((self.stop - self.start,), self.row)

    def positions(self) -> Tensor:
        """Return the position (n,) of each token in its row."""
        return torch.arange(self.start, self.stop)


def arrange(rows: TextRows, llm: LanguageModel) -> Packed:
    """Pack the rows, or leave them as they are where the language model cannot pack."""
    if llm.packs:
        return pack(rows, llm.width)
    return unpacked(rows)


def pack(rows: TextRows, width: int) -> Packed:
    """Pack instructions about the same images behind one copy, and fill rows with whole groups.

    Args:
        rows: R instructions (R, L).
        width: Size of the language model's hidden states; the wider, the less attention counts in
            the cost.

    Returns:
        The packed rows.
    """
    segments = _segments_by_group(rows)
    sizes = {
        group: sum(segment.stop - segment.start for segment in group_segments)
        for group, group_segments in segments.items()
    }
    bins = _cheapest_bins(sizes, width)
    packed = [[segment for group in groups for segment in segments[group]] for groups in bins]

    source_groups = _padded([[s.groups() for s in row] for row in packed], -1)
    source_rows = _padded([[s.rows() for s in row] for row in packed], 0)
    source_positions = _padded([[s.positions() for s in row] for row in packed], 0)

    is_token = source_groups >= 0
    flat_positions = torch.zeros(rows.ids.shape, dtype=torch.long)
    flat_positions[source_rows[is_token], source_positions[is_token]] = (
        is_token.flatten().nonzero()[:, 0]
    )
    # The images were copied from the first row of each group alone; the others find them there.
    for images, *others in segments.values():
        for segment in others:
            flat_positions[segment.row, : images.stop] = flat_positions[images.row, : images.stop]

    device = rows.ids.device
    layout = Layout(
        groups=source_groups.to(device),
        rows=source_rows.to(device),
        blocks=_blocks(rows, source_rows, source_positions).to(device),
        positions=source_positions.to(device),
    )
    # Padding copies the first token of row 0, which is the begin mark and never an image place.
    ids = rows.ids[layout.rows, layout.positions]
    image_sources = [[segments[group][0].row for group in groups] for groups in bins]
    return Packed(ids, layout, image_sources, flat_positions.to(device))


def unpacked(rows: TextRows) -> Packed:
    """Return the rows as they are, for language models that take no arbitrary attention mask."""
    count, longest = rows.ids.shape
    flat_positions = torch.arange(count * longest, device=rows.ids.device).reshape(count, longest)
    layout = Layout.of_rows(rows.is_token(), rows.image_lengths, rows.prompt_lengths)
    return Packed(rows.ids, layout, [[row] for row in range(count)], flat_positions)


def _segments_by_group(rows: TextRows) -> dict[int, list[_Segment]]:
    """Return for each group the segments to pack: its images once, then the rest of each row."""
    head_lengths = rows.image_lengths.tolist()
    lengths = rows.lengths.tolist()
    segments: dict[int, list[_Segment]] = {}
    for row, group in enumerate(rows.groups.tolist()):
        head = head_lengths[row]
        if group not in segments:
            segments[group] = [_Segment(group, row, 0, head)]
        segments[group].append(_Segment(group, row, head, lengths[row]))
    return segments


def _padded(segments: list[list[Tensor]], value: int) -> Tensor:
    """Concatenate the segments (n,) of each packed row and pad the rows to one tensor (B, P)."""
    packed_rows = [torch.cat(row_segments) for row_segments in segments]
    return pad_sequence(packed_rows, batch_first=True, padding_value=value)


def _blocks(rows: TextRows, source_rows: Tensor, source_positions: Tensor) -> Tensor:
    """Return the block (B, P) of each packed token, given its row and position in it (B, P)."""
    head_lengths = rows.image_lengths.cpu()[source_rows]
    prompt_lengths = rows.prompt_lengths.cpu()[source_rows]
    question_or_answer = torch.where(source_positions < prompt_lengths, QUESTION, ANSWER)
    return torch.where(source_positions < head_lengths, IMAGES, question_or_answer)


def _cheapest_bins(sizes: dict[int, int], width: int) -> list[list[int]]:
    """Return the groups in bins, one bin for each packed row, that cost least of those tried.

    Args:
        sizes: Group to its number of tokens, with one copy of the images.
        width: Size of the hidden states.
    """
    largest = max(sizes.values())
    candidates = [_fill_bins(sizes, int(factor * largest)) for factor in _LENGTH_FACTORS]
    return min(candidates, key=lambda bins: _cost(bins, sizes, width))


def _fill_bins(sizes: dict[int, int], capacity: int) -> list[list[int]]:
    """Put groups into bins of at most `capacity` tokens by first fit, the largest first."""
    bins: list[list[int]] = []
    room: list[int] = []
    for group in sorted(sizes, key=lambda group: (-sizes[group], group)):
        index = next((k for k, free in enumerate(room) if free >= sizes[group]), len(bins))
        if index == len(bins):
            bins.append([])
            room.append(capacity)
        bins[index].append(group)
        room[index] -= sizes[group]
    return bins


def _packed_length(bins: list[list[int]], sizes: dict[int, int]) -> int:
    """Return the number of tokens of the fullest bin, to which all packed rows are padded."""
    return max(sum(sizes[group] for group in groups) for groups in bins)


def _cost(bins: list[list[int]], sizes: dict[int, int], width: int) -> int:
    """Return the number of operations of a layer, up to a constant factor.

    They are 24 width^2 for each token, and 4 width for each pair of tokens in a packed row.
    """
    length = _packed_length(bins, sizes)
    return len(bins) * length * (6 * width + length)
