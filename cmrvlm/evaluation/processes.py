"""Share the studies of an evaluation among several processes, one for each GPU.

Each study is asked about once.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

_LONGEST_WAIT = timedelta(days=30)
Item = TypeVar("Item")


def join_processes() -> None:
    """Meet the other processes that `torchrun` started, if it did."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size > 1 and not distributed.is_initialized():
        # Processes only wait for one another, and for as long as the slowest takes.
        distributed.init_process_group("gloo", timeout=_LONGEST_WAIT)


def rank_and_count() -> tuple[int, int]:
    """Return the number of this process, from 0, and the number of processes."""
    if distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def own_device(device: torch.device) -> torch.device:
    """Return this process's GPU when GPUs are used, the given device otherwise."""
    if device.type != "cuda":
        return device
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device(device.type, local_rank)


def own_share(studies: Sequence[Item]) -> list[Item]:
    """Return the studies, or parts of them, that this process asks about.

    Unlike in Lightning's sampler none is repeated to make the shares equal.
    """
    rank, count = rank_and_count()
    return list(studies[rank::count])


def wait_for_others() -> None:
    """Return when every process has come here."""
    if distributed.is_initialized():
        distributed.barrier()
