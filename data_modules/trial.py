"""Trials of a few steps on however few studies there are: does it run?"""

from __future__ import annotations

from collections.abc import Mapping


def shares_with_validation(
    shares: Mapping[str, float], patient_of: Mapping[str, str]
) -> dict[str, float]:
    """Return shares that leave at least one of several patients for validation.

    Args:
        shares: Share of the patients by part.
        patient_of: Patient by study.
    """
    patients = len(set(patient_of.values()))
    if patients < 2:
        return dict(shares)
    # Half a patient more than one: the last stratum's only patient may go to another part.
    least = 1.5 / patients
    return {**shares, "val": max(shares.get("val", 0.0), least)}
