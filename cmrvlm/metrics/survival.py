"""Scores of predicted risks under censoring."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cmrvlm.metrics.statistic import Mean, Statistic, Values, Weights, as_values, divide

# Events whose pairs are compared at once: a table of all pairs of 10,000 patients takes 800 MB.
_EVENTS_AT_ONCE = 256


class Concordance(Statistic):
    """Harrell's C-index: share of comparable pairs in which the earlier event has the higher risk.

    A pair is comparable when the earlier of the two times is an event; ties of the risk count one
    half (Harrell et al., Stat Med 1996).

    Args:
        months: Time of each subject.
        events: True where it ended with an event, False where it was censored.
        risks: Risk, None where the model gave none.
    """

    def __init__(
        self, months: Sequence[float], events: Sequence[bool], risks: Sequence[float | None]
    ) -> None:
        time = np.asarray(months, dtype=np.float64)
        event = np.asarray(events, dtype=bool)
        risk = as_values(risks)
        known = ~np.isnan(risk)

        self.time = time[known]
        self.event = event[known]
        self.risk = risk[known]
        self.known = known
        self._count(known)

    def _values(self, weights: Weights) -> Weights:
        """Return the C-indices (B,) for weights (B, N)."""
        weights = weights[:, self.known]
        concordant = np.zeros(len(weights))
        comparable = np.zeros(len(weights))
        events = np.flatnonzero(self.event)
        for start in range(0, len(events), _EVENTS_AT_ONCE):
            # Rows are the earlier subject of a pair, columns the later one.
            earlier = events[start : start + _EVENTS_AT_ONCE]
            time = self.time[earlier, None]
            later = (time < self.time) | ((time == self.time) & ~self.event)
            risk = self.risk[earlier, None]
            in_order = later * ((risk > self.risk) + 0.5 * (risk == self.risk))
            concordant += ((weights[:, earlier] @ in_order) * weights).sum(axis=1)
            comparable += ((weights[:, earlier] @ later) * weights).sum(axis=1)
        return divide(concordant, comparable)


def censoring_survival(months: Values, events: Values, query_months: Values) -> Values:
    """Estimate the probability to be uncensored just before given times (Kaplan-Meier).

    Args:
        months: (N,) time of each subject.
        events: (N,) 1 for an event, 0 for censoring.
        query_months: (Q,) times to estimate for.

    Returns:
        (Q,) probabilities.
    """
    survival = np.ones(len(query_months))
    for time in np.unique(months[events == 0]):
        censored_now = (months == time) & (events == 0)
        at_risk = ((months > time) | censored_now).sum()
        remaining = 1 - censored_now.sum() / at_risk
        survival = np.where(query_months > time, survival * remaining, survival)
    return survival


def brier_at(
    months: Sequence[float],
    events: Sequence[bool],
    risks: Sequence[float | None],
    horizon_months: float,
) -> Statistic:
    """Return the Brier score of the risk until a horizon, weighted for censoring.

    Inverse probability of censoring weights, Graf et al., Stat Med 1999. In resamples they are
    those of the whole set too. Whoever was followed without an event until the horizon itself
    survived it.

    Args:
        months: Time of each subject.
        events: True where it ended with an event, False where it was censored.
        risks: Probability of an event until the horizon, None where the model gave none.
        horizon_months: The horizon.
    """
    time = np.asarray(months, dtype=np.float64)
    event = np.asarray(events, dtype=np.float64)
    uncensored = censoring_survival(time, event, time)
    uncensored_at_horizon = censoring_survival(time, event, np.array([horizon_months]))[0]
    values: list[float | None] = []
    for subject, risk in enumerate(risks):
        follow_up = time[subject]
        is_censored_now = follow_up == horizon_months and not event[subject]
        beyond = follow_up > horizon_months or is_censored_now
        if risk is None:
            values.append(None)
        elif beyond and uncensored_at_horizon > 0:
            values.append(risk**2 / uncensored_at_horizon)
        elif beyond:
            values.append(None)
        elif event[subject]:
            values.append((1 - risk) ** 2 / uncensored[subject])
        else:
            # Censored before the horizon: the others' weights stand for it.
            values.append(0.0)
    return Mean(values)
