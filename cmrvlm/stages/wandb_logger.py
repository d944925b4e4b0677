"""Weights & Biases as an option that never asks for a login and never leaks from one job into the next."""

from __future__ import annotations

from typing import Any

import wandb
from lightning.pytorch.loggers import WandbLogger


def wandb_logger(save_dir: str, project: str, offline: bool = True) -> WandbLogger:
    """Make a logger with a run of its own.

    Args:
        save_dir: Run folder.
        project: Project name.
        offline: Write to disk only.
    """
    if wandb.run is not None:
        wandb.finish()  # the run of an earlier job of a sweep
    settings: dict[str, Any] = {"reinit": "finish_previous"}
    return WandbLogger(
        project=project, save_dir=save_dir, offline=offline, settings=wandb.Settings(**settings)
    )
