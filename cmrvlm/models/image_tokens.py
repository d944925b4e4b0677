"""Turn the views of questions into tokens for the language model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cmrvlm.instructions.question import Question
from cmrvlm.models.features import Features

# The encoders' mark for "all frames" and "all slices".
_ALL = -1


@dataclass(frozen=True)
class _ViewRequest:
    """One frame or slice that a question shows.

    Attributes:
        row: Row of the question.
        slot: Position among the question's views.
        index: Index of the series in its stack.
        frame: Frame, or -1 for all.
        slice: Slice, or -1 for all.
    """

    row: int
    slot: int
    index: int
    frame: int
    slice: int


def tokens_of_views(
    features: Features,
    encoders: nn.ModuleDict,
    projectors: nn.ModuleDict,
    questions: Sequence[Question],
    owners: Sequence[int],
) -> list[list[Tensor]]:
    """Return for each question the tokens (n, D) of each of its views, in their order.

    Whole series are projected once for each stack, frames and slices of a stack together.

    Args:
        features: Encoded studies.
        encoders: Sequence to encoder.
        projectors: Sequence to projector.
        questions: R questions.
        owners: Index of the study of each question.
    """
    series_tokens = {
        name: [projectors[name](tokens) for tokens in stacks]
        for name, stacks in features.tokens.items()
    }
    tokens: dict[tuple[int, int], Tensor] = {}
    requests: dict[tuple[str, int], list[_ViewRequest]] = defaultdict(list)
    for row, (question, owner) in enumerate(zip(questions, owners, strict=True)):
        for slot, view in enumerate(question.views):
            location = features.locations[owner, view.sequence]
            if view.whole:
                stack = series_tokens[view.sequence][location.stack]
                tokens[row, slot] = stack[location.index]
                continue
            frame = _ALL if view.frame is None else view.frame
            slice_index = _ALL if view.slice is None else view.slice
            request = _ViewRequest(row, slot, location.index, frame, slice_index)
            requests[view.sequence, location.stack].append(request)
    for (name, stack_index), group in requests.items():
        grid = features.stacks[name][stack_index].grid
        pooled = encoders[name].tokens_of_views(  # type: ignore[operator]
            grid,
            torch.tensor([request.index for request in group], device=grid.device),
            torch.tensor([request.frame for request in group], device=grid.device),
            torch.tensor([request.slice for request in group], device=grid.device),
        )
        projected = projectors[name](pooled, view=True)
        for request, view_tokens in zip(group, projected, strict=True):
            tokens[request.row, request.slot] = view_tokens
    return [
        [tokens[row, slot] for slot in range(len(question.views))]
        for row, question in enumerate(questions)
    ]
