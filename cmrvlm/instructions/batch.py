"""A batch: images stacked by sequence and shape with their owners, and rows of text about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from cmrvlm.instructions.tokens import SEGMENT
from cmrvlm.tasks.base import Instruction


@dataclass
class Media:
    """Series of one sequence and one shape.

    Attributes:
        images: (N, 1, Z, T, H, W), grey values in [0, 1].
        owners: (N,) index of the study in the batch that each belongs to.
    """

    images: Tensor
    owners: Tensor


@dataclass
class TextRows:
    """Token rows, padded on the right: begin and image places, question, answer, end.

    Attributes:
        ids: (R, L).
        groups: (R,) rows with the same number show the same images of the same study.
        image_lengths: (R,) tokens of begin and images.
        prompt_lengths: (R,) tokens before the answer.
        lengths: (R,) tokens in all.
    """

    ids: Tensor
    groups: Tensor
    image_lengths: Tensor
    prompt_lengths: Tensor
    lengths: Tensor

    @property
    def answer_lengths(self) -> Tensor:
        """Number of answer tokens of each row (R,), the end token included."""
        return self.lengths - self.prompt_lengths

    def is_token(self) -> Tensor:
        """Return (R, L) bool, true for tokens and false for padding."""
        return self._positions() < self.lengths[:, None]

    def is_answer(self) -> Tensor:
        """Return (R, L) bool, true for answer tokens, the end token included."""
        return (self._positions() >= self.prompt_lengths[:, None]) & self.is_token()

    def predicts_answer(self) -> Tensor:
        """Return (R, L) bool, true where the hidden state predicts an answer token.

        These are the positions of `is_answer`, each moved one token to the front: the logits at
        `predicts_answer` and the ids at `is_answer` are predictions and labels in the same order.
        """
        is_before_answer = self._positions() >= self.prompt_lengths[:, None] - 1
        is_before_end = self._positions() < self.lengths[:, None] - 1
        return is_before_answer & is_before_end

    def _positions(self) -> Tensor:
        """Return the token positions (1, L) of every row."""
        return torch.arange(self.ids.shape[1], device=self.ids.device)[None]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> TextRows:
        """The rows with all tensors on `device`."""
        return TextRows(
            *(getattr(self, f.name).to(device, non_blocking=non_blocking) for f in fields(self))
        )


@dataclass
class Batch:
    """Studies with the instructions about them. A sequence that a study lacks is not in its media.

    Attributes:
        study_ids: Ids of the B studies.
        media: Sequence to stacks.
        instructions: R instructions, several for each study.
        owners: (R,) study of each instruction.
        rows: Text of the instructions.
        masks: For each instruction its target values (Z, F, H, W), 255 not annotated, or None.
        spacings_mm: For each instruction the spacing of its mask along (Z, H, W), or None.
        targets: Read-out (`cmrvlm.instructions.targets.TARGET_SIZES`) to its targets (B, size), NaN where unknown.
        normalisers: What losses are divided by, when this batch is one of several whose gradients are accumulated; see
            `cmrvlm.losses.reduction.Loss`.
    """

    study_ids: list[str]
    media: dict[str, list[Media]]
    instructions: list[Instruction]
    owners: Tensor
    rows: TextRows
    masks: list[Tensor | None]
    spacings_mm: list[tuple[float, float, float] | None]
    targets: dict[str, Tensor]
    normalisers: dict[str, float] | None = None

    def counts(self) -> dict[str, float]:
        """Items that each loss of the batch is over: answer tokens, masks, boxes, studies with a target."""
        # An answer that says that the structure is not there has no mask.
        kinds = [
            one.case.mask.as_box
            for one in self.instructions
            if one.case.mask is not None and (one.case.mask.as_box or SEGMENT in one.answer)
        ]
        studies = {
            name: int((~target.isnan()).any(dim=1).sum()) for name, target in self.targets.items()
        }
        tokens = int(self.rows.answer_lengths.sum())
        return {
            "tokens": tokens,
            "masks": kinds.count(False),
            "boxes": kinds.count(True),
            **studies,
        }

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The batch with all tensors on `device`."""

        def move(value: Tensor) -> Tensor:
            return value.to(device, non_blocking=non_blocking)

        media = {
            name: [Media(move(one.images), move(one.owners)) for one in stacks]
            for name, stacks in self.media.items()
        }
        rows = self.rows.to(device, non_blocking)
        masks = [None if mask is None else move(mask) for mask in self.masks]
        targets = {name: move(target) for name, target in self.targets.items()}
        return replace(
            self, media=media, owners=move(self.owners), rows=rows, masks=masks, targets=targets
        )

    def without_images(self) -> Batch:
        """The same questions with nothing to look at, for the blind baseline; rows must hold no image places."""
        return replace(self, media={})


def stack_by_shape(images: Sequence[tuple[int, Tensor]]) -> list[Media]:
    """Group (owner, image (Z, T, H, W)) by shape and stack each group; no image is padded."""
    groups: dict[tuple[int, ...], list[tuple[int, Tensor]]] = {}
    for owner, image in images:
        groups.setdefault(tuple(image.shape), []).append((owner, image))
    return [
        Media(
            torch.stack([image for _, image in group])[:, None],
            torch.tensor([owner for owner, _ in group]),
        )
        for group in groups.values()
    ]
