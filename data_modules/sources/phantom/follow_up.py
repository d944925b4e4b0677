"""Synthetic follow-up: events at a rate that depends on the heart, and censoring that does not."""

from __future__ import annotations

import numpy as np

from data_modules.sources.phantom.anatomy import Heart

# At an ejection fraction of 55 % and without scar.
BASE_RATE_PER_YEAR = 0.04

# Logarithm of the rate ratio for each point that an ejection fraction lies below 55 %.
LOG_RATE_PER_LVEF_POINT = 0.06
LOG_RATE_PER_RVEF_POINT = 0.02
SCAR_FACTOR = 2.5
CENSORING_MONTHS = (12.0, 90.0)


def event_rate_per_year(heart: Heart, values: dict[str, float]) -> float:
    """Compute the rate of the exponential time to an event.

    The numbers are invented, with the directions that follow-up studies report.

    Args:
        heart: The subject.
        values: Its measurements, ejection fractions in %.
    """
    lv_points = 55 - values["lvef_percent"]
    rv_points = 55 - values["rvef_percent"]
    log_rate = LOG_RATE_PER_LVEF_POINT * lv_points + LOG_RATE_PER_RVEF_POINT * rv_points
    rate = BASE_RATE_PER_YEAR * np.exp(log_rate)
    if heart.scars:
        rate = rate * SCAR_FACTOR
    return float(rate)


def sample_follow_up(
    heart: Heart, values: dict[str, float], rng: np.random.Generator
) -> dict[str, float]:
    """Draw the follow-up of a subject.

    Args:
        heart: The subject.
        values: Its measurements.
        rng: Source of randomness.

    Returns:
        `months` of follow-up, and `event`: 1 when they ended with one, 0 when they were censored.
    """
    event_months = 12 * float(rng.exponential(1 / event_rate_per_year(heart, values)))
    censored_months = float(rng.uniform(*CENSORING_MONTHS))
    return {
        "months": round(min(event_months, censored_months), 2),
        "event": float(event_months <= censored_months),
    }
