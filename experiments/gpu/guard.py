"""Run the parts one after the other, each guarded, so that one that fails costs itself alone."""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from experiments.gpu.bench import Bench, Case, Row

Part = Callable[[Bench], Iterator[Case]]
# Seconds that stay for writing at the end.
_MARGIN_S = 5.0
# A part that hangs is ended after this share of what is left, but not before so many seconds.
_MOST_OF_BUDGET = 0.6
_LEAST_S = 60.0
_LIMITS = "limits"
# Characters of a message that are kept: Lightning puts whole tensors into some.
_LONGEST_MESSAGE = 600


def rows_of(part: Part, bench: Bench) -> Iterator[Row]:
    """Yield a row for each case of a part: its numbers, or why there are none.

    Args:
        part: Function that yields the cases.
        bench: Where and how long is measured.
    """
    cases = part(bench)
    while True:
        started = time.monotonic()
        row: Row = {"case": "begin"}
        try:
            case = next(cases, None)
            if case is None:
                return
            row["case"] = case.name
            if bench.left_s() < case.needs_s and not bench.small:
                row["skipped"] = f"{bench.left_s():.0f} s are left, it needs {case.needs_s:.0f}"
            else:
                row |= case.work()
        except SkippedError as reason:
            row["skipped"] = str(reason)
        except Exception as error:  # noqa: BLE001
            # Whatever breaks on a device that was never tried is the result of this case.
            row["error"] = f"{type(error).__name__}: {error}"[:_LONGEST_MESSAGE]
            row["where"] = _lines_of(error)
        row["seconds_in_all"] = round(time.monotonic() - started, 2)
        yield row
        if bench.on_gpu:
            # A training is a circle of objects: its model stays on the device until collected.
            gc.collect()
            _free_cache()
        if row["case"] == "begin":
            return


def _free_cache() -> None:
    """Give cached memory back; a device that an earlier error made useless refuses."""
    with suppress(RuntimeError):
        torch.cuda.empty_cache()


class SkippedError(Exception):
    """A case cannot be measured here; the message says why."""


def _lines_of(error: BaseException) -> list[str]:
    """Return the last lines of code that an error passed, innermost last.

    Of a path the folders of this machine are left out.
    """
    lines = []
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        file = "/".join(Path(code.co_filename).parts[-3:])
        lines.append(f"{file}:{step.tb_lineno} {code.co_name}")
        step = step.tb_next
    return lines[-8:]


def rows_apart(part: Part, bench: Bench, at_most_s: float) -> Iterator[Row]:
    """Yield the rows of a part that runs in a process of its own.

    An error of the device, such as an illegal access, makes it useless for the process that met it;
    the next part begins with a fresh one. A part that hangs is ended.

    Args:
        part: Function that yields the cases.
        bench: Where and how long is measured; nothing may have used the GPU before.
        at_most_s: Seconds after which the part is ended.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_rows, args=(part, bench, sender))
    process.start()
    sender.close()
    ends = time.monotonic() + at_most_s
    try:
        while receiver.poll(max(0.0, ends - time.monotonic())):
            row = receiver.recv()
            bench.limits.update(row.pop(_LIMITS, {}))
            yield row
        yield {"case": "the rest", "error": f"it was ended after {at_most_s:.0f} s"}
    except EOFError:
        process.join(_MARGIN_S)
        if process.exitcode:
            yield {"case": "the rest", "error": f"the process ended with {process.exitcode}"}
    finally:
        if process.is_alive():
            process.kill()
        process.join()


def _send_rows(part: Part, bench: Bench, sender: Connection[Any, Any]) -> None:
    """Send the rows of a part to the process that waits for them."""
    # What was imported stays: it need not be looked through after every case.
    gc.freeze()
    for row in rows_of(part, bench):
        sender.send({**row, _LIMITS: dict(bench.limits)})
    sender.close()


def _works_apart(bench: Bench) -> bool:
    """Return whether a process of its own can use the GPU; a library may have begun to use it."""

    def probe(bench: Bench) -> Iterator[Case]:
        yield Case("probe", lambda: {"sum": float(torch.ones(2, device=bench.device).sum())})

    return all("sum" in row for row in rows_apart(probe, bench, _LEAST_S))


def run_parts(
    parts: Mapping[str, Part], bench: Bench, write: Callable[[Mapping[str, list[Row]]], None]
) -> dict[str, list[Row]]:
    """Run the parts in order and write all rows after each of them.

    Args:
        parts: Name to part.
        bench: Where and how long is measured.
        write: Function that keeps all rows so far, by part.
    """
    results: dict[str, list[Row]] = {}
    apart = bench.on_gpu and _works_apart(bench)
    for name, part in parts.items():
        results[name] = []
        if bench.left_s() < _MARGIN_S:
            results[name].append({"case": "all", "skipped": "the budget is used up"})
            write(results)
            continue
        rows = rows_of(part, bench)
        if apart:
            at_most_s = max(_LEAST_S, _MOST_OF_BUDGET * bench.left_s())
            rows = rows_apart(part, bench, min(at_most_s, bench.left_s() + _MARGIN_S))
        for row in rows:
            results[name].append(row)
            write(results)
    return results
