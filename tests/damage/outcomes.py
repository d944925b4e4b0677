"""Run one reading in a process of its own, within a limit of time and memory, and say how it ended."""

import multiprocessing
import resource
import traceback
from collections.abc import Callable
from pathlib import Path

from cmrvlm.errors import CmrvlmError

REFUSED, RIGHT, WRONG, TRACEBACK, HANG, MEMORY = (
    "refused",
    "right",
    "silently wrong",
    "traceback",
    "over 60 s",
    "over 1 GB",
)
_SECONDS = 60
_GIGABYTE = 1 << 30


def _used_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _work(read: Callable[[], bool], file_bytes: int, pipe: object) -> None:
    limit = _used_bytes() + file_bytes + _GIGABYTE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        pipe.send((RIGHT, "") if read() else (WRONG, "another result than the independent reading"))
    except CmrvlmError as error:
        pipe.send((REFUSED, str(error)[:300]))
    except MemoryError:
        pipe.send((MEMORY, traceback.format_exc(limit=-4)))
    except BaseException:  # noqa: BLE001
        pipe.send((TRACEBACK, traceback.format_exc(limit=-4)))


def outcome(read: Callable[[], bool], file_bytes: int = 0) -> tuple[str, str]:
    """Return how a reading ended, and what it said.

    Args:
        read: Reads a file by the project's own code, and returns whether the result is right.
        file_bytes: Size of the file.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(read, file_bytes, sender))
    process.start()
    sender.close()
    try:
        if not receiver.poll(_SECONDS):
            return HANG, ""
        return receiver.recv()
    except EOFError:
        return TRACEBACK, "the process ended without a word"
    finally:
        process.kill()
        process.join()
