"""Agreement of measured with true numbers: what a Bland-Altman page shows, with correlation and ICC."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cmrvlm.metrics.statistic import Mean, Statistic, Weights, as_values, divide

LIMIT = (
    1.96  # limits of agreement: bias +- 1.96 SD of the differences (Bland and Altman, Lancet 1986)
)


class Agreement(Statistic):
    """A statistic of pairs by their weighted moments.

    Args:
        said: Predicted values, None where the answer holds none.
        truth: True values, None where unknown.
        kind: `lower_limit`, `upper_limit`, `pearson` or `icc`: two-way random, absolute agreement, single measurement,
            ICC(2,1) of Shrout and Fleiss, Psychol Bull 1979.
    """

    def __init__(
        self, said: Sequence[float | None], truth: Sequence[float | None], kind: str
    ) -> None:
        self.said, self.truth, self.kind = as_values(said), as_values(truth), kind
        self.known = ~(np.isnan(self.said) | np.isnan(self.truth))
        self.size = len(self.said)
        self.n, self.undefined = int(self.known.sum()), int((~self.known).sum())

    def _values(self, weights: Weights) -> Weights:
        own, x, y = weights[:, self.known], self.said[self.known], self.truth[self.known]
        count = own.sum(axis=1)
        many = np.where(count > 1, count, 0.0)

        def mean(values: Weights) -> Weights:
            return divide(own @ values, many)

        def product(a: Weights, b: Weights) -> Weights:
            """Sum of products of deviations, from centred values so that nothing cancels."""
            a, b = a - a.mean(), b - b.mean()
            return own @ (a * b) - mean(a) * mean(b) * count

        if not len(x):
            return np.full(len(weights), np.nan)
        if self.kind == "pearson":
            return divide(product(x, y), np.sqrt(np.clip(product(x, x) * product(y, y), 0, None)))
        if self.kind == "icc":
            subjects = 2 * divide(product((x + y) / 2, (x + y) / 2), many - 1)
            raters = count * (mean(x) - mean(y)) ** 2 / 2
            error = divide(product(x - y, x - y) / 2, many - 1)
            return divide(
                subjects - error, subjects + error + 2 * (raters - error) / np.maximum(count, 1)
            )
        spread = np.sqrt(np.clip(divide(product(x - y, x - y), many - 1), 0, None))
        return mean(x - y) + (LIMIT if self.kind == "upper_limit" else -LIMIT) * spread


def agreement_scores(
    said: Sequence[float | None], truth: Sequence[float | None], name: str
) -> dict[str, Statistic]:
    """Bias, limits of agreement, mean absolute error, Pearson and ICC of one measurement.

    Args:
        said: Predicted values, None where the answer holds none: undefined, and counted.
        truth: True values.
        name: Measurement with its unit, `lvef_percent`; the unit stays at the end of names that have it.
    """
    base, unit = name.rsplit("_", 1)
    pairs = list(zip(said, truth, strict=True))
    differences = [None if s is None or t is None else s - t for s, t in pairs]
    return {
        f"{base}_mae_{unit}": Mean([None if d is None else abs(d) for d in differences]),
        f"{base}_bias_{unit}": Mean(differences),
        f"{base}_lower_limit_{unit}": Agreement(said, truth, "lower_limit"),
        f"{base}_upper_limit_{unit}": Agreement(said, truth, "upper_limit"),
        f"{base}_pearson": Agreement(said, truth, "pearson"),
        f"{base}_icc": Agreement(said, truth, "icc"),
    }
