"""Draw when trainings are killed: moments of all kinds, at random times within each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CACHE = "while the cache is filled"
CHECKPOINT = "while a checkpoint is written"
MIDDLE = "in the middle of an epoch"
END = "in the last batch of an epoch"
VALIDATION = "in a validation"
WEIGHTS = "while the final weights are written"
MOMENTS = (CACHE, CHECKPOINT, MIDDLE, END, VALIDATION, WEIGHTS)
# How often each moment comes for each number of workers and each accumulation.
_KILLS = {CACHE: 1, CHECKPOINT: 2, MIDDLE: 2, END: 1, VALIDATION: 1}
_FINAL = ((0, 1), (2, 2))
# Signal, moment, workers and accumulation of the trainings that are told to end.
_SIGNALS = (
    ("SIGTERM", MIDDLE, 0, 2),
    ("SIGTERM", CHECKPOINT, 2, 1),
    ("SIGTERM", VALIDATION, 0, 2),
    ("SIGTERM", CACHE, 0, 1),
    ("SIGINT", MIDDLE, 2, 1),
    ("SIGINT", VALIDATION, 2, 2),
    ("SIGINT", END, 0, 1),
    ("SIGINT", CACHE, 2, 2),
)
# Batches of an epoch, batches of a training, and batches between two validations; an epoch's last
# window of two batches holds one alone.
EPOCH = 7
BATCHES = 11
BETWEEN_VALIDATIONS = 3
STUDIES = 19
_MOST_SECONDS = 0.4


@dataclass(frozen=True)
class Kill:
    """A training that is to be killed, or told to end, once or twice.

    Args:
        number: Number in the plan.
        signal: `SIGKILL`, `SIGTERM` or `SIGINT`.
        workers: Processes that load data.
        accumulation: Batches between two optimizer steps.
        moment: One of `MOMENTS`.
        count: What the moment waits for: studies in the cache, or batches begun.
        delay_s: Seconds to wait then.
        again_s: Seconds after the first batch of the resumed training when that is killed too, or
            None.
    """

    number: int
    signal: str
    workers: int
    accumulation: int
    moment: str
    count: int
    delay_s: float
    again_s: float | None

    @property
    def loading(self) -> tuple[int, int]:
        """Return workers and accumulation, which decide how batches come."""
        return self.workers, self.accumulation


def plan(seed: int) -> list[Kill]:
    """Return the trainings to kill, then those to tell to end, with times drawn by a seed."""
    cases = []
    for workers in (0, 2):
        for accumulation in (1, 2):
            for moment, count in _KILLS.items():
                cases += [("SIGKILL", moment, workers, accumulation)] * count
    cases += [("SIGKILL", WEIGHTS, *loading) for loading in _FINAL]
    cases += _SIGNALS
    rng = np.random.default_rng(seed)
    return [_drawn(number, case, rng) for number, case in enumerate(cases)]


def _drawn(number: int, case: tuple[str, str, int, int], rng: np.random.Generator) -> Kill:
    """Draw the time of a kill within its moment."""
    signal, moment, workers, accumulation = case
    counts: dict[str, Sequence[int]] = {
        CACHE: range(1, STUDIES - 2),
        CHECKPOINT: range(1, BATCHES),
        MIDDLE: [batch for batch in range(2, BATCHES) if batch % EPOCH],
        END: [EPOCH],
        VALIDATION: range(BETWEEN_VALIDATIONS, BATCHES, BETWEEN_VALIDATIONS),
        WEIGHTS: [BATCHES],
    }
    delay_s = 0.0
    if moment in (MIDDLE, END, VALIDATION):
        delay_s = round(float(rng.uniform(0, _MOST_SECONDS)), 3)
    again_s = None
    # Every third is killed a second time, soon after it was resumed.
    if signal == "SIGKILL" and number % 3 == 0:
        again_s = round(float(rng.uniform(0, 3 * _MOST_SECONDS)), 3)
    count = int(rng.choice(counts[moment]))
    return Kill(number, signal, workers, accumulation, moment, count, delay_s, again_s)
