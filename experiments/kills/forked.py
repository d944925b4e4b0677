"""Commands in copies of this process, which has loaded the libraries that each would take long to load."""

from __future__ import annotations

import atexit
import os
import runpy
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

import data_modules.sources.phantom.source
import data_modules.study_data_module  # noqa: F401

_SECONDS_BETWEEN_LOOKS = 0.005

# Threads do not live on in a copy of a process.
torch.set_num_threads(1)


class ForkedCommand:
    """A module of the project that runs as `python -m` does, in a session of its own.

    Args:
        module: Dotted name of the module.
        arguments: Arguments of the command.
        output: File of what it prints.

    Attributes:
        pid: Number of its process and of its session.
    """

    def __init__(self, module: str, arguments: Sequence[str], output: Path) -> None:
        self._status: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            _run(module, arguments, output)

    def poll(self) -> int | None:
        """Return the exit status, negative where a signal ended it, or None while it runs."""
        if self._status is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def wait(self, timeout_s: float) -> int:
        """Wait for the end and return the exit status.

        Raises:
            TimeoutExpired: It has not ended in time.
        """
        end = time.monotonic() + timeout_s
        while (status := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(str(self.pid), timeout_s)
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        return status


def _run(module: str, arguments: Sequence[str], output: Path) -> None:
    """Become the command, and end with its status."""
    os.setsid()
    with output.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    # A shell lets commands in the background ignore Ctrl-C; a user's command does not.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    warnings.simplefilter("ignore")
    sys.argv[1:] = arguments
    status: object = 1
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as ending:
        status = ending.code
    finally:
        # Whatever ends it, nothing of the process that this is a copy of may run.
        if sys.exc_info()[0] is not None:
            traceback.print_exc()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 0)
