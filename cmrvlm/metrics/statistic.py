"""Statistics over answers that take weights, so that one definition gives value and bootstrap.

A statistic is called with weights (B, N): how often each of the N answers counts in each of B
resamples. All resamples are computed at once; weights of 1 give the value itself. What is not
defined is NaN inside and None in results.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from cmrvlm.errors import CmrvlmError

Weights = NDArray[np.float64]
Values = NDArray[np.float64]
OptionalValues = Sequence[float | None] | NDArray[Any]


def as_values(values: OptionalValues) -> Values:
    """Return (N,) values as float64 with NaN for None."""
    # NumPy reads None as NaN.
    return np.array(values, dtype=np.float64)


def divide(numerator: Weights, denominator: Weights) -> Weights:
    """Divide two arrays of shapes that broadcast, such as (B,); NaN where the denominator is 0."""
    shape = np.broadcast(numerator, denominator).shape
    quotient = np.full(shape, np.nan)
    return np.divide(numerator, denominator, out=quotient, where=denominator != 0)


class Statistic(ABC):
    """A metric over N answers.

    Attributes:
        size: N, the number of answers that weights are for.
        n: Answers that the value is over.
        undefined: Answers or classes that are left out because the metric is not defined for them.
    """

    size: int
    n: int
    undefined: int = 0

    def __call__(self, weights: Weights) -> Weights:
        """Return values (B,) for weights (B, N); NaN where undefined."""
        return self._values(weights)

    @abstractmethod
    def _values(self, weights: Weights) -> Weights:
        """Compute values (B,) for weights (B, N)."""

    def _count(self, known: NDArray[np.bool_]) -> None:
        """Count the answers whose value is known (N,), and the others as undefined."""
        self.size = len(known)
        self.n = int(known.sum())
        self.undefined = self.size - self.n

    @property
    def value(self) -> float | None:
        """Value over all answers, each counted once; None when undefined."""
        if self.size == 0:
            return None
        once = np.ones((1, self.size))
        value = float(self(once)[0])
        if math.isnan(value):
            return None
        return value


class Mean(Statistic):
    """Mean of a value of each answer.

    Args:
        values: Value of each answer; None does not count and is counted as undefined.
    """

    def __init__(self, values: OptionalValues) -> None:
        self.values = as_values(values)
        self.known = ~np.isnan(self.values)
        self._count(self.known)

    def _values(self, weights: Weights) -> Weights:
        """Return the weighted means (B,) for weights (B, N)."""
        known_weights = weights[:, self.known]
        return divide(known_weights @ self.values[self.known], known_weights.sum(axis=1))


class Among(Statistic):
    """A statistic of some of the answers, such as those to a certain question.

    The other answers neither count nor are they undefined.

    Args:
        inner: Statistic of the chosen answers.
        rows: Indices of the chosen answers.
        size: Number of all answers.
    """

    def __init__(self, inner: Statistic, rows: Sequence[int], size: int) -> None:
        self.inner = inner
        self.rows = list(rows)
        self.size = size
        self.n = inner.n
        self.undefined = inner.undefined

    def _values(self, weights: Weights) -> Weights:
        """Return the inner values (B,) for weights (B, N) of all answers."""
        return self.inner(weights[:, self.rows])


def per_answer(statistic: Statistic) -> Values:
    """Return the value (N,) of each answer by itself, NaN where it has none.

    Args:
        statistic: Mean over all answers or among some.

    Raises:
        CmrvlmError: The statistic is no mean.
    """
    if isinstance(statistic, Among):
        values = np.full(statistic.size, np.nan)
        values[statistic.rows] = per_answer(statistic.inner)
        return values
    if not isinstance(statistic, Mean):
        raise CmrvlmError(
            f"{type(statistic).__name__} has no value for each answer",
            remedy="Name a mean over answers as the task's primary score.",
        )
    return statistic.values


class Ratio(Statistic):
    """Sum of a value over the sum of another, such as 2 TP over 2 TP + FP + FN.

    Args:
        numerators: Value of each answer above the line.
        denominators: Value of each answer below the line.
    """

    def __init__(
        self,
        numerators: OptionalValues,
        denominators: OptionalValues,
    ) -> None:
        self.numerators = as_values(numerators)
        self.denominators = as_values(denominators)
        self.size = len(self.numerators)
        self.n = self.size

    def _values(self, weights: Weights) -> Weights:
        """Return the ratios (B,) for weights (B, N)."""
        return divide(weights @ self.numerators, weights @ self.denominators)


class MeanOf(Statistic):
    """Mean over those of several statistics of the same answers that are defined.

    Args:
        members: The statistics, such as one for each class.
        extra_undefined: Classes that have no statistic at all.
    """

    def __init__(self, members: Sequence[Statistic], extra_undefined: int = 0) -> None:
        self.members = list(members)
        self.size = members[0].size if members else 0
        self.n = max((member.n for member in members), default=0)
        undefined_members = sum(member.value is None for member in members)
        self.undefined = undefined_members + extra_undefined

    def _values(self, weights: Weights) -> Weights:
        """Return the means (B,) for weights (B, N)."""
        if not self.members:
            return np.full(len(weights), np.nan)
        values = np.stack([member(weights) for member in self.members])  # (members, B)
        known = ~np.isnan(values)
        total = np.where(known, values, 0.0).sum(axis=0)
        count = known.sum(axis=0).astype(np.float64)
        return divide(total, count)


class Distribution(Statistic):
    """Spread of answers over classes: entropy in bits, or the share of the most frequent class.

    Args:
        answers: Class or text of each answer, None where there is none.
        measure: `entropy` or `top_share`.
    """

    def __init__(
        self, answers: Sequence[str | None], measure: Literal["entropy", "top_share"]
    ) -> None:
        classes = sorted({answer for answer in answers if answer is not None})
        column_of = {name: column for column, name in enumerate(classes)}
        self.member = np.zeros((len(answers), len(classes)))
        for row, answer in enumerate(answers):
            if answer is not None:
                self.member[row, column_of[answer]] = 1.0
        self.measure = measure
        self.size = len(answers)
        self.n = sum(answer is not None for answer in answers)
        self.undefined = self.size - self.n

    def _values(self, weights: Weights) -> Weights:
        """Return entropies or shares (B,) for weights (B, N)."""
        counts = weights @ self.member  # (B, classes)
        if counts.shape[1] == 0:
            return np.full(len(weights), np.nan)
        shares = divide(counts, counts.sum(axis=1, keepdims=True))
        if self.measure == "top_share":
            return np.asarray(shares.max(axis=1))
        # 0 log 0 is 0.
        logs = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
        entropy = -(shares * logs).sum(axis=1)
        # An entropy of -0 becomes 0.
        return np.asarray(np.abs(entropy))


class Ranking(Statistic):
    """Base of statistics over scores with a binary truth.

    Args:
        truth: True, False or None (unknown) of each answer.
        scores: Score of each answer, None where the model gave none.
    """

    def __init__(self, truth: Sequence[bool | None], scores: Sequence[float | None]) -> None:
        self.scores = as_values(scores)
        self.truth = as_values(truth)
        self.known = ~np.isnan(self.scores) & ~np.isnan(self.truth)
        self._count(self.known)


class Auroc(Ranking):
    """Area under the ROC curve: share of (positive, negative) pairs in the right order.

    Ties count one half. Mann and Whitney, Ann Math Stat 1947; Hanley and McNeil, Radiology 1982.
    """

    def _values(self, weights: Weights) -> Weights:
        """Return the areas (B,) for weights (B, N)."""
        truth = self.truth[self.known]
        known_weights = weights[:, self.known]
        if len(truth) == 0:
            return np.full(len(weights), np.nan)
        # Weights of positives and negatives at each of the S different scores, in rising order.
        levels, level = np.unique(self.scores[self.known], return_inverse=True)
        at_level = csr_array(
            (np.ones(len(level)), (np.arange(len(level)), level)), (len(level), len(levels))
        )
        positives = (known_weights * truth) @ at_level  # (B, S)
        negatives = (known_weights * (1 - truth)) @ at_level
        below = negatives.cumsum(axis=1) - negatives
        ordered_pairs = (positives * (below + 0.5 * negatives)).sum(axis=1)
        all_pairs = positives.sum(axis=1) * negatives.sum(axis=1)
        return divide(ordered_pairs, all_pairs)


class AveragePrecision(Ranking):
    """Area under the precision-recall curve: sum of precision times gain in recall.

    The definition of scikit-learn's `average_precision_score`.
    """

    def _values(self, weights: Weights) -> Weights:
        """Return the areas (B,) for weights (B, N)."""
        order = np.argsort(-self.scores[self.known], kind="stable")
        scores = self.scores[self.known][order]
        truth = self.truth[self.known][order]
        if len(scores) == 0:
            return np.full(len(weights), np.nan)

        sorted_weights = weights[:, self.known][:, order]
        # No threshold lies between equal scores: only the last of them is one.
        last_of_equal = np.append(scores[1:] != scores[:-1], True)
        true_positives = (sorted_weights * truth).cumsum(axis=1)[:, last_of_equal]
        predicted_positives = sorted_weights.cumsum(axis=1)[:, last_of_equal]
        precision = divide(true_positives, predicted_positives)
        gain = np.diff(true_positives, axis=1, prepend=0.0)
        area = np.nansum(precision * gain, axis=1)

        positives = true_positives[:, -1]
        if np.unique(truth).size < 2:
            # Without negatives every order is right: undefined, as for the ROC curve.
            positives = np.zeros_like(positives)
        return divide(area, positives)


class CalibrationError(Ranking):
    """Expected calibration error over equal bins of the probability (Naeini et al., AAAI 2015)."""

    bins = 10

    def _values(self, weights: Weights) -> Weights:
        """Return the errors (B,) for weights (B, N)."""
        scores = self.scores[self.known]
        gaps = scores - self.truth[self.known]
        bin_index = np.clip((scores * self.bins).astype(int), 0, self.bins - 1)
        in_bin = (bin_index[:, None] == np.arange(self.bins)).astype(np.float64)  # (K, bins)
        known_weights = weights[:, self.known]
        gap_of_bin = (known_weights * gaps) @ in_bin  # (B, bins)
        return divide(np.abs(gap_of_bin).sum(axis=1), known_weights.sum(axis=1))
