"""What every part of the measurement uses: the device, the time that is left, clocks and memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

GB = 1e9
TERA = 1e12
# Rounds of one measurement, fewer where a round is slow.
_ROUNDS = 10
_SECONDS_OF_A_MEASUREMENT = 1.5
_WARM_UP = 2

Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    Attributes:
        name: Name in the table.
        work: Function that measures and returns the numbers.
        needs_s: Seconds that must be left for it to begin.
    """

    name: str
    work: Callable[[], Row]
    needs_s: float = 5.0


@dataclass(frozen=True)
class Bench:
    """Where and how long is measured.

    Attributes:
        device: Device that is measured.
        small: Use sizes that a CPU computes in seconds, to try the script itself.
        scratch: Folder for caches and runs.
        ends: `time.monotonic` at which the budget ends.
        limits: Matrix limit of the card by data type, in FLOP/s; filled by the part `limits`.
    """

    device: torch.device
    small: bool
    scratch: Path
    ends: float
    limits: dict[str, float] = field(default_factory=dict)

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    def left_s(self) -> float:
        """Return the seconds that are left of the budget."""
        return self.ends - time.monotonic()

    def wait(self) -> None:
        """Wait until the device has done all that it was given."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def autocast(self, enabled: bool = True) -> torch.autocast:
        """Return the context of mixed precision in bfloat16."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def seconds(self, work: Callable[[], Any]) -> float:
        """Return the median seconds of some rounds, after a warm-up.

        Args:
            work: What is timed; its result is thrown away.
        """
        for _ in range(1 if self.small else _WARM_UP):
            work()
        self.wait()
        rounds = 1 if self.small else _ROUNDS
        times: list[float] = []
        while len(times) < rounds and sum(times) < _SECONDS_OF_A_MEASUREMENT:
            started = time.perf_counter()
            work()
            self.wait()
            times.append(time.perf_counter() - started)
        return median(times)

    @contextmanager
    def peak_memory(self) -> Iterator[Row]:
        """Measure the most memory that tensors take inside; on a CPU nothing is measured.

        Yields:
            Row that holds `peak_gb` and `reserved_gb` at the end.
        """
        row: Row = {}
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        yield row
        if self.on_gpu:
            row["peak_gb"] = torch.cuda.max_memory_allocated(self.device) / GB
            row["reserved_gb"] = torch.cuda.max_memory_reserved(self.device) / GB

    def rates(self, flop: float, seconds: float, kind: str = "bfloat16") -> Row:
        """Return TFLOP/s, and the share of the card's matrix limit where that was measured.

        Args:
            flop: Floating-point operations that were counted.
            seconds: Time that they took.
            kind: Data type of the limit.
        """
        row: Row = {"tflop": flop / TERA, "tflop_per_s": flop / seconds / TERA}
        if kind in self.limits:
            row["share_of_limit"] = flop / seconds / self.limits[kind]
        return row


def counted_flop(work: Callable[[], Any]) -> float:
    """Run some work once and return its floating-point operations in matrix products."""
    counter = FlopCounterMode(display=False)
    with counter:
        work()
    return float(counter.get_total_flops())


def relative_difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return |found - expected| / |expected| of two tensors of one shape, in float64 on the CPU."""
    exact = expected.detach().cpu().double()
    difference = found.detach().cpu().double() - exact
    return float(difference.norm() / exact.norm().clamp(min=1e-12))


def largest(values: Sequence[float]) -> float:
    """Return the largest value, 0 where there is none."""
    return max(values, default=0.0)
