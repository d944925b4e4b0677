"""What the read-out heads are trained on: vectors that belong to a study, NaN where nothing is known."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from cmrvlm.study.measurements import MEASUREMENTS, NEEDS_STACK, READ_OUT, with_derived
from cmrvlm.study.study import StudyLabels
from cmrvlm.study.vocabulary import DISEASES, FINDINGS

SURVIVAL_EDGES_MONTHS = (
    12.0,
    24.0,
    36.0,
    48.0,
    60.0,
)  # ends of the intervals of the discrete-time hazard
# Output to the name of each of its values, by language.
TARGET_NAMES: dict[str, list[dict[str, str]]] = {
    "disease": [{"en": term.en, "zh": term.zh} for term in DISEASES.values()],
    "findings": [{"en": term.en, "zh": term.zh} for term in FINDINGS.values()],
    "measurements": [
        {"en": MEASUREMENTS[name].en, "zh": MEASUREMENTS[name].zh} for name in READ_OUT
    ],
    "hazard": [
        {"en": f"risk after {end:.0f} months", "zh": f"{end:.0f}个月的风险"}
        for end in SURVIVAL_EDGES_MONTHS
    ],
}
TARGET_SIZES = {output: len(names) for output, names in TARGET_NAMES.items()}
Vector = NDArray[np.float32]
_TYPICAL = np.array([MEASUREMENTS[name].typical for name in READ_OUT], dtype=np.float32)
_SPREAD = np.array([MEASUREMENTS[name].spread for name in READ_OUT], dtype=np.float32)


def disease_vector(diseases: Collection[str]) -> Vector:
    """1 for each class that is present, in the order of `DISEASES`."""
    return np.array([float(code in diseases) for code in DISEASES], dtype=np.float32)


def hazard_vector(months: float, event: bool) -> Vector:
    """Discrete-time survival target: 0 for an interval survived, 1 for that of the event, NaN where not at risk.

    An interval in which follow-up ends without an event is NaN: whether it would have been survived is unknown
    (Gensheimer and Narasimhan, PeerJ 2019;7:e6257).
    """
    vector = np.full(len(SURVIVAL_EDGES_MONTHS), np.nan, dtype=np.float32)
    start = 0.0
    for index, end in enumerate(SURVIVAL_EDGES_MONTHS):
        if months >= end:
            vector[index] = 0.0
        elif event and start <= months < end:
            vector[index] = 1.0
        start = end
    return vector


def study_targets(labels: StudyLabels) -> dict[str, Vector]:
    """All target vectors of a study."""

    def unknown(name: str) -> Vector:
        return np.full(TARGET_SIZES[name], np.nan, dtype=np.float32)

    stated = [labels.findings.get(code) for code in FINDINGS]
    values = np.array(
        [labels.measurements.get(name, np.nan) for name in READ_OUT], dtype=np.float32
    )
    follow_up = labels.follow_up
    return {
        "disease": unknown("disease")
        if labels.diseases is None
        else disease_vector(labels.diseases),
        "findings": np.array(
            [np.nan if one is None else float(one) for one in stated], dtype=np.float32
        ),
        "measurements": (values - _TYPICAL) / _SPREAD,
        "hazard": unknown("hazard")
        if not follow_up
        else hazard_vector(follow_up["months"], bool(follow_up["event"])),
    }


def measurements_of(standardised: Vector) -> dict[str, float]:
    """Measurements with their units from the standardised read-out, derived ones included; none for NaN."""
    values = standardised * _SPREAD + _TYPICAL
    return with_derived(
        {
            name: float(value)
            for name, value in zip(READ_OUT, values, strict=True)
            if not np.isnan(value)
        }
    )


def without_volumes(standardised: Vector) -> Vector:
    """The standardised read-out with NaN for what needs a stack of slices: volumes and ejection fractions."""
    return np.where([name in NEEDS_STACK for name in READ_OUT], np.float32(np.nan), standardised)


def risk_of(hazards: Vector) -> float:
    """Probability of an event until the last edge from the hazards (probabilities) of the intervals."""
    return float(1 - np.prod(1 - hazards.astype(np.float64)))
