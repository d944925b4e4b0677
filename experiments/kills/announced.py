"""Train as `cmrvlm.train` does, and tell in a file what the training is doing.

    python -m experiments.kills.announced <file> <arguments of cmrvlm.train>

A line is added at the start of each batch (`batch`), of a validation (`validation`) and of what
comes after the last step (`trained`), with the number of batches and of steps done.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from cmrvlm.stages.base import Stage


def announce(event: str, trainer: Trainer, file: Path) -> None:
    """Add a line: an event, batches done and steps done."""
    batches = trainer.fit_loop.epoch_loop.total_batch_idx + 1
    with file.open("a") as lines:
        lines.write(f"{event} {batches} {trainer.global_step}\n")


def watch(file: Path) -> None:
    """Let the stages announce what they do."""
    begin_batch = Stage.on_train_batch_start

    def on_train_batch_start(stage: Stage, *arguments: Any) -> None:
        announce("batch", stage.trainer, file)
        begin_batch(stage, *arguments)

    def on_validation_start(stage: Stage) -> None:
        announce("validation", stage.trainer, file)

    def on_train_end(stage: Stage) -> None:
        announce("trained", stage.trainer, file)

    Stage.on_train_batch_start = on_train_batch_start  # type: ignore[method-assign]
    Stage.on_validation_start = on_validation_start  # type: ignore[method-assign]
    Stage.on_train_end = on_train_end  # type: ignore[method-assign]


if __name__ == "__main__":
    events = Path(sys.argv.pop(1))
    watch(events)
    runpy.run_module("cmrvlm.train", run_name="__main__", alter_sys=True)
