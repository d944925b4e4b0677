"""Synthetic follow-up: events at a rate that depends on the heart, and censoring that does not."""

from __future__ import annotations

import numpy as np

from data_modules.sources.phantom.anatomy import Heart

BASE_RATE_PER_YEAR = 0.04  # at an ejection fraction of 55 % without scar
RATE_PER_EF_POINT = 0.06  # log rate for each point below
SCAR_FACTOR = 2.5
RATE_PER_RVEF_POINT = 0.02
CENSORING_MONTHS = (12.0, 90.0)


def event_rate_per_year(heart: Heart, values: dict[str, float]) -> float:
    """Rate of the exponential time to an event. Invented, with the directions that follow-up studies report."""
    lv, rv = 55 - values["lvef_percent"], 55 - values["rvef_percent"]
    log_rate = RATE_PER_EF_POINT * lv + RATE_PER_RVEF_POINT * rv
    return float(BASE_RATE_PER_YEAR * np.exp(log_rate) * (SCAR_FACTOR if heart.scars else 1.0))


def follow_up(heart: Heart, values: dict[str, float], rng: np.random.Generator) -> dict[str, float]:
    """`months` of follow-up, and `event` 1 when they ended with one."""
    event_months = 12 * float(rng.exponential(1 / event_rate_per_year(heart, values)))
    censored_months = float(rng.uniform(*CENSORING_MONTHS))
    return {
        "months": round(min(event_months, censored_months), 2),
        "event": float(event_months <= censored_months),
    }
