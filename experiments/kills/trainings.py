"""Trainings as commands: unbroken, killed at a moment, and gone on with as their messages say."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from experiments.kills.forked import ForkedCommand
from experiments.kills.plan import (
    BATCHES,
    BETWEEN_VALIDATIONS,
    CACHE,
    CHECKPOINT,
    END,
    EPOCH,
    MIDDLE,
    STUDIES,
    VALIDATION,
    WEIGHTS,
    Kill,
)

SETTINGS = (
    "+experiment=stage3",
    "+debug=fast",
    "callbacks.samples=null",
    "projector.hidden=16",
    "head.read_out.hidden=16",
    "llm.network.hidden_size=32",
    "llm.network.layers=1",
    "llm.network.intermediate_size=48",
    "data.trial=false",
    f"data.source.count={STUDIES}",
    "data.batch_size=2",
    "data.evaluation_batch_size=2",
    "data.shares={val:0.25,test:0}",
    "callbacks.checkpoint.every_n_train_steps=2",
    f"trainer.val_check_interval={BETWEEN_VALIDATIONS}",
    "trainer.limit_val_batches=1.0",
)
_SECONDS = 400
_SECONDS_BETWEEN_LOOKS = 0.001
# Data workers look this often, in seconds, whether their training lives.
_SECONDS_OF_WORKERS = 20


@dataclass
class Training:
    """A training with its folders.

    Args:
        folder: Folder of everything that this training leaves.
        cache: Folder of the preprocessed studies.
        workers: Processes that load data.
        accumulation: Batches between two optimizer steps.
    """

    folder: Path
    cache: Path
    workers: int
    accumulation: int

    @property
    def run(self) -> Path:
        """Return the run folder."""
        return self.folder / "run"

    @property
    def events(self) -> Path:
        """Return the file that `experiments.kills.announced` writes."""
        return self.folder / "events.txt"

    @property
    def output(self) -> Path:
        """Return the file of what the commands print."""
        return self.folder / "output.txt"

    def arguments(self) -> list[str]:
        """Return the arguments of `cmrvlm.train`."""
        # The last window of an epoch is short: it has more steps than half of its batches.
        steps = -(-EPOCH // self.accumulation) + (BATCHES - EPOCH) // self.accumulation
        return [
            *SETTINGS,
            f"data.num_workers={self.workers}",
            f"trainer.accumulate_grad_batches={self.accumulation}",
            f"trainer.max_steps={steps}",
            f"paths.cache={self.cache}",
            f"out={self.run}",
        ]

    def start(self, module: str, *before: str, more: Sequence[str] = ()) -> ForkedCommand:
        """Start a command; what it prints goes to `output`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return ForkedCommand(module, [*before, *self.arguments(), *more], self.output)

    def train(self, *more: str) -> int:
        """Train by the plain command, with more arguments, and return its exit status."""
        return self.start("cmrvlm.train", more=more).wait(_SECONDS)

    def start_announced(self, *more: str) -> ForkedCommand:
        """Start the training so that it announces what it does."""
        self.events.unlink(missing_ok=True)
        return self.start("experiments.kills.announced", str(self.events), more=more)

    def next_arguments(self) -> list[str]:
        """Return what the last message says to add to the same command.

        Where it asks for a checkpoint and names none, a user would take the last one.
        """
        output = self.output.read_text()
        named = re.findall(r"ckpt_path=(\S+\.ckpt)", output)
        last = self.run / "checkpoints" / "last.ckpt"
        if "ckpt_path=" in output and not named and last.exists():
            named = [str(last)]
        return [f"ckpt_path={path}" for path in named[-1:]]

    def last_event(self) -> tuple[str, int, int]:
        """Return the last event with the batches begun and the steps done."""
        lines = self.events.read_text().splitlines() if self.events.exists() else []
        if not lines:
            return "started", 0, 0
        event, batches, steps = lines[-1].split()
        return event, int(batches), int(steps)

    def has_begun(self, event: str, batch: int) -> bool:
        """Return whether an event of a batch, or a later one of its kind, was announced."""
        lines = self.events.read_text().splitlines() if self.events.exists() else []
        return any(
            line.split()[0] == event and int(line.split()[1]) >= batch
            for line in lines
            if line.count(" ") == 2
        )

    def cached_studies(self) -> int:
        """Return how many studies the cache holds while others are written; 0 where none is."""
        if not any(self.cache.glob("*/.writing-*")):
            return 0
        return sum(1 for _ in self.cache.glob("*/*/study.json"))

    def leftovers(self) -> list[str]:
        """Return names of temporary files and folders."""
        paths = [*self.run.rglob(".*.part"), *self.cache.glob("*/.writing-*")]
        return sorted(path.name for path in paths)

    def equals(self, other: Training) -> bool:
        """Return whether the final weights are those of another training, bit for bit."""
        weights, expected = (
            load_file(training.run / "model.safetensors") for training in (self, other)
        )
        return weights.keys() == expected.keys() and all(
            torch.equal(value, expected[name]) for name, value in weights.items()
        )


def reached(training: Training, kill: Kill) -> Callable[[], bool]:
    """Return a function that tells whether the moment of a kill has come."""

    def in_cache() -> bool:
        return training.cached_studies() >= kill.count

    def in_checkpoint() -> bool:
        parts = any((training.run / "checkpoints").glob(".*.part"))
        return parts and training.has_begun("batch", kill.count)

    def in_weights() -> bool:
        return any(training.run.glob(".model.safetensors.*.part"))

    def in_validation() -> bool:
        return training.has_begun("validation", kill.count)

    def in_batch() -> bool:
        return training.has_begun("batch", kill.count)

    return {
        CACHE: in_cache,
        CHECKPOINT: in_checkpoint,
        WEIGHTS: in_weights,
        VALIDATION: in_validation,
        MIDDLE: in_batch,
        END: in_batch,
    }[kill.moment]


def moment_of(training: Training) -> str:
    """Return what a training was doing when it was killed, by what it left behind."""
    if any((training.run / "checkpoints").glob(".*.part")):
        return CHECKPOINT
    if any(training.run.glob(".model.safetensors.*.part")):
        return WEIGHTS
    if any(training.cache.glob("*/.writing-*")):
        return CACHE
    event, batch, _ = training.last_event()
    if event == "batch":
        return END if batch % EPOCH == 0 else MIDDLE
    return {"validation": VALIDATION}.get(event, event)


def stop(process: ForkedCommand, is_time: Callable[[], bool], delay_s: float, number: int) -> int:
    """Send a signal to a command when its time has come, and return its exit status.

    Args:
        process: The command, which leads a session.
        is_time: Function that tells whether the moment has come.
        delay_s: Seconds to wait then.
        number: The signal; Ctrl-C goes to all processes of the session, as a terminal sends it.
    """
    end = time.monotonic() + _SECONDS
    while process.poll() is None and time.monotonic() < end and not is_time():
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    time.sleep(delay_s)
    if process.poll() is None:
        send = os.killpg if number == signal.SIGINT else os.kill
        send(process.pid, number)
    return process.wait(_SECONDS)


def has_processes(session: int) -> bool:
    """Return whether processes of a session live on after a while."""
    end = time.monotonic() + _SECONDS_OF_WORKERS
    while time.monotonic() < end:
        try:
            os.killpg(session, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.1)
    return True


def clear(folder: Path) -> None:
    """Remove a folder that need not be there."""
    shutil.rmtree(folder, ignore_errors=True)
