"""Progress with the time that is left: a bar on a terminal, few plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

log = logging.getLogger(__name__)


class LineProgress(Callback):
    """A line in the log at every twentieth of the training.

    Args:
        lines: Number of lines over the whole training.
    """

    def __init__(self, lines: int = 20) -> None:
        self.lines = lines
        self.started = 0.0
        self.first_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.started, self.first_step = time.monotonic(), trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Say how far it is and how long it will take."""
        total, step = int(trainer.estimated_stepping_batches), trainer.global_step
        done = step - self.first_step
        if done <= 0 or (step % max(1, total // self.lines) and step != total):
            return
        left = (time.monotonic() - self.started) / done * (total - step)
        loss = float(trainer.callback_metrics.get("train/loss", float("nan")))
        log.info(
            "step %d of %d, loss %.3f, %d:%02d left",
            step,
            total,
            loss,
            int(left) // 60,
            int(left) % 60,
        )


def progress_bar() -> Callback:
    """Rich's bar when the output is a terminal, else plain lines."""
    return RichProgressBar() if sys.stdout.isatty() else LineProgress()
