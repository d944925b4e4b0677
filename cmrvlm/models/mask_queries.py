"""Decode the masks and boxes that answers ask for by their <SEG> and <DET> tokens."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cmrvlm.encoders.base import pictures_at_once
from cmrvlm.models.features import MarkIds, ReadRows
from cmrvlm.models.mask_decoder import MaskDecoder


@dataclass(frozen=True)
class _MaskQuery:
    """One row whose answer asks for a mask or a box.

    Attributes:
        row: Row of text.
        index: Index of the series in its stack.
        frames: Frames that are asked for.
    """

    row: int
    index: int
    frames: tuple[int, ...]

    @property
    def pixels_key(self) -> tuple[int, tuple[int, ...]]:
        """Series and frames, whose pixel features queries may share."""
        return self.index, self.frames


def decode_masks(
    reading: ReadRows,
    ids: MarkIds,
    decoders: Mapping[str, MaskDecoder],
    embed: Callable[[Tensor], Tensor],
) -> dict[int, list[Tensor]]:
    """Return mask logits (Z, F, H, W) of the rows whose answer holds the token that their region asks for.

    In training coarser logits may follow them, see `MaskDecoder`. Pixel features are decoded once for each
    study and set of frames, however many structures are asked for.

    Args:
        reading: Rows that were read.
        ids: Token ids of <SEG> and <DET>.
        decoders: Sequence to mask decoder.
        embed: Token ids to embeddings of the language model.

    Returns:
        Row to logits, finest first.
    """
    in_answer = reading.rows.is_answer()
    marks = (reading.rows.ids == _expected_marks(reading, ids)) & in_answer
    result: dict[int, list[Tensor]] = {}
    for (name, stack, _), queries in _grouped_queries(reading, marks).items():
        levels = reading.features.stacks[name][stack].pyramid
        rows = torch.tensor([query.row for query in queries], device=marks.device)
        first_mark = marks[rows].float().argmax(dim=1)
        query_states = reading.hidden[rows, first_mark]  # (M, D)
        words = _mean_answer_embedding(reading, rows, in_answer, embed)
        boxes = _asks_for_box(reading)[rows]
        logits = _decode_group(decoders[name], levels, queries, query_states, words, boxes)
        result |= logits
    return result


def _asks_for_box(reading: ReadRows) -> Tensor:
    """Return (R,), true for rows that ask for a box."""
    flags = [
        question.region is not None and question.region.as_box for question in reading.questions
    ]
    return torch.tensor(flags, device=reading.hidden.device)


def _expected_marks(reading: ReadRows, ids: MarkIds) -> Tensor:
    """Return (R, 1), the token id that carries the query of each row."""
    return torch.where(_asks_for_box(reading), ids.detect, ids.segment)[:, None]


def _grouped_queries(
    reading: ReadRows, marks: Tensor
) -> dict[tuple[str, int, int], list[_MaskQuery]]:
    """Return queries that are decoded together, by sequence, stack and number of frames."""
    has_mark = marks.any(dim=1).tolist()
    groups: dict[tuple[str, int, int], list[_MaskQuery]] = defaultdict(list)
    for row, (question, owner) in enumerate(zip(reading.questions, reading.owners, strict=True)):
        region = question.region
        if region is None or not has_mark[row] or (owner, region.sequence) not in reading.features:
            continue
        location = reading.features.locations[owner, region.sequence]
        query = _MaskQuery(row, location.index, region.frames)
        groups[region.sequence, location.stack, len(region.frames)].append(query)
    return groups


def _mean_answer_embedding(
    reading: ReadRows, rows: Tensor, in_answer: Tensor, embed: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return (M, D), the mean embedding of the words of each row's answer."""
    weights = in_answer[rows].to(reading.hidden.dtype)
    weights = weights / in_answer[rows].sum(dim=1, keepdim=True)  # (M, L)
    embeddings = embed(reading.rows.ids[rows]).to(reading.hidden.dtype)  # (M, L, D)
    return torch.einsum("ml,mld->md", weights, embeddings)


def _decode_group(
    decoder: MaskDecoder,
    levels: Sequence[Tensor],
    queries: Sequence[_MaskQuery],
    query_states: Tensor,
    words: Tensor,
    boxes: Tensor,
) -> dict[int, list[Tensor]]:
    """Decode the queries on one stack.

    Where no gradient is wanted, only some frames are decoded at a time: a whole cycle's pixel features
    would not fit into memory.

    Args:
        decoder: Mask decoder of the sequence.
        levels: Feature maps (N, C, Z, T, h, w) of the stack, finest first.
        queries: M queries with F frames each.
        query_states: (M, D) hidden states of the <SEG> or <DET> tokens.
        words: (M, D) mean embeddings of the answers.
        boxes: (M,) true for queries of boxes.

    Returns:
        Row to logits (Z, F, H, W), finest first.
    """
    device = query_states.device
    unique = sorted({query.pixels_key for query in queries})
    pixels_of_query = torch.tensor(
        [unique.index(query.pixels_key) for query in queries], device=device
    )
    series = torch.tensor([index for index, _ in unique], device=device)[:, None]
    frames = torch.tensor([frames for _, frames in unique], device=device)  # (G, F)
    pictures_of_frame = len(unique) * levels[0].shape[2]
    pictures = pictures_at_once(pictures_of_frame * frames.shape[1], *levels[0].shape[4:])
    frames_at_once = max(1, pictures // pictures_of_frame)
    decoded = []
    for some_frames in torch.split(frames, frames_at_once, dim=1):
        # Indexing two axes that a slice divides puts the indexed axes first: (G, F, C, Z, h, w).
        pyramid = [level[series, :, :, some_frames].permute(0, 2, 3, 1, 4, 5) for level in levels]
        decoded.append(
            [
                decoder(pixels, pixels_of_query, query_states, words, boxes)
                for pixels in decoder.pixels(pyramid)
            ]
        )
    scales = [torch.cat(scale, dim=2) for scale in zip(*decoded, strict=True)]
    return {query.row: list(logits) for query, *logits in zip(queries, *scales, strict=True)}
