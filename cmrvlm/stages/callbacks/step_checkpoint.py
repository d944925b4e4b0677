"""Checkpoints between optimizer steps that are complete, never amid accumulated gradients."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class StepCheckpoint(ModelCheckpoint):
    """A `ModelCheckpoint` that saves right after an optimizer step alone.

    A checkpoint holds no gradients. One that is written while they are accumulated loses them, so
    that a resumed training takes another step than an unbroken one. Lightning writes such a
    checkpoint after the first batch of a resumed training, whose step it has not saved itself.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._steps_before = 0
        self._is_complete = True
        self._waits_for_step = False

    @property
    def state_key(self) -> str:
        """Return the key of the callback's state in a checkpoint, that of Lightning's class."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, *unused: Any
    ) -> None:
        """Note how many steps were taken."""
        self._steps_before = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *arguments: Any
    ) -> None:
        """Save, if it is time and the batch ended with a step."""
        self._is_complete = trainer.global_step > self._steps_before
        if not self._is_complete:
            return
        super().on_train_batch_end(trainer, pl_module, *arguments)
        if self._waits_for_step:
            self._waits_for_step = False
            super().on_validation_end(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, if it is time; amid accumulated gradients this waits for the next step."""
        if self._is_complete:
            super().on_validation_end(trainer, pl_module)
        else:
            self._waits_for_step = True
