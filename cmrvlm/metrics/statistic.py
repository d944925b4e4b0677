"""Statistics over answers that take weights, so that one definition serves the value and its bootstrap.

A statistic is called with weights (B, N): how often each of the N answers counts in each of B resamples. All resamples
are computed at once; weights of 1 give the value itself. What is not defined is NaN there and None in results.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float64]
Values = NDArray[np.float64]


def as_values(values: Sequence[float | None] | NDArray[Any]) -> Values:
    """Values as float64 with NaN for None."""
    return np.array([np.nan if v is None else v for v in values], dtype=np.float64)


def divide(top: Weights, bottom: Weights) -> Weights:
    """Quotients, NaN where the denominator is 0."""
    return np.divide(
        top, bottom, out=np.full(np.broadcast(top, bottom).shape, np.nan), where=bottom != 0
    )


class Statistic(ABC):
    """One metric over N answers.

    Attributes:
        size: N, the number of answers that weights are for.
        n: Answers that the value is over.
        undefined: Answers or classes that are left out because the metric is not defined for them.
    """

    size: int
    n: int
    undefined: int = 0

    def __call__(self, weights: Weights) -> Weights:
        """Values (B,) for weights (B, N); NaN where undefined."""
        return self._values(weights)

    @abstractmethod
    def _values(self, weights: Weights) -> Weights: ...

    @property
    def value(self) -> float | None:
        """The value itself; None when undefined."""
        found = float(self(np.ones((1, self.size)))[0]) if self.size else math.nan
        return None if math.isnan(found) else found


class Mean(Statistic):
    """Mean of a value of each answer; answers whose value is None do not count and are counted as undefined."""

    def __init__(self, values: Sequence[float | None] | NDArray[Any]) -> None:
        self.values = as_values(values)
        self.known = ~np.isnan(self.values)
        self.size = len(self.values)
        self.n, self.undefined = int(self.known.sum()), int((~self.known).sum())

    def _values(self, weights: Weights) -> Weights:
        return divide(
            weights[:, self.known] @ self.values[self.known], weights[:, self.known].sum(axis=1)
        )


class Among(Statistic):
    """A statistic of some of the answers, such as those to one question; the others are neither counted nor undefined.

    Args:
        inner: Statistic of the chosen answers.
        rows: Which answers those are.
        size: Number of all answers.
    """

    def __init__(self, inner: Statistic, rows: Sequence[int], size: int) -> None:
        self.inner, self.rows, self.size = inner, list(rows), size
        self.n, self.undefined = inner.n, inner.undefined

    def _values(self, weights: Weights) -> Weights:
        return self.inner(weights[:, self.rows])


def per_answer(one: Statistic) -> Values:
    """Value of each answer by itself, NaN where it has none; a mean has one, over all answers or among some."""
    if isinstance(one, Among):
        values = np.full(one.size, np.nan)
        values[one.rows] = per_answer(one.inner)
        return values
    assert isinstance(one, Mean)
    return one.values


class Ratio(Statistic):
    """Sum of one value over the sum of another, such as 2 TP over 2 TP + FP + FN.

    Args:
        top: Value of each answer above the line.
        bottom: Value of each answer below the line.
    """

    def __init__(
        self, top: Sequence[float] | NDArray[Any], bottom: Sequence[float] | NDArray[Any]
    ) -> None:
        self.top, self.bottom = as_values(top), as_values(bottom)
        self.size = self.n = len(self.top)

    def _values(self, weights: Weights) -> Weights:
        return divide(weights @ self.top, weights @ self.bottom)


class MeanOf(Statistic):
    """Mean over the defined ones of several statistics of the same answers, such as classes.

    Args:
        parts: The statistics.
        extra_undefined: Classes that have no statistic at all.
    """

    def __init__(self, parts: Sequence[Statistic], extra_undefined: int = 0) -> None:
        self.parts = list(parts)
        self.size = parts[0].size if parts else 0
        self.n = max((part.n for part in parts), default=0)
        self.undefined = sum(part.value is None for part in parts) + extra_undefined

    def _values(self, weights: Weights) -> Weights:
        if not self.parts:
            return np.full(len(weights), np.nan)
        values = np.stack([part(weights) for part in self.parts])
        known = ~np.isnan(values)
        return divide(
            np.where(known, values, 0.0).sum(axis=0), known.sum(axis=0).astype(np.float64)
        )


class Distribution(Statistic):
    """What answers are spread over: entropy in bits, or the share of the most frequent one.

    Args:
        answers: Class or text of each answer, None where there is none.
        kind: `entropy` or `top_share`.
    """

    def __init__(self, answers: Sequence[str | None], kind: str) -> None:
        names = sorted({one for one in answers if one is not None})
        self.member = np.array(
            [[one == name for name in names] for one in answers], dtype=np.float64
        )
        self.member = self.member.reshape(len(answers), len(names))
        self.kind = kind
        self.size = len(answers)
        self.n = sum(one is not None for one in answers)
        self.undefined = len(answers) - self.n

    def _values(self, weights: Weights) -> Weights:
        counts = weights @ self.member  # (B, classes)
        if counts.shape[1] == 0:
            return np.full(len(weights), np.nan)
        shares = divide(counts, counts.sum(axis=1, keepdims=True))
        if self.kind == "top_share":
            return np.asarray(shares.max(axis=1))
        logs = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
        return np.asarray(np.abs(-(shares * logs).sum(axis=1)))


class Ranking(Statistic):
    """Base of statistics over scores with a binary truth.

    Args:
        truth: True, False or None (unknown) of each answer.
        scores: Score of each answer, None where the model gave none.
    """

    def __init__(self, truth: Sequence[bool | None], scores: Sequence[float | None]) -> None:
        self.scores, self.truth = (
            as_values(scores),
            as_values([None if t is None else float(t) for t in truth]),
        )
        self.known = ~(np.isnan(self.scores) | np.isnan(self.truth))
        self.size = len(self.truth)
        self.n, self.undefined = int(self.known.sum()), int((~self.known).sum())


class Auroc(Ranking):
    """Area under the ROC curve: share of (positive, negative) pairs in the right order, ties one half.

    Mann and Whitney, Ann Math Stat 1947; Hanley and McNeil, Radiology 1982.
    """

    def _values(self, weights: Weights) -> Weights:
        positive, negative = self.known & (self.truth == 1), self.known & (self.truth == 0)
        high, low = self.scores[positive][:, None], self.scores[negative][None]
        right = (high > low) + 0.5 * (high == low)  # (P, Q)
        above, below = weights[:, positive], weights[:, negative]
        return divide(((above @ right) * below).sum(axis=1), above.sum(axis=1) * below.sum(axis=1))


class AveragePrecision(Ranking):
    """Area under the precision-recall curve as the sum of precision times gain in recall, as scikit-learn has it."""

    def _values(self, weights: Weights) -> Weights:
        order = np.argsort(-self.scores[self.known], kind="stable")
        scores, truth = self.scores[self.known][order], self.truth[self.known][order]
        if not len(scores):
            return np.full(len(weights), np.nan)
        sorted_weights = weights[:, self.known][:, order]
        last = np.append(
            scores[1:] != scores[:-1], True
        )  # thresholds between equal scores do not exist
        hits = (sorted_weights * truth).cumsum(axis=1)[:, last]
        seen = sorted_weights.cumsum(axis=1)[:, last]
        precision = divide(hits, seen)
        gain = np.diff(hits, axis=1, prepend=0.0)
        total = hits[:, -1]
        return divide(
            np.nansum(precision * gain, axis=1), np.where(np.unique(truth).size < 2, 0.0, total)
        )


class CalibrationError(Ranking):
    """Expected calibration error over equal bins of the probability (Naeini et al., AAAI 2015)."""

    bins = 10

    def _values(self, weights: Weights) -> Weights:
        index = np.clip((self.scores[self.known] * self.bins).astype(int), 0, self.bins - 1)
        member = (index[:, None] == np.arange(self.bins)).astype(np.float64)  # (K, bins)
        own = weights[:, self.known]
        gap = (own * (self.scores - self.truth)[self.known]) @ member
        return divide(np.abs(gap).sum(axis=1), own.sum(axis=1))
