"""Stage 3, and with fewer trainable parts stage 2: answers to instructions, with the losses of the heads."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cmrvlm.batch import Batch
from cmrvlm.labels import NOT_ANNOTATED
from cmrvlm.losses.classification import binary_sum, log_odds, regression_sum
from cmrvlm.losses.language import answer_cross_entropy
from cmrvlm.losses.reduction import Loss
from cmrvlm.losses.segmentation import box_profile_loss, mask_cross_entropy, soft_dice_loss
from cmrvlm.models.cmrvlm import CMRVLM, Features, rows_of
from cmrvlm.stages.base import Stage


class InstructionStage(Stage):
    """Losses `language`, `mask_dice`, `mask_ce`, `box` and those of the read-outs; one without a target is 0.

    Read-outs are trained on every study of the batch whose label is known, from the sequences that the batch shows.

    Args:
        model: The assembled model.
        balance: Read-out to the strength of its logit adjustment, 0 to 1; see `cmrvlm.losses.classification`.
        class_shares: Read-out to the share of each class among the training studies (classes,), for the adjustment.
        settings: Those of `Stage`.
    """

    model: CMRVLM

    def __init__(
        self,
        model: CMRVLM,
        balance: Mapping[str, float] | None = None,
        class_shares: Mapping[str, Tensor] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(model, **settings)
        shares = class_shares or {}
        self.adjustments = {name: strength * log_odds(shares[name])
                            for name, strength in (balance or {}).items() if strength and name in shares}  # fmt: skip

    def losses(self, batch: Batch) -> dict[str, Loss]:
        """All losses of a batch; images are encoded once for all instructions about a study."""
        owners = rows_of(batch)
        features = self.model.encode(batch.media)
        tokens = self.model.image_tokens(features, batch.instructions, owners)
        hidden = self.model.read(batch.rows, tokens)
        losses = {"language": Loss(answer_cross_entropy(*self.model.answer_logits(hidden, batch.rows)), "tokens")}
        logits = self.model.mask_logits(features, hidden, batch.rows, batch.instructions, owners)
        return losses | self._pixel_losses(logits, batch, hidden) | self._read_out_losses(features, batch, hidden)

    def _pixel_losses(self, logits: dict[int, Tensor], batch: Batch, hidden: Tensor) -> dict[str, Loss]:
        zero = hidden.new_zeros(())
        sums = {"mask_dice": zero, "mask_ce": zero, "box": zero}
        for row, predicted in logits.items():
            truth, target = batch.masks[row], batch.instructions[row].case.mask
            assert truth is not None
            assert target is not None
            inside = torch.isin(truth, torch.tensor(target.values, device=truth.device)).to(torch.uint8)
            wanted = torch.where(truth == NOT_ANNOTATED, truth, inside)  # (Z, F, H, W)
            if target.as_box:
                sums["box"] = sums["box"] + box_profile_loss(predicted[:, 0], wanted[:, 0])
                continue
            sums["mask_dice"] = sums["mask_dice"] + soft_dice_loss(predicted[None], wanted[None])
            sums["mask_ce"] = sums["mask_ce"] + mask_cross_entropy(predicted, wanted)
        return {name: Loss(total, "boxes" if name == "box" else "masks") for name, total in sums.items()}

    def _read_out_losses(self, features: Features, batch: Batch, hidden: Tensor) -> dict[str, Loss]:
        shown: dict[int, list[str]] = defaultdict(list)
        for study, sequence in features.place:
            shown[study].append(sequence)
        studies = sorted(shown)
        outputs = self.model.read_outs(features, [(study, shown[study]) for study in studies])
        losses = {}
        for name in outputs or (batch.targets if self.model.read_out else ()):
            total = hidden.new_zeros(())
            if outputs:
                target = batch.targets[name][torch.tensor(studies, device=hidden.device)]
                if name == "measurements":
                    total = regression_sum(outputs[name], target)
                else:
                    adjustment = self.adjustments.get(name)
                    if adjustment is not None:
                        adjustment = adjustment.to(hidden.device)
                    total = binary_sum(outputs[name], target, adjustment)
            losses[name] = Loss(total, name)
        return losses
