"""A job of a sweep as a command of its own: one that is killed takes no other with it, and memory is given back."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from omegaconf import DictConfig

from cmrvlm.config.command import Config, quoted, resolved
from cmrvlm.errors import CmrvlmError
from cmrvlm.runs.run_claim import CHECKPOINTS, WEIGHTS, newest_checkpoint
from cmrvlm.stages.callbacks.sweep_table import DONE, REPORT, RESULT, SWEEP, recorded

log = logging.getLogger(__name__)
# What the command of a job is not told: how the sweep is run.
_OF_THE_SWEEP = (
    "hydra.sweep",
    "hydra.launcher",
    "hydra.mode",
    "hydra.run.dir",
    "hydra/launcher",
    "hydra/sweeper",
)
# Settings that may differ between a training and the same one that goes on with it.
_OF_THE_PLACE = ("out", "run_dir", "ckpt_path", "overwrite")
_SECONDS_BETWEEN_LOOKS = 0.5


def run_job(run: Path, of_job: HydraConf, config: DictConfig) -> float | None:
    """Train as a job of a sweep asks, by the same command in another process.

    A sweep that is given again into its folder goes on: a job that is done is left as it is, and
    one that was broken off is resumed from its newest checkpoint.

    Args:
        run: Run folder.
        of_job: What Hydra says of the job.
        config: Its configuration.

    Returns:
        The metric of the job.

    Raises:
        CmrvlmError: The job failed, or its process was killed.
    """
    _end_worker_with_the_sweep()
    command = _command(run, of_job)
    if _is_same(run, config):
        result = _result_of(run)
        if result is not None:
            log.info("job %d was done before", of_job.job.num)
            return _metric_of(result)
        checkpoint = newest_checkpoint(run / CHECKPOINTS)
        if checkpoint is not None:
            log.info("job %d goes on from %s", of_job.job.num, checkpoint)
            command.append(f"ckpt_path={quoted(checkpoint)}")
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        environment = {**os.environ, REPORT: str(report), SWEEP: str(os.getpid())}
        status = _wait_for(command, environment)
        if not report.is_file():
            with recorded(run, list(of_job.overrides.task)):
                how = (
                    f"was killed by signal {-status}"
                    if status < 0
                    else f"ended with status {status}"
                )
                raise CmrvlmError(
                    f"the process of this job {how}", file=run, remedy="See the log of the job."
                )
        told = json.loads(report.read_text())
    if told["status"] != DONE:
        raise CmrvlmError(told["error"])
    return _metric_of(told)


def _metric_of(result: dict[str, Any]) -> float | None:
    """Return the metric of a job's result, or None."""
    metric = result["metric"]
    if metric is None:
        return None
    return float(metric)


def _is_same(run: Path, config: DictConfig) -> bool:
    """Return whether a folder holds a training with the settings of a job, which may be kept."""
    if config.overwrite or config.ckpt_path or not (run / "config.yaml").is_file():
        return False
    # Loads PyTorch, which a sweep can do without.
    from cmrvlm.runs.run_files import read_yaml_mapping

    try:
        earlier = read_yaml_mapping(run / "config.yaml")
        return _without_place(earlier) == _without_place(resolved(config))
    except CmrvlmError:
        # The job itself says what is wrong.
        return False


def _without_place(config: Config) -> Config:
    """Return settings without those that say where and how a training goes on."""
    return {key: value for key, value in config.items() if key not in _OF_THE_PLACE}


def _result_of(run: Path) -> dict[str, Any] | None:
    """Return the result of a job that is done, or None."""
    if not ((run / WEIGHTS).is_file() and (run / RESULT).is_file()):
        return None
    result: dict[str, Any] = json.loads((run / RESULT).read_text(encoding="utf-8"))
    return result if result["status"] == DONE else None


def end_with_the_sweep() -> None:
    """Let a job end, with a checkpoint, when the process that started it was killed."""
    # Processes that this one starts end with it.
    parent = os.environ.pop(SWEEP, None)
    if parent is not None:
        _watch(int(parent), lambda: os.kill(os.getpid(), signal.SIGTERM))


@cache
def _end_worker_with_the_sweep() -> None:
    """Let a worker of a sweep, in which jobs are started side by side, end when that was killed."""
    parent = os.getppid()
    # The process of a sweep names itself; elsewhere, as on a cluster, nobody is waited for.
    if os.environ.get(SWEEP) == str(parent):
        _watch(parent, lambda: os._exit(1))


def _watch(parent: int, end: Callable[[], None]) -> None:
    """Call a function once the parent of this process is gone."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        end()

    threading.Thread(target=look, daemon=True).start()


def _wait_for(command: list[str], environment: dict[str, str]) -> int:
    """Run a command and return its status; it is ended with this process when somebody ends that.

    It has a process group of its own: Ctrl-C in a terminal reaches it through this process alone, so
    that it is told once, and keeps a checkpoint, not twice, and ends at once.
    """
    process = subprocess.Popen(command, env=environment, process_group=0)
    before = None
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return process.wait()
    finally:
        _end(process)
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a job that still runs, after its step; a second Ctrl-C ends it at once."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait()
    except KeyboardInterrupt:
        process.kill()
        process.wait()


def _command(run: Path, of_job: HydraConf) -> list[str]:
    """Return the command that trains what a job of a sweep asks for, with the sources of its configuration."""
    added = [one.path for one in of_job.runtime.config_sources if one.provider == "command-line"]
    sources = [part for path in added for part in ("--config-dir", path)]
    kept = [one for one in of_job.overrides.hydra if not one.lstrip("+~").startswith(_OF_THE_SWEEP)]
    return [
        sys.executable,
        "-m",
        "cmrvlm.train",
        *sources,
        "--config-name",
        str(of_job.job.config_name),
        *of_job.overrides.task,
        *kept,
        "hydra.mode=RUN",  # whatever the configuration says: a job that were a sweep would start jobs without end
        f"hydra.job.num={of_job.job.num}",
        f"hydra.job.id='{of_job.job.id}'",
        f"hydra.run.dir={quoted(run)}",
    ]
