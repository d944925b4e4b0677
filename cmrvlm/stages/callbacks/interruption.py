"""End a training that is interrupted with a checkpoint of its last step."""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from cmrvlm.errors import CmrvlmError
from cmrvlm.runs.run_claim import CHECKPOINTS, resume_argument

# Ctrl-C, what schedulers send, and what comes when the terminal is closed or its connection lost.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Steps after which several processes ask each other whether one of them was told to end.
_STEPS_BETWEEN_QUESTIONS = 10


class EndOnSignal(Callback):
    """Keep a checkpoint and end after the step in which Ctrl-C, SIGTERM or SIGHUP came.

    A second Ctrl-C ends at once. A training that `nohup` started goes on without its terminal.

    Args:
        run: Run folder.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self.checkpoint = run / CHECKPOINTS / "last.ckpt"
        self.is_told = False
        self._steps_before = 0
        self._has_stepped = True
        self._heard: list[signal.Signals] = []

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen to the signals; how they were handled before is restored at the end."""
        if threading.current_thread() is not threading.main_thread():
            # Only the main thread may change how signals are handled.
            yield
            return
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        self._heard = [number for number in _SIGNALS if before[number] != signal.SIG_IGN]
        self._listen()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _listen(self) -> None:
        """Handle the signals here alone."""
        for number in self._heard:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        """Note that the training is to end; leave the next signal to end it at once."""
        self.is_told = True
        if number == signal.SIGHUP:
            _leave_terminal()
        sys.stderr.write("\nending after this step; once more ends at once\n")
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the place of the trainer's handlers, which end without a checkpoint."""
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and not self.is_told:
            self._listen()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, *unused: Any
    ) -> None:
        """Note how many steps were taken."""
        self._steps_before = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *unused: Any
    ) -> None:
        """Keep a checkpoint and end, if that was asked for.

        Raises:
            CmrvlmError: It was; the message says how to go on.
        """
        # Between two steps, gradients that were accumulated would be lost.
        self._has_stepped = trainer.global_step > self._steps_before
        if not self._has_stepped or not self._is_to_end(trainer):
            return
        trainer.save_checkpoint(self.checkpoint)
        raise interrupted(self.run)

    def _is_to_end(self, trainer: Trainer) -> bool:
        """Return whether this process, or another one of the training, was told to end."""
        if trainer.world_size == 1:
            return self.is_told
        if trainer.global_step % _STEPS_BETWEEN_QUESTIONS:
            return False
        return bool(trainer.strategy.reduce_boolean_decision(self.is_told, all=False))

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *unused: Any
    ) -> None:
        """End amid a validation, which is not repeated, with the step before it.

        Amid accumulated gradients the training goes on to the next step.

        Raises:
            CmrvlmError: It was asked for; the message says how to go on.
        """
        if not self.is_told or trainer.world_size > 1 or trainer.sanity_checking:
            return
        if not self._has_stepped:
            return
        trainer.save_checkpoint(self.checkpoint)
        raise interrupted(self.run)


def _leave_terminal() -> None:
    """Write to nowhere what goes to a terminal: it is gone, and the next line would be an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        if stat.S_ISCHR(os.fstat(descriptor).st_mode):
            os.dup2(nowhere, descriptor)
    os.close(nowhere)


def interrupted(run: Path) -> CmrvlmError:
    """Return the error of a training that was interrupted, which says how to go on."""
    last = run / CHECKPOINTS / "last.ckpt"
    remedy = "There is no checkpoint yet: give the same command once more."
    if last.is_file():
        remedy = f"Go on with the same command and {resume_argument(last)}"
    return CmrvlmError("the training was interrupted", file=run, remedy=remedy)
