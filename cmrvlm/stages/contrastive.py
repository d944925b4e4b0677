"""Stage 1: encoders against report text, while the text tower learns to write it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cmrvlm.instructions.batch import Batch
from cmrvlm.losses.gather import gather_rows
from cmrvlm.losses.reduction import Loss
from cmrvlm.models.dual_encoder import DualEncoder
from cmrvlm.stages.base import Stage


class ContrastiveStage(Stage):
    """Losses `contrastive` (each series against the texts of its study) and `language` (the texts themselves).

    The mix must ask for texts about the shown sequences, such as `report` and `caption`; one is enough for each study.
    Every sequence is contrasted by itself: in a joint embedding the easiest one would learn and the others collapse.
    """

    model: DualEncoder

    def __init__(self, model: DualEncoder, trainable: Sequence[str], **settings: Any) -> None:
        tower = model.text_tower
        super().__init__(
            model,
            trainable=[*trainable, *(["text_tower"] if tower and tower.learns else [])],
            **settings,
        )

    def losses(self, batch: Batch) -> dict[str, Loss]:
        """Both losses of a batch; with a text tower of its own the first alone."""
        if self.model.text_tower is not None:
            texts = self.model.embed_texts([one.answer for one in batch.instructions])
            return {"contrastive": Loss(self._contrast(batch, texts))}
        texts, hidden = self.model.read(batch.rows)
        logits = self.model.llm.logits(hidden[batch.rows.predicts_answer()])
        labels = batch.rows.ids[batch.rows.is_answer()]
        return {
            "contrastive": Loss(self._contrast(batch, texts)),
            "language": self.language_loss(logits, labels, batch.rows, batch.instructions),
        }

    def _contrast(self, batch: Batch, texts: Tensor) -> Tensor:
        """Mean over the sequences that any process shows; what one process shows is told from what the others do."""
        digests = [hashlib.sha256(one.answer.encode()).digest()[:7] for one in batch.instructions]
        codes = torch.tensor(
            [int.from_bytes(one, "big") for one in digests], device=texts.device
        )  # equal for equal texts
        embedded = self.model.embed_images(batch.media)
        losses = []
        for name in self.model.encoders:
            rows, pictures = codes[:0], texts[:0]
            if name in embedded:
                owners, images = embedded[name]
                told = [
                    any(view.sequence == name for view in one.views) for one in batch.instructions
                ]
                about = torch.tensor(
                    told, device=texts.device
                )  # a text may be about some of the series alone
                shown = (batch.owners[:, None] == owners[None]) & about[:, None]  # (R, N)
                rows = shown.any(dim=1).nonzero()[:, 0]
                pictures = images[shown[rows].float().argmax(dim=1)]
            pictures, own, kinds = (
                gather_rows(one) for one in (pictures, texts[rows], codes[rows])
            )
            if len(kinds):
                losses.append(self.model.contrast(pictures, own, kinds[:, None] == kinds[None]))
        return torch.stack(losses).mean()
