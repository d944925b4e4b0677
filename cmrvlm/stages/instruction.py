"""Stage 3, and with fewer trainable parts stage 2: answers to instructions, with the losses of the heads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cmrvlm.batch import Batch
from cmrvlm.labels import NOT_ANNOTATED
from cmrvlm.losses.classification import multi_label_loss
from cmrvlm.losses.language import answer_cross_entropy
from cmrvlm.losses.segmentation import mask_cross_entropy, soft_dice_loss
from cmrvlm.models.cmrvlm import CMRVLM, rows_of
from cmrvlm.stages.base import Stage


class InstructionStage(Stage):
    """Losses `language`, `mask_dice`, `mask_ce` and `disease`; a loss without a target in the batch is 0."""

    model: CMRVLM

    def __init__(self, model: CMRVLM, **settings: Any) -> None:
        super().__init__(model, **settings)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """All losses of a batch; images are encoded once for all instructions about a study."""
        owners = rows_of(batch)
        features = self.model.encode(batch.media)
        tokens = self.model.image_tokens(features, batch.instructions, owners)
        hidden = self.model.read(batch.rows, tokens)
        losses = {"language": answer_cross_entropy(*self.model.answer_logits(hidden, batch.rows))}
        logits = self.model.mask_logits(features, hidden, batch.rows, batch.instructions, owners)
        losses |= self._mask_losses(logits, batch, hidden)
        rows = self.model.diseases_askable(features, batch.instructions)
        losses["disease"] = hidden.new_zeros(())
        if rows:
            asked = [batch.instructions[row] for row in rows]
            classes = self.model.disease_logits(features, asked, [owners[row] for row in rows])
            vectors = torch.tensor([one.case.diseases for one in asked], device=classes.device)
            losses["disease"] = multi_label_loss(classes, vectors)
        return losses

    def _mask_losses(self, logits: dict[int, Tensor], batch: Batch, hidden: Tensor) -> dict[str, Tensor]:
        dice, cross_entropy = [], []
        for row, predicted in logits.items():
            truth, target = batch.masks[row], batch.instructions[row].case.mask
            assert truth is not None
            assert target is not None
            inside = torch.isin(truth, torch.tensor(target.values, device=truth.device)).to(torch.uint8)
            wanted = torch.where(truth == NOT_ANNOTATED, truth, inside)  # (Z, F, H, W)
            dice.append(soft_dice_loss(predicted[None], wanted[None]))
            cross_entropy.append(mask_cross_entropy(predicted, wanted))
        zero = hidden.new_zeros(())
        return {
            "mask_dice": torch.stack(dice).mean() if dice else zero,
            "mask_ce": torch.stack(cross_entropy).mean() if cross_entropy else zero,
        }
