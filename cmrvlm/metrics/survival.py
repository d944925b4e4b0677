"""Scores of risks under censoring."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cmrvlm.metrics.statistic import Mean, Statistic, Values, Weights, divide


class Concordance(Statistic):
    """Harrell's C-index: share of comparable pairs in which the earlier event has the higher risk, ties one half.

    A pair is comparable when the earlier of the two times is an event (Harrell et al., Stat Med 1996).

    Args:
        months: Time of each subject.
        events: Whether it ended with an event.
        risks: Risk, None where the model gave none.
    """

    def __init__(
        self, months: Sequence[float], events: Sequence[bool], risks: Sequence[float | None]
    ) -> None:
        time, event = np.asarray(months, dtype=np.float64), np.asarray(events, dtype=bool)
        risk = np.array([np.nan if r is None else r for r in risks], dtype=np.float64)
        known = ~np.isnan(risk)
        later = (time[:, None] < time[None]) | ((time[:, None] == time[None]) & ~event[None])
        comparable = event[:, None] & later & known[:, None] & known[None]
        right = (risk[:, None] > risk[None]) + 0.5 * (risk[:, None] == risk[None])
        self.comparable = comparable.astype(np.float64)
        self.right = np.where(comparable, right, 0.0)
        self.size = len(time)
        self.n, self.undefined = int(known.sum()), int((~known).sum())

    def _values(self, weights: Weights) -> Weights:
        return divide(
            ((weights @ self.right) * weights).sum(axis=1),
            ((weights @ self.comparable) * weights).sum(axis=1),
        )


def censoring_survival(months: Values, events: Values, at: Values) -> Values:
    """Kaplan-Meier estimate of the probability to be uncensored just before each of the times `at`."""
    result = np.ones(len(at))
    for time in np.unique(months[events == 0]):
        at_risk = ((months > time) | ((months == time) & (events == 0))).sum()
        censored = ((months == time) & (events == 0)).sum()
        result = np.where(at > time, result * (1 - censored / at_risk), result)
    return result


def brier_at(
    months: Sequence[float],
    events: Sequence[bool],
    risks: Sequence[float | None],
    horizon_months: float,
) -> Statistic:
    """Brier score of the risk until a horizon, with inverse probability of censoring weights.

    Graf et al., Stat Med 1999. The censoring weights are those of the whole set in resamples too.

    Args:
        months: Time of each subject.
        events: Whether it ended with an event.
        risks: Probability of an event until the horizon, None where the model gave none.
        horizon_months: The horizon.
    """
    time, event = np.asarray(months, dtype=np.float64), np.asarray(events, dtype=np.float64)
    until = censoring_survival(time, event, time)
    beyond = censoring_survival(time, event, np.array([horizon_months]))[0]
    values: list[float | None] = []
    for row, risk in enumerate(risks):
        if risk is None:
            values.append(None)
        elif time[row] <= horizon_months and event[row]:
            values.append((1 - risk) ** 2 / until[row])
        elif time[row] > horizon_months:
            values.append(risk**2 / beyond if beyond > 0 else None)
        else:
            values.append(0.0)
    return Mean(values)
