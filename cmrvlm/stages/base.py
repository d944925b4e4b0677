"""What all stages share: named losses summed once, optimizer groups, seeds, and what is trained."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from cmrvlm.errors import CmrvlmError
from cmrvlm.instructions.batch import Batch, TextRows
from cmrvlm.instructions.instruction import Instruction
from cmrvlm.language_model.finite import check_weights
from cmrvlm.language_model.network import borrowed_keys
from cmrvlm.losses.gather import mean_over_processes
from cmrvlm.losses.language import answer_cross_entropy
from cmrvlm.losses.reduction import Loss

OptimizerFactory = Callable[[Iterable[Any]], Optimizer]
ScheduleFactory = Callable[..., LRScheduler]

# PyTorch keeps 32 bits of a seed: multiples of 2**32 over the golden ratio lie far apart in them.
_SEEDS_BETWEEN_PROCESSES = 2_654_435_761


class Stage(LightningModule):
    """Base of the three stages.

    Args:
        model: What is trained.
        optimizer: Makes the optimizer from parameter groups.
        schedule: Makes the schedule from the optimizer and `total_steps`.
        trainable: Prefixes of the parameters that this stage trains; those of the language model are the adapter's.
        loss_weights: Name of a loss to its weight; 1 where not given.
        task_weights: Name of a task to the weight of its words, masks and boxes in the losses; 1 where not given.
        seed: Seed of everything random inside a step.

    Attributes:
        progress: Share of the training that is done, from 0 to 1.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: OptimizerFactory,
        schedule: ScheduleFactory,
        trainable: Sequence[str],
        loss_weights: Mapping[str, float] | None = None,
        task_weights: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.model = model
        self.make_optimizer, self.make_schedule = optimizer, schedule
        self.loss_weights, self.task_weights, self.seed = (
            dict(loss_weights or {}),
            dict(task_weights or {}),
            seed,
        )
        self.progress = 0.0
        for prefix in trainable:
            if not any(name.startswith(prefix) for name, _ in model.named_parameters()):
                raise CmrvlmError(
                    f"no parameter begins with '{prefix}'",
                    field="stage.trainable",
                    remedy="Name a part of the model.",
                )
        for name, parameter in model.named_parameters():
            if not name.startswith("llm."):
                parameter.requires_grad = name.startswith(tuple(trainable))

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Loss]:
        """Named losses of a batch, summed over their items."""

    def language_loss(
        self, logits: Tensor, labels: Tensor, rows: TextRows, instructions: Sequence[Instruction]
    ) -> Loss:
        """Cross-entropy over the answer tokens (K,) of all rows, those of each task with its weight."""
        weights = torch.tensor(
            [self.task_weights.get(one.task, 1.0) for one in instructions], device=labels.device
        )
        each = weights.repeat_interleave(rows.answer_lengths, output_size=len(labels))
        return Loss(answer_cross_entropy(logits, labels, each), "tokens")

    def means(self, batch: Batch, *, together: bool = False) -> dict[str, Tensor]:
        """Named losses, each divided by what it is over: in the batch, or on average in its accumulation window.

        Args:
            batch: Of this process.
            together: On average over all processes, whose gradients are averaged; all must call it.
        """
        over = batch.normalisers or batch.counts()
        over = mean_over_processes(over, batch.owners.device) if together else over
        return {
            name: loss.total / max(over[loss.normaliser], 1e-6) if loss.normaliser else loss.total
            for name, loss in self.losses(batch).items()
        }

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Weighted sum of the losses."""
        return torch.stack(
            [self.loss_weights.get(name, 1.0) * loss for name, loss in losses.items()]
        ).sum()

    def check_finite(self, losses: Mapping[str, Tensor], batch: Batch) -> None:
        """Stop a run whose losses are not finite, before weights learn from them; all processes must call it.

        Args:
            losses: Named losses of this process.
            batch: What they are of.

        Raises:
            CmrvlmError: One is NaN or infinite, here or in another process.
        """
        values = torch.stack(
            [loss.detach().float() for loss in losses.values()]
        ).tolist()  # one wait for the device
        odd = {
            name: value
            for name, value in zip(losses, values, strict=True)
            if not math.isfinite(value)
        }
        everywhere = mean_over_processes({"odd": float(len(odd))}, batch.owners.device)
        if not everywhere["odd"]:
            return
        named = (
            ", ".join(f"{name} {value}" for name, value in odd.items()) or "one of another process"
        )
        tasks = ", ".join(sorted({one.task for one in batch.instructions}))
        raise CmrvlmError(
            f"loss is not finite at step {self.trainer.global_step}: {named}; "
            f"studies {', '.join(batch.study_ids)}; tasks {tasks}",
            field="data",
            remedy="Check these studies with python -m cmrvlm.check, or lower optimizer.lr; "
            "the last checkpoint holds the weights before.",
        )

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Stop a run whose gradients are not finite, while its weights still are.

        Raises:
            CmrvlmError: One is NaN or infinite; in `16-mixed` such a step is left out by the scaling of the loss.
        """
        if str(self.trainer.precision) == "16-mixed":
            return
        gradients = [
            p.grad
            for group in optimizer.param_groups
            for p in group["params"]
            if p.grad is not None
        ]
        if not math.isfinite(float(get_total_norm(gradients))):
            raise CmrvlmError(
                f"gradients are not finite at step {self.trainer.global_step}",
                field="optimizer",
                remedy="Lower optimizer.lr; the last checkpoint holds the weights before.",
            )

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed the step, so that a resumed run draws what an unbroken one would."""
        self.progress = self.trainer.global_step / max(
            1, int(self.trainer.estimated_stepping_batches)
        )
        number = self.trainer.fit_loop.epoch_loop.total_batch_idx
        # Processes draw apart, or the same noise would come with the batches of all of them.
        torch.manual_seed(
            self.seed * 1_000_003 + number + self.global_rank * _SEEDS_BETWEEN_PROCESSES
        )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch.

        Raises:
            CmrvlmError: It is not finite.
        """
        losses = self.means(batch, together=True)
        total = self.total(losses)
        self.check_finite(losses, batch)
        size = len(batch.study_ids)
        self.log_dict(
            {f"train/loss_{name}": loss.detach() for name, loss in losses.items()}, batch_size=size
        )
        self.log("train/loss", total.detach(), prog_bar=True, batch_size=size)
        asked = Counter(one.task for one in batch.instructions)
        self.log_dict(
            {f"asked/{task}": float(count) for task, count in asked.items()},
            on_step=False,
            on_epoch=True,
            reduce_fx="sum",
            batch_size=size,
        )
        return total

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the losses of one batch.

        Raises:
            CmrvlmError: One is not finite.
        """
        losses = self.means(batch)
        self.check_finite(losses, batch)
        size = len(batch.study_ids)
        self.log_dict(
            {f"val/loss_{name}": loss for name, loss in losses.items()},
            batch_size=size,
            sync_dist=True,
        )
        self.log("val/loss", self.total(losses), prog_bar=True, batch_size=size, sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep out what a pretrained language model brought: a checkpoint is as large as what is trained."""
        for key in borrowed_keys(self.model):
            del checkpoint["state_dict"][f"model.{key}"]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put back what was kept out, for the strict load.

        Raises:
            CmrvlmError: A weight is not finite, or gradients were accumulated and are lost.
        """
        path = str(self.trainer.ckpt_path)
        self._check_complete(checkpoint, path)
        check_weights(
            checkpoint["state_dict"].items(), path, "ckpt_path", "Go on with an earlier checkpoint."
        )
        own = self.model.state_dict()
        checkpoint["state_dict"] |= {f"model.{key}": own[key] for key in borrowed_keys(self.model)}

    def _check_complete(self, checkpoint: Mapping[str, Any], path: str) -> None:
        """Refuse a checkpoint that was written while gradients were accumulated.

        Raises:
            CmrvlmError: It was, or the number of accumulated batches is another one.
        """
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        within_step = progress["current"]["ready"] % self.trainer.accumulate_grad_batches
        if within_step and not progress["is_last_batch"]:
            raise CmrvlmError(
                "the checkpoint was written between two optimizer steps, without their gradients",
                file=path,
                field="ckpt_path",
                remedy="Go on with another checkpoint of the run, or with the "
                "trainer.accumulate_grad_batches that it was trained with.",
            )

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Optimizer and schedule; norms, biases and other vectors are not decayed."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        if not parameters:
            raise CmrvlmError(
                "nothing is trained", field="stage.trainable", remedy="Name a part of the model."
            )
        groups: list[dict[str, Any]] = [
            {"params": [p for p in parameters if p.ndim >= 2]},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        try:
            optimizer = self.make_optimizer([group for group in groups if group["params"]])
        except (TypeError, ValueError) as error:
            remedy = "Check its values."
            raise CmrvlmError(
                f"it refuses its settings: {error}", field="optimizer", remedy=remedy
            ) from error
        schedule = self.make_schedule(
            optimizer, total_steps=int(self.trainer.estimated_stepping_batches)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
