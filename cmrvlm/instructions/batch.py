"""Define batches: images stacked by sequence and shape with their owners, and rows of text about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from cmrvlm.instructions.instruction import Instruction
from cmrvlm.instructions.question import Question
from cmrvlm.instructions.tokens import SEGMENT


@dataclass
class Media:
    """Series of one sequence and one shape.

    Attributes:
        images: (N, 1, Z, T, H, W), grey values in [0, 1].
        owners: (N,) index of the study in the batch that each belongs to.
    """

    images: Tensor
    owners: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Media:
        """Return the series with all tensors on a device."""
        images = self.images.to(device, non_blocking=non_blocking)
        return Media(images, self.owners.to(device, non_blocking=non_blocking))


@dataclass
class TextRows:
    """Token rows, padded on the right: begin and image places, question, answer, end.

    Attributes:
        ids: (R, L) token ids.
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
        """Return the rows with all tensors on a device."""
        moved = [
            getattr(self, part.name).to(device, non_blocking=non_blocking) for part in fields(self)
        ]
        return TextRows(*moved)


@dataclass
class QuestionBatch:
    """Studies with questions about them, without any truth.

    Attributes:
        media: Sequence to stacks; a sequence that a study lacks is not in them. Empty for questions without images.
        questions: R questions, several for each study.
        owners: Index of the study of each question.
        spacings_mm: Spacing along (Z, H, W) of the series that each question's region lies on, or None.
    """

    media: dict[str, list[Media]]
    questions: Sequence[Question]
    owners: list[int]
    spacings_mm: list[tuple[float, float, float] | None]

    def to(self, device: torch.device | str) -> QuestionBatch:
        """Return the batch with all tensors on a device."""
        return replace(self, media=_media_to(self.media, device))


@dataclass
class Batch:
    """Studies with instructions about them. A sequence that a study lacks is not in its media.

    Attributes:
        study_ids: Ids of the B studies.
        media: Sequence to stacks.
        instructions: R instructions, several for each study.
        owners: (R,) index of the study of each instruction.
        rows: Text of the instructions.
        masks: For each instruction its target values (Z, F, H, W), 255 not annotated, or None.
        spacings_mm: For each instruction the spacing of its mask along (Z, H, W), or None.
        targets: Read-out (`cmrvlm.instructions.read_outs.READ_OUTS`) to its targets (B, size), NaN where unknown.
        normalisers: Divisors of the losses, when this batch is one of several whose gradients are accumulated; see
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
        """Return the number of items that each loss of the batch is over.

        Returns:
            `tokens` of answers, `masks`, `boxes`, and for each read-out the studies with a target.
        """
        masks = 0
        boxes = 0
        for instruction in self.instructions:
            if instruction.region is None:
                continue
            if instruction.region.as_box:
                boxes += 1
            elif SEGMENT in instruction.answer:
                # An answer that says that the structure is not there has no mask.
                masks += 1
        tokens = int(self.rows.answer_lengths.sum())
        counts: dict[str, float] = {"tokens": tokens, "masks": masks, "boxes": boxes}
        for name, target in self.targets.items():
            counts[name] = int((~target.isnan()).any(dim=1).sum())
        return counts

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Return the batch with all tensors on a device."""

        def move(value: Tensor) -> Tensor:
            return value.to(device, non_blocking=non_blocking)

        return replace(
            self,
            media=_media_to(self.media, device, non_blocking),
            owners=move(self.owners),
            rows=self.rows.to(device, non_blocking),
            masks=[None if mask is None else move(mask) for mask in self.masks],
            targets={name: move(target) for name, target in self.targets.items()},
        )

    def questions(self) -> QuestionBatch:
        """Return the same studies with the questions alone."""
        owners = [int(owner) for owner in self.owners.tolist()]
        return QuestionBatch(self.media, self.instructions, owners, self.spacings_mm)

    def without_images(self) -> Batch:
        """Return the same instructions with nothing to look at, for rows that hold no image places."""
        return replace(self, media={})


def _media_to(
    media: Mapping[str, list[Media]], device: torch.device | str, non_blocking: bool = False
) -> dict[str, list[Media]]:
    return {
        name: [stack.to(device, non_blocking) for stack in stacks] for name, stacks in media.items()
    }


def stack_by_shape(images: Sequence[tuple[int, Tensor]]) -> list[Media]:
    """Stack images of equal shape, so that no image is padded.

    Args:
        images: Pairs of the owner's index and an image (Z, T, H, W).

    Returns:
        One stack for each shape.
    """
    groups: dict[tuple[int, ...], list[tuple[int, Tensor]]] = {}
    for owner, image in images:
        groups.setdefault(tuple(image.shape), []).append((owner, image))
    stacks = []
    for group in groups.values():
        owners = torch.tensor([owner for owner, _ in group])
        stacked = torch.stack([image for _, image in group])
        stacks.append(Media(stacked[:, None], owners))
    return stacks
