"""A sweep ends with a table of its jobs."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from cmrvlm.files import write_json
from cmrvlm.stages.run_claim import FolderTakenError

RESULT, TRACEBACK = "result.json", "traceback.txt"


def write_result(run: Path, overrides: list[str], status: str, metric: float | None) -> None:
    """Write what one job leaves for the table."""
    run.mkdir(parents=True, exist_ok=True)
    write_json(run / RESULT, {"overrides": overrides, "status": status, "metric": metric})


@contextmanager
def recorded(run: Path, overrides: list[str]) -> Iterator[dict[str, float | None]]:
    """Leave the result of a job in its folder, however it ends, and the traceback of one that failed.

    A folder that belongs to another run is left as it is.

    Args:
        run: Run folder.
        overrides: What the job was asked for.

    Returns:
        Where the job puts its `metric`.
    """
    result: dict[str, float | None] = {"metric": None}
    status, taken = "failed", False
    try:
        yield result
        status = "done"
    except FolderTakenError:
        taken = True
        raise
    finally:
        if not taken:
            write_result(run, overrides, status, result["metric"])
            if status == "failed":
                (run / TRACEBACK).write_text(traceback.format_exc(), encoding="utf-8")


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
