"""Train answers to instructions together with the heads: stage 3, and with fewer trainable parts stage 2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cmrvlm.instructions.batch import Batch
from cmrvlm.instructions.question import Region
from cmrvlm.instructions.read_outs import READ_OUTS
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
from cmrvlm.models.vision_language_model import VisionLanguageModel
from cmrvlm.stages.base import Stage
from cmrvlm.study.vocabulary import NOT_ANNOTATED


class InstructionStage(Stage):
    """Stage with the losses `language`, `mask_dice`, `mask_ce`, `box` and those of the read-outs.

    A loss without a target is 0.

    Read-outs are trained on every study of the batch whose label is known, from the sequences that the batch shows.

    Args:
        model: The assembled model.
        balance: Read-out to the strength of its logit adjustment, 0 to 1; see `cmrvlm.losses.classification`.
        class_shares: Read-out to the share of each class among the training studies (classes,), for the adjustment.
        taught: Scheduled sampling (Bengio et al., NeurIPS 2015): the share of studies about which the language model
            is told the truth in place of the read-out's values goes from `start` to `end` over the first `until` of
            the training. Before the read-out has learned anything, its values would teach the language model to
            ignore it. None tells the read-out's values from the first step on.
        settings: Those of `Stage`.
    """

    model: VisionLanguageModel

    def __init__(
        self,
        model: VisionLanguageModel,
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
        """Return all losses of a batch; images are encoded once for all instructions about a study."""
        owners = batch.questions().owners
        told = self.taught_read_outs(batch)
        reading = self.model(batch.media, batch.rows, batch.instructions, owners, told)
        logits, labels = self.model.answer_logits(reading.hidden, batch.rows)
        losses = {"language": self.language_loss(logits, labels, batch.rows, batch.instructions)}
        losses |= self._pixel_losses(self.model.mask_logits(reading), batch)
        losses |= self._read_out_losses(reading.features, batch)
        return losses

    def taught_read_outs(self, batch: Batch) -> dict[str, Tensor] | None:
        """Return values (B, size) by read-out that the language model is told, NaN for those that were read.

        None where nothing is taught.
        """
        if not self.training or self.teaching is None or self.model.read_out is None:
            return None
        start = self.teaching["start"]
        progress = min(1.0, self.progress / self.teaching["until"])
        share = start + (self.teaching["end"] - start) * progress
        chosen = torch.rand(len(batch.study_ids)) < share
        told = {}
        for name, target in batch.targets.items():
            is_chosen = chosen[:, None].to(target.device)
            told[name] = torch.where(is_chosen, teacher_forced_outputs(name, target), torch.nan)
        return told

    def _pixel_losses(self, logits: Mapping[int, list[Tensor]], batch: Batch) -> dict[str, Loss]:
        """Return the losses of masks and boxes.

        Args:
            logits: Row to mask logits (Z, F, H, W), finest first.
            batch: Instructions with their masks.
        """
        zero = torch.zeros((), device=batch.owners.device)
        sums = {"mask_dice": zero, "mask_ce": zero, "box": zero}
        for row, scales in logits.items():
            instruction = batch.instructions[row]
            mask = batch.masks[row]
            assert mask is not None
            assert instruction.region is not None
            target = _binary_target(mask, instruction.region)
            weight = self.task_weights.get(instruction.task, 1.0)
            if instruction.region.as_box:
                box_loss = box_profile_loss(scales[0][:, 0], target[:, 0])
                sums["box"] = sums["box"] + weight * box_loss
                continue
            shares = scale_weights(len(scales))
            targets = targets_at_scales(target, scales)
            for share, predicted, scaled in zip(shares, scales, targets, strict=True):
                dice = soft_dice_loss(predicted[None], scaled[None])
                cross_entropy = mask_cross_entropy(predicted, scaled)
                sums["mask_dice"] = sums["mask_dice"] + weight * share * dice
                sums["mask_ce"] = sums["mask_ce"] + weight * share * cross_entropy
        return {
            "mask_dice": Loss(sums["mask_dice"], "masks"),
            "mask_ce": Loss(sums["mask_ce"], "masks"),
            "box": Loss(sums["box"], "boxes"),
        }

    def _read_out_losses(self, features: Features, batch: Batch) -> dict[str, Loss]:
        """Return the loss of each read-out over the studies whose images the batch shows."""
        if self.model.read_out is None:
            return {}
        shown = features.sequences_by_study()
        outputs = self.model.read_outs(features, list(shown.items()))
        device = batch.owners.device
        if not outputs:
            zero = torch.zeros((), device=device)
            return {name: Loss(zero, name) for name in batch.targets}
        studies = torch.tensor(list(shown), device=device)
        losses = {}
        for name, output in outputs.items():
            target = batch.targets[name][studies]
            if READ_OUTS[name].is_probability:
                adjustment = self.adjustments.get(name)
                if adjustment is not None:
                    adjustment = adjustment.to(device)
                total = binary_sum(output, target, adjustment)
            else:
                total = regression_sum(output, target)
            losses[name] = Loss(total, name)
        return losses


def _binary_target(mask: Tensor, region: Region) -> Tensor:
    """Return (Z, F, H, W): 1 inside the region, 0 outside, 255 where nothing is annotated.

    Args:
        mask: (Z, F, H, W) structure values.
        region: Region that is asked for.
    """
    values = torch.tensor(region.values, device=mask.device)
    inside = torch.isin(mask, values).to(torch.uint8)
    return torch.where(mask == NOT_ANNOTATED, mask, inside)
