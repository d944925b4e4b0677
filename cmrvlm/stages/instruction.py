"""Stage 3, and with fewer trainable parts stage 2: answers to instructions, with the losses of the heads."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cmrvlm.instructions.batch import Batch
from cmrvlm.instructions.rows import rows_of
from cmrvlm.losses.classification import binary_sum, log_odds, regression_sum
from cmrvlm.losses.reduction import Loss
from cmrvlm.losses.segmentation import (
    box_profile_loss,
    mask_cross_entropy,
    scale_weights,
    soft_dice_loss,
    targets_at_scales,
)
from cmrvlm.models.features import Features
from cmrvlm.models.read_out_tokens import teacher_forced_outputs
from cmrvlm.models.vision_language_model import CMRVLM
from cmrvlm.stages.base import Stage
from cmrvlm.study.vocabulary import NOT_ANNOTATED


class InstructionStage(Stage):
    """Losses `language`, `mask_dice`, `mask_ce`, `box` and those of the read-outs; one without a target is 0.

    Read-outs are trained on every study of the batch whose label is known, from the sequences that the batch shows.

    Args:
        model: The assembled model.
        balance: Read-out to the strength of its logit adjustment, 0 to 1; see `cmrvlm.losses.classification`.
        class_shares: Read-out to the share of each class among the training studies (classes,), for the adjustment.
        taught: Scheduled sampling (Bengio et al., NeurIPS 2015): the share of studies about which the language model
            is told the truth in place of what the read-out says goes from `start` to `end` over the first `until` of
            the training. Before the read-out has learned anything, its words would teach the language model to ignore
            it. None tells what was read from the first step on.
        settings: Those of `Stage`.
    """

    model: CMRVLM

    def __init__(
        self,
        model: CMRVLM,
        balance: Mapping[str, float] | None = None,
        class_shares: Mapping[str, Tensor] | None = None,
        taught: Mapping[str, float] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(model, **settings)
        self.teaching = dict(taught) if taught else None
        shares = class_shares or {}
        self.adjustments = {
            name: strength * log_odds(shares[name])
            for name, strength in (balance or {}).items()
            if strength and name in shares
        }

    def losses(self, batch: Batch) -> dict[str, Loss]:
        """All losses of a batch; images are encoded once for all instructions about a study."""
        owners = rows_of(batch)
        features = self.model.encode(batch.media)
        tokens = self.model.image_tokens(features, batch.instructions, owners, self.taught(batch))
        hidden = self.model.read(batch.rows, tokens)
        words, labels = self.model.answer_logits(hidden, batch.rows)
        losses = {"language": self.language_loss(words, labels, batch.rows, batch.instructions)}
        logits = self.model.mask_logits(features, hidden, batch.rows, batch.instructions, owners)
        return (
            losses
            | self._pixel_losses(logits, batch, hidden)
            | self._read_out_losses(features, batch, hidden)
        )

    def taught(self, batch: Batch) -> dict[str, Tensor] | None:
        """What the language model is told instead of what was read: (B, size) by output, NaN for none."""
        if not self.training or self.teaching is None or self.model.read_out is None:
            return None
        start, end, until = (self.teaching[name] for name in ("start", "end", "until"))
        share = start + (end - start) * min(1.0, self.progress / until)
        chosen = torch.rand(len(batch.study_ids)) < share
        return {
            name: torch.where(
                chosen[:, None].to(target.device), teacher_forced_outputs(name, target), torch.nan
            )
            for name, target in batch.targets.items()
        }

    def _pixel_losses(
        self, logits: dict[int, list[Tensor]], batch: Batch, hidden: Tensor
    ) -> dict[str, Loss]:
        zero = hidden.new_zeros(())
        sums = {"mask_dice": zero, "mask_ce": zero, "box": zero}
        for row, scales in logits.items():
            truth, target = batch.masks[row], batch.instructions[row].case.mask
            assert truth is not None
            assert target is not None
            inside = torch.isin(truth, torch.tensor(target.values, device=truth.device)).to(
                torch.uint8
            )
            wanted = torch.where(truth == NOT_ANNOTATED, truth, inside)  # (Z, F, H, W)
            weight = self.task_weights.get(batch.instructions[row].task, 1.0)
            if target.as_box:
                sums["box"] = sums["box"] + weight * box_profile_loss(scales[0][:, 0], wanted[:, 0])
                continue
            for share, predicted, at in zip(
                scale_weights(len(scales)), scales, targets_at_scales(wanted, scales), strict=True
            ):
                sums["mask_dice"] = sums["mask_dice"] + weight * share * soft_dice_loss(
                    predicted[None], at[None]
                )
                sums["mask_ce"] = sums["mask_ce"] + weight * share * mask_cross_entropy(
                    predicted, at
                )
        return {
            name: Loss(total, "boxes" if name == "box" else "masks") for name, total in sums.items()
        }

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
