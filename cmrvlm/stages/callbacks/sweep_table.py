"""A sweep ends with a table of its jobs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from cmrvlm.json_files import write_json

RESULT = "result.json"


def write_result(run: Path, overrides: list[str], status: str, metric: float | None) -> None:
    """What one job leaves for the table."""
    run.mkdir(parents=True, exist_ok=True)
    write_json(run / RESULT, {"overrides": overrides, "status": status, "metric": metric})


def sweep_table(folder: Path) -> Table:
    """Jobs of a sweep folder with what they changed and what they reached; those without a result have failed."""
    table = Table("job", "overrides", "status", "metric", title=f"Jobs of {folder}")
    jobs = [path for path in folder.iterdir() if path.is_dir() and path.name.isdigit()] if folder.is_dir() else []
    for job in sorted(jobs, key=lambda path: int(path.name)):
        path = job / RESULT
        found = (
            json.loads(path.read_text()) if path.is_file() else {"overrides": [], "status": "failed", "metric": None}
        )
        metric = "" if found["metric"] is None else f"{found['metric']:.4f}"
        table.add_row(job.name, " ".join(found["overrides"]), found["status"], metric)
    return table


class SweepTable(Callback):
    """Prints the table at the end of a multirun and keeps it in the sweep folder."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print and write the table."""
        folder = Path(config.hydra.sweep.dir)
        table = sweep_table(folder)
        Console(width=160).print(table)
        with (folder / "jobs.txt").open("w") as file:
            Console(file=file, width=160).print(table)
