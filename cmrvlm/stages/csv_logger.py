"""Losses as a table that a resumed training does not delete."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch.loggers import CSVLogger


def csv_logger(save_dir: str) -> CSVLogger:
    """Make a logger that writes `logs/metrics.csv`, or `logs_2/metrics.csv` where there is one.

    Lightning deletes the table of an earlier training in the folder, which a resumed one goes on from.

    Args:
        save_dir: Run folder.
    """
    version = "logs"
    number = 1
    while _holds_files(Path(save_dir) / version):
        number += 1
        version = f"logs_{number}"
    return CSVLogger(save_dir=save_dir, name=None, version=version)


def _holds_files(folder: Path) -> bool:
    """Return whether there is a folder with something in it."""
    return folder.is_dir() and any(folder.iterdir())
