"""Run the project's commands as a user would, and read what they wrote, for all experiments."""

from __future__ import annotations

import csv
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from cmrvlm.stages.csv_logger import tables_of

CONSOLE = Console(highlight=False, soft_wrap=True)


def run(*arguments: str) -> None:
    """Run a module of the project, showing the command."""
    CONSOLE.print(f"\n$ python -m {shlex.join(arguments)}", style="bold", markup=False)
    subprocess.run([sys.executable, "-W", "ignore", "-m", *arguments], check=True)


def train_anew(*arguments: str) -> None:
    """Train a stage.

    What an earlier try left in the same folder is replaced, so that experiments can be repeated.
    """
    run("cmrvlm.train", *arguments, "overwrite=true")


def given(defaults: dict[str, str]) -> dict[str, str]:
    """Return settings: the `name=value` arguments of the command line over their defaults.

    Raises:
        SystemExit: A name is unknown.
    """
    arguments = dict(argument.split("=", 1) for argument in sys.argv[1:])
    unknown = set(arguments) - set(defaults)
    if unknown:
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(defaults)}")
    return defaults | arguments


def training_facts(started: float, steps: str) -> dict[str, Any]:
    """Return what a result says of its training: minutes, steps, seed and processor.

    Args:
        started: `time.monotonic` at the start of the training.
        steps: Number of steps.
    """
    minutes = round((time.monotonic() - started) / 60, 1)
    threads = os.environ.get("OMP_NUM_THREADS", str(os.cpu_count()))
    return {
        "minutes": minutes,
        "steps": int(steps),
        "seed": 0,
        "hardware": f"{os.cpu_count()} cores, {threads} threads",
    }


def metrics(folder: Path) -> dict[str, Any]:
    """Return the content of the `metrics.json` in a folder."""
    return dict(json.loads((folder / "metrics.json").read_text()))


def logged(run_folder: Path, column: str) -> dict[int, float]:
    """Return a column of a training's `metrics.csv` by the number of steps done.

    A training that was resumed did some steps again; those that it went on from count.
    """
    value_of: dict[int, float] = {}
    for table in tables_of(run_folder):
        with table.open() as file:
            for row in csv.DictReader(file):
                if row.get(column):
                    value_of[int(row["step"]) + 1] = float(row[column])
    return value_of
