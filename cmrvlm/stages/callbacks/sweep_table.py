"""A sweep ends with a table of its jobs, however many of them fail."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.markup import escape
from rich.table import Table

from cmrvlm.config.console import print_table
from cmrvlm.config.terminal import PlainConsole
from cmrvlm.runs.run_claim import FolderTakenError
from cmrvlm.study.atomic_files import atomic_write, write_json

RESULT, TRACEBACK, JOBS = "result.json", "traceback.txt", ".jobs"
DONE, FAILED = "done", "failed"
REPORT = (
    "CMRVLM_JOB_REPORT"  # variable with the file that tells the process of a sweep how a job ended
)
# Variables with the number of a process among those of a training; the first that is set counts.
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
# Variable with the process that started another one as a part of a sweep.
SWEEP = "CMRVLM_SWEEP_PROCESS"
log = logging.getLogger(__name__)


@contextmanager
def recorded(run: Path, overrides: list[str]) -> Iterator[dict[str, float | None]]:
    """Leave the result of a job in its folder, however it ends, and the traceback of one that failed.

    A folder that belongs to another run is left as it is. The process of a sweep is told the result too.
    Of several processes of a training the first one does so.

    Args:
        run: Run folder.
        overrides: What the job was asked for.

    Returns:
        Where the job puts its `metric`.
    """
    result: dict[str, float | None] = {"metric": None}
    if not _is_first_process():
        yield result
        return
    status, taken = FAILED, False
    try:
        yield result
        status = DONE
    except FolderTakenError:
        taken = True
        raise
    finally:
        told = {"overrides": overrides, "status": status, "metric": result["metric"]}
        if REPORT in os.environ:
            write_json(Path(os.environ[REPORT]), told | {"error": str(sys.exc_info()[1] or "")})
        if not taken:
            run.mkdir(parents=True, exist_ok=True)
            write_json(run / RESULT, told)
            if status == FAILED:
                (run / TRACEBACK).write_text(traceback.format_exc(), encoding="utf-8")
            else:
                (run / TRACEBACK).unlink(missing_ok=True)


def _is_first_process() -> bool:
    """Return whether this process of a training writes; Lightning numbers the others so."""
    numbers = [os.environ[name] for name in _RANKS if name in os.environ]
    return not numbers or int(numbers[0]) == 0


def jobs_of(folder: Path) -> list[dict[str, Any]]:
    """Return what the jobs of a sweep folder left behind, by their numbers."""
    return [json.loads(path.read_text()) for path in _records(folder)]


def _records(folder: Path) -> list[Path]:
    """Return the files that jobs of a sweep folder wrote, by their numbers."""
    paths = [path for path in (folder / JOBS).glob("*.json") if path.stem.isdigit()]
    return sorted(paths, key=lambda path: int(path.stem))


def sweep_table(folder: Path) -> Table:
    """Return the jobs of a sweep folder with what they changed, what they reached, and why some of them failed."""
    table = Table(
        "job", "overrides", "status", "metric", "error", title=escape(f"Jobs of {folder}")
    )
    for job in jobs_of(folder):
        metric = "" if job["metric"] is None else f"{job['metric']:.4f}"
        texts = (" ".join(job["overrides"]), job["status"], metric, job["error"])
        table.add_row(str(job["job"]), *(escape(text) for text in texts))
    return table


def write_table(folder: Path) -> Table:
    """Write the table of a sweep folder into `jobs.txt` and return it."""
    table = sweep_table(folder)
    with (
        atomic_write(folder / "jobs.txt") as temporary,
        temporary.open("w", encoding="utf-8") as file,
    ):
        print_table(table, PlainConsole(file=file, width=160))
    return table


class SweepTable(Callback):
    """Keeps a record of each job of a multirun, lets none of them end the others, and prints the table at the end."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Remove the records of an earlier sweep in the same folder, and name this process."""
        os.environ[SWEEP] = str(os.getpid())
        for path in _records(_sweep_folder(config)):
            path.unlink()

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Record a job of a sweep; one that failed returns nothing, so that the sweep goes on."""
        if config.hydra.mode != RunMode.MULTIRUN:
            return
        failed = job_return.status == JobStatus.FAILED
        error = str(job_return._return_value) if failed else ""
        record = {
            "job": int(config.hydra.job.num),
            "overrides": list(config.hydra.overrides.task),
            "status": FAILED if failed else DONE,
            "metric": None if failed else job_return.return_value,
            "error": error.splitlines()[0] if error else "",
        }
        folder = _sweep_folder(config) / JOBS
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"{record['job']}.json", record)
        # A sweep may be killed before its end.
        write_table(_sweep_folder(config))
        if failed:
            log.error("job %d failed: %s", record["job"], error)
            job_return.status, job_return.return_value = JobStatus.COMPLETED, None

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print and write the table; a sweep with a job that failed ends with status 1."""
        folder = _sweep_folder(config)
        print_table(write_table(folder), PlainConsole(width=160))
        failed = [str(job["job"]) for job in jobs_of(folder) if job["status"] == FAILED]
        if failed:
            log.error("%d jobs failed: %s", len(failed), ", ".join(failed))
            sys.exit(1)


def _sweep_folder(config: DictConfig) -> Path:
    """Return the folder of a sweep, wherever the job has gone to."""
    return Path(config.hydra.runtime.cwd) / str(config.hydra.sweep.dir)
