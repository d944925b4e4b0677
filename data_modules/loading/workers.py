"""Processes that read data ahead of a training."""

from __future__ import annotations

import signal


def leave_signals_to_the_parent(number: int) -> None:
    """Ignore Ctrl-C and SIGTERM in a worker.

    A terminal and a cluster's scheduler send them to all processes of a job. The training ends its
    workers itself once it has kept a checkpoint, and they end when it dies.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
