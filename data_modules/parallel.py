"""Work on many items at once, with few of them in memory, in processes that end with their parent."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import parent_process
from typing import Any, TypeVar

from cmrvlm.errors import CmrvlmError

Item = TypeVar("Item")
Shared = TypeVar("Shared")
Result = TypeVar("Result")

# A worker holds a study on its native grid: more of them than this would fill most memories.
_MOST_WORKERS = 8
# Items that wait for a worker, or results that wait to be taken, for each worker.
_AHEAD = 4
_SECONDS_BETWEEN_LOOKS = 0.2

# What all calls in a worker process share. It is sent once, when the process starts.
_shared: Any = None


def default_workers() -> int:
    """Return how many items to work on at once: one a core, but no more than eight."""
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        # A container or a scheduler may give a job some cores of a machine alone.
        cores = len(os.sched_getaffinity(0))
    return min(cores, _MOST_WORKERS)


def map_in_order(
    pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """Yield the results of a function in the order of the items, with few items under way.

    Unlike `Executor.map` it takes items as results are taken, so that neither pile up.

    Args:
        pool: Executor of the calls.
        function: Function of an item.
        items: Items, of which at most a few for each worker are taken ahead.
        workers: Workers of the executor.
    """
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) >= workers * _AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@contextmanager
def thread_pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Yield an executor that, when the block is left early, begins nothing that waits."""
    pool = ThreadPoolExecutor(workers)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def map_in_processes(
    function: Callable[[Item, Shared], Result],
    items: Iterable[Item],
    shared: Shared,
    workers: int,
    field: str,
) -> Iterator[Result]:
    """Yield the results of a function in the order of the items, computed in worker processes.

    Args:
        function: Function, at the top level of a module, of an item and of what all calls share.
        items: Items, which are sent one at a time.
        shared: What all calls share; it is sent to each process once.
        workers: Number of processes; fewer than two compute in this one.
        field: Setting of the number of processes, for the error.

    Raises:
        CmrvlmError: A process was killed, for example because memory ran out.
    """
    if workers < 2:
        for item in items:
            yield function(item, shared)
        return
    pool = ProcessPoolExecutor(workers, initializer=_begin_worker, initargs=(function, shared))
    try:
        yield from map_in_order(pool, _call, items, workers)
    except BrokenProcessPool as error:
        raise CmrvlmError(
            "a worker process was killed, perhaps because memory ran out",
            field=field,
            remedy="Use fewer workers; what is done is kept.",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_worker(function: Callable[..., Any], shared: Any) -> None:
    """Keep what all calls share, and watch the parent process."""
    global _shared
    _shared = (function, shared)
    # Ctrl-C reaches all processes of a terminal: the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process once its parent is gone: one that is killed cannot end its children."""
    parent = parent_process()
    assert parent is not None
    while parent.is_alive():
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os._exit(1)


def _call(item: Any) -> Any:
    """Call the function of this worker process."""
    function, shared = _shared
    return function(item, shared)
