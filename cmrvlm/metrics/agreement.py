"""Agreement of predicted with true numbers: Bland-Altman limits, correlation and ICC."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from cmrvlm.metrics.statistic import (
    Mean,
    OptionalValues,
    Statistic,
    Values,
    Weights,
    as_values,
    divide,
)

# Limits of agreement: bias +- 1.96 SD of the differences (Bland and Altman, Lancet 1986).
LIMIT = 1.96
# Share of a sum of products that rounding may leave.
_ROUNDING = 1e-12


class PairStatistic(Statistic):
    """Base of statistics of (predicted, true) pairs by their weighted moments.

    Args:
        predicted: Predicted values, None where the answer holds none.
        truth: True values, None where unknown.
    """

    def __init__(self, predicted: OptionalValues, truth: OptionalValues) -> None:
        predictions = as_values(predicted)
        truths = as_values(truth)
        self.known = ~np.isnan(predictions) & ~np.isnan(truths)
        self.predicted = predictions[self.known]
        self.truth = truths[self.known]
        self._count(self.known)

    def _values(self, weights: Weights) -> Weights:
        """Return the values (B,) for weights (B, N)."""
        if self.n == 0:
            return np.full(len(weights), np.nan)
        return self._of_pairs(_Moments(weights[:, self.known]))

    @abstractmethod
    def _of_pairs(self, moments: _Moments) -> Weights:
        """Return the values (B,) from the weighted moments of the K known pairs."""


class _Moments:
    """Weighted means and sums of products of deviations, for B resamples at once.

    Args:
        weights: (B, K).
    """

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.count = weights.sum(axis=1)  # (B,)
        # A single pair has no spread: with 0 its mean is undefined, and all that follows.
        self.count_of_many = np.where(self.count > 1, self.count, 0.0)
        self.degrees_of_freedom = self.count_of_many - 1

    def mean(self, values: Values) -> Weights:
        """Return the weighted means (B,) of values (K,)."""
        return divide(self.weights @ values, self.count_of_many)

    def product(self, first: Values, second: Values) -> Weights:
        """Return the weighted sums (B,) of products of deviations of two times (K,) values."""
        # Centred first, so that nothing cancels.
        first = first - first.mean()
        second = second - second.mean()
        means = self.mean(first) * self.mean(second)
        products = self.weights @ (first * second) - means * self.count
        # What rounding leaves of pairs that are all the same is no spread.
        rounding = _ROUNDING * (self.weights @ np.abs(first * second))
        return np.where(np.abs(products) <= rounding, 0.0, products)


class LimitOfAgreement(PairStatistic):
    """Bland-Altman limit: bias plus a multiple of the standard deviation of the differences.

    Args:
        predicted: Predicted values, None where the answer holds none.
        truth: True values, None where unknown.
        sds: Multiple of the standard deviation, negative for the lower limit.
    """

    def __init__(self, predicted: OptionalValues, truth: OptionalValues, sds: float) -> None:
        super().__init__(predicted, truth)
        self.sds = sds

    def _of_pairs(self, moments: _Moments) -> Weights:
        """Return the limits (B,)."""
        differences = self.predicted - self.truth
        squares = moments.product(differences, differences)
        variance = divide(squares, moments.degrees_of_freedom)
        return moments.mean(differences) + self.sds * np.sqrt(np.clip(variance, 0, None))


class Pearson(PairStatistic):
    """Pearson's correlation coefficient."""

    def _of_pairs(self, moments: _Moments) -> Weights:
        """Return the coefficients (B,)."""
        squares_predicted = moments.product(self.predicted, self.predicted)
        squares_truth = moments.product(self.truth, self.truth)
        scale = np.sqrt(np.clip(squares_predicted * squares_truth, 0, None))
        return divide(moments.product(self.predicted, self.truth), scale)


class IntraclassCorrelation(PairStatistic):
    """Intraclass correlation: two-way random, absolute agreement, single measurement.

    ICC(2,1) of Shrout and Fleiss, Psychol Bull 1979, with prediction and truth as the two raters.
    """

    def _of_pairs(self, moments: _Moments) -> Weights:
        """Return the coefficients (B,) from mean squares of subjects, raters and error."""
        averages = (self.predicted + self.truth) / 2
        differences = self.predicted - self.truth
        freedom = moments.degrees_of_freedom
        subjects = 2 * divide(moments.product(averages, averages), freedom)
        gap = moments.mean(self.predicted) - moments.mean(self.truth)
        raters = moments.count * gap**2 / 2
        error = divide(moments.product(differences, differences) / 2, freedom)
        rater_share = 2 * (raters - error) / np.maximum(moments.count, 1)
        return divide(subjects - error, subjects + error + rater_share)


def agreement_scores(
    predicted: Sequence[float | None], truth: Sequence[float | None], name: str
) -> dict[str, Statistic]:
    """Return bias, limits of agreement, mean absolute error, Pearson and ICC of a measurement.

    Args:
        predicted: Predicted values, None where the answer holds none: undefined, and counted.
        truth: True values, None where unknown.
        name: Measurement with its unit, `lvef_percent`; the unit stays at the end of the names of
            scores that have it.
    """
    base, unit = name.rsplit("_", 1)
    differences: list[float | None] = []
    absolute: list[float | None] = []
    for prediction, true_value in zip(predicted, truth, strict=True):
        if prediction is None or true_value is None:
            differences.append(None)
            absolute.append(None)
        else:
            differences.append(prediction - true_value)
            absolute.append(abs(prediction - true_value))
    return {
        f"{base}_mae_{unit}": Mean(absolute),
        f"{base}_bias_{unit}": Mean(differences),
        f"{base}_lower_limit_{unit}": LimitOfAgreement(predicted, truth, -LIMIT),
        f"{base}_upper_limit_{unit}": LimitOfAgreement(predicted, truth, LIMIT),
        f"{base}_pearson": Pearson(predicted, truth),
        f"{base}_icc": IntraclassCorrelation(predicted, truth),
    }
