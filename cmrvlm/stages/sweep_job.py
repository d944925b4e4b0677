"""A job of a sweep as a command of its own: one that is killed takes no other with it, and memory is given back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from hydra.conf import HydraConf

from cmrvlm.errors import CmrvlmError
from cmrvlm.stages.callbacks.sweep_table import DONE, REPORT, recorded

# What the command of a job is not told: how the sweep is run.
_OF_THE_SWEEP = (
    "hydra.sweep",
    "hydra.launcher",
    "hydra.mode",
    "hydra.run.dir",
    "hydra/launcher",
    "hydra/sweeper",
)


def run_job(run: Path, of_job: HydraConf) -> float | None:
    """Train as a job of a sweep asks, by the same command in another process.

    Args:
        run: Run folder.
        of_job: What Hydra says of the job.

    Returns:
        The metric of the job.

    Raises:
        CmrvlmError: The job failed, or its process was killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        status = _wait_for(_command(run, of_job), {**os.environ, REPORT: str(report)})
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
    metric = told["metric"]
    return None if metric is None else float(metric)


def _wait_for(command: list[str], environment: dict[str, str]) -> int:
    """Run a command and return its status; it is ended with this process when somebody ends that."""
    process = subprocess.Popen(command, env=environment)
    before = None
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _command(run: Path, of_job: HydraConf) -> list[str]:
    """Return the command that trains what a job of a sweep asks for, with the sources of its configuration."""
    added = [one.path for one in of_job.runtime.config_sources if one.provider == "command-line"]
    sources = [part for path in added for part in ("--config-dir", path)]
    kept = [one for one in of_job.overrides.hydra if not one.lstrip("+~").startswith(_OF_THE_SWEEP)]
    place = str(run).replace("\\", "\\\\").replace("'", "\\'")
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
        f"hydra.run.dir='{place}'",
    ]
