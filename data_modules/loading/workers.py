"""Processes that read data ahead of a training."""

from __future__ import annotations

import atexit
import multiprocessing
import signal
from functools import cache


def leave_signals_to_the_parent(number: int) -> None:
    """Ignore Ctrl-C, SIGTERM and SIGHUP in a worker.

    A terminal and a cluster's scheduler send them to all processes of a job. The training ends its
    workers itself once it has kept a checkpoint, and they end when it dies.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


@cache
def end_workers_at_exit() -> None:
    """Let this process end its workers when it ends, also those of a loader that nobody closed.

    Python tells them to end by SIGTERM, which they leave to their parent, and waits for ever.
    """
    # The last that is registered is called first: before Python waits.
    atexit.register(_kill_workers)


def _kill_workers() -> None:
    """Kill the children of this process that would be told to end at its end."""
    # PyTorch would take it for a fault of the worker.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()
