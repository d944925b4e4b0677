"""Losses as a table that a resumed training does not delete."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch.loggers import CSVLogger

TABLE = "metrics.csv"


def csv_logger(save_dir: str) -> CSVLogger:
    """Make a logger that writes `logs/metrics.csv`, or `logs/2/metrics.csv` where there is one.

    Lightning deletes the table of an earlier training in the folder, which a resumed one goes on from.

    Args:
        save_dir: Run folder.
    """
    logs = Path(save_dir) / "logs"
    if not (logs / TABLE).is_file():
        return CSVLogger(save_dir=save_dir, name=None, version=logs.name)
    number = len(tables_of(Path(save_dir))) + 1
    return CSVLogger(save_dir=save_dir, name=logs.name, version=str(number))


def tables_of(run_folder: Path) -> list[Path]:
    """Return the tables of a run, the first training's first."""
    logs = run_folder / "logs"
    resumed = [path for path in logs.glob(f"*/{TABLE}") if path.parent.name.isdecimal()]
    resumed.sort(key=lambda path: int(path.parent.name))
    return [path for path in (logs / TABLE, *resumed) if path.is_file()]
