"""Define the read-outs: vectors that a head reads from the images, one record for each.

A new read-out is a new record in `READ_OUTS`; heads, losses, teaching and predictions follow from it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmrvlm.study.evidence import Evidence
from cmrvlm.study.measurements import (
    FEWEST_SLICES,
    MACE_RISK,
    MEASUREMENTS,
    NEEDS_STACK,
    READ_OUT,
    with_derived,
)
from cmrvlm.study.study import StudyLabels
from cmrvlm.study.vocabulary import DISEASES, FINDINGS

# Ends of the intervals of the discrete-time hazard.
SURVIVAL_EDGES_MONTHS = (12.0, 24.0, 36.0, 48.0, 60.0)
Vector = NDArray[np.float32]
Names = tuple[Mapping[str, str], ...]
_TYPICAL = np.array([MEASUREMENTS[name].typical for name in READ_OUT], dtype=np.float32)
_SPREAD = np.array([MEASUREMENTS[name].spread for name in READ_OUT], dtype=np.float32)


@dataclass(frozen=True)
class ReadOutRecord:
    """One read-out of a study.

    Attributes:
        name: Name in configurations, losses and results.
        value_names: For each of its values the name by language; the model tells it to the language model.
        target: Returns the target vector (size,) of a study's labels, NaN where unknown.
        is_probability: Values are probabilities, trained as logits; else they are standardised numbers.
        one_of_many: Hardly any class is present, which is where training begins.
        quoted: Returns numbers that texts may quote, by name, from the values (size,); none for NaN.
    """

    name: str
    value_names: Names
    target: Callable[[StudyLabels], Vector]
    is_probability: bool = True
    one_of_many: bool = False
    quoted: Callable[[Vector], dict[str, float]] | None = None

    @property
    def size(self) -> int:
        """Number of values."""
        return len(self.value_names)


def disease_vector(diseases: Collection[str]) -> Vector:
    """Return a vector (16,) with 1 for each class that is present, in the order of `DISEASES`."""
    return np.array([float(code in diseases) for code in DISEASES], dtype=np.float32)


def hazard_vector(months: float, event: bool) -> Vector:
    """Return the target (5,) of the discrete-time hazard.

    It is 0 for an interval survived, 1 for that of the event, and NaN where the patient was not at risk.
    An interval in which follow-up ends without an event is NaN: whether it would have been survived is
    unknown (Gensheimer and Narasimhan, PeerJ 2019;7:e6257).

    Args:
        months: Length of follow-up.
        event: Follow-up ended with an event.
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


def risk_of(hazards: Vector) -> float:
    """Return the probability of an event until the last edge.

    Args:
        hazards: (intervals,) probability of an event in each interval for who reached it.
    """
    return float(1 - np.prod(1 - hazards.astype(np.float64)))


def measurements_of(standardised: Vector) -> dict[str, float]:
    """Return measurements in their units from the read-out, derived ones included; none for NaN.

    Args:
        standardised: (measurements,) in the order of `READ_OUT`.
    """
    values = standardised * _SPREAD + _TYPICAL
    known = {
        name: float(value)
        for name, value in zip(READ_OUT, values, strict=True)
        if not np.isnan(value)
    }
    return with_derived(known)


def _unknown(size: int) -> Vector:
    return np.full(size, np.nan, dtype=np.float32)


def _disease_target(labels: StudyLabels) -> Vector:
    if labels.diseases is None:
        return _unknown(len(DISEASES))
    return disease_vector(labels.diseases)


def _findings_target(labels: StudyLabels) -> Vector:
    stated = [labels.findings.get(code) for code in FINDINGS]
    return np.array([np.nan if flag is None else float(flag) for flag in stated], dtype=np.float32)


def _measurements_target(labels: StudyLabels) -> Vector:
    values = [labels.measurements.get(name, np.nan) for name in READ_OUT]
    standardised: Vector = (np.array(values, dtype=np.float32) - _TYPICAL) / _SPREAD
    return standardised


def _hazard_target(labels: StudyLabels) -> Vector:
    if not labels.follow_up:
        return _unknown(len(SURVIVAL_EDGES_MONTHS))
    return hazard_vector(labels.follow_up["months"], bool(labels.follow_up["event"]))


def _quoted_risk(hazards: Vector) -> dict[str, float]:
    return {MACE_RISK: 100 * risk_of(hazards)}


READ_OUTS: dict[str, ReadOutRecord] = {
    record.name: record
    for record in (
        ReadOutRecord(
            name="disease",
            value_names=tuple({"en": term.en, "zh": term.zh} for term in DISEASES.values()),
            target=_disease_target,
            one_of_many=True,
        ),
        ReadOutRecord(
            name="findings",
            value_names=tuple({"en": term.en, "zh": term.zh} for term in FINDINGS.values()),
            target=_findings_target,
        ),
        ReadOutRecord(
            name="measurements",
            value_names=tuple(
                {"en": MEASUREMENTS[name].en, "zh": MEASUREMENTS[name].zh} for name in READ_OUT
            ),
            target=_measurements_target,
            is_probability=False,
            quoted=measurements_of,
        ),
        ReadOutRecord(
            name="hazard",
            value_names=tuple(
                {"en": f"risk after {end:.0f} months", "zh": f"{end:.0f}个月的风险"}
                for end in SURVIVAL_EDGES_MONTHS
            ),
            target=_hazard_target,
            quoted=_quoted_risk,
        ),
    )
}


def study_targets(labels: StudyLabels) -> dict[str, Vector]:
    """Return the target vector (size,) of each read-out, NaN where the labels do not state it."""
    return {name: record.target(labels) for name, record in READ_OUTS.items()}


def quoted_values(values: Mapping[str, Vector]) -> dict[str, float]:
    """Return the numbers that texts may quote, by name.

    Args:
        values: Read-out to its values (size,).
    """
    quoted: dict[str, float] = {}
    for name, vector in values.items():
        record = READ_OUTS[name]
        if record.quoted is not None:
            quoted |= record.quoted(vector)
    return quoted


def without_unshown(values: Mapping[str, Vector], evidence: Evidence) -> dict[str, Vector]:
    """Return read-outs with NaN for the measurements that the shown series cannot show.

    Args:
        values: Read-out to its values (size,).
        evidence: What is shown.
    """
    kept = dict(values)
    if "measurements" in kept:
        unshown = [not evidence.shows(name) for name in READ_OUT]
        kept["measurements"] = np.where(unshown, np.float32(np.nan), kept["measurements"])
    return kept


def without_volumes(values: Mapping[str, Vector], slices: int) -> dict[str, Vector]:
    """Return read-outs with NaN for volumes and ejection fractions that too few slices cannot give.

    Args:
        values: Read-out to its values (size,).
        slices: Slices of the short-axis stack, 0 without one.
    """
    kept = dict(values)
    if "measurements" in kept and slices < FEWEST_SLICES:
        needs_stack = [name in NEEDS_STACK for name in READ_OUT]
        kept["measurements"] = np.where(needs_stack, np.float32(np.nan), kept["measurements"])
    return kept
