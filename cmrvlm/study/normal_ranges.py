"""Normal ranges of adult cardiac measurements by sex.

Volumes and ejection fractions: Kawel-Boehm et al., Normal values for cardiovascular magnetic
resonance in adults and children, JCMR 2015;17:29, bSSFP in adults; the limits are mean +- 2 SD as
published. Its 2020 update (JCMR 2020;22:87) pools more studies and the 2025 update adds to it;
replace the table below to use those, nothing else depends on the numbers. The left ventricular
limits were checked against quotations of the paper, the right ventricular ones were not. Diameters
and wall thickness are the conventional upper limits of clinical reading (wall: > 12 mm in men and >
11 mm in women); they are cut-offs, not percentiles of a cohort.
"""

from __future__ import annotations

# Measurement to sex to lower and upper limit; None where there is no limit.
NORMAL_RANGES: dict[str, dict[str, tuple[float | None, float | None]]] = {
    "lvedv_ml": {"m": (106.0, 214.0), "f": (86.0, 178.0)},
    "lvesv_ml": {"m": (26.0, 82.0), "f": (22.0, 66.0)},
    "lvef_percent": {"m": (57.0, 77.0), "f": (57.0, 77.0)},
    "rvedv_ml": {"m": (118.0, 250.0), "f": (77.0, 201.0)},
    "rvesv_ml": {"m": (41.0, 117.0), "f": (24.0, 84.0)},
    "rvef_percent": {"m": (52.0, 72.0), "f": (51.0, 71.0)},
    "lvedd_mm": {"m": (42.0, 61.0), "f": (38.0, 56.0)},
    "rvedd_mm": {"m": (None, 50.0), "f": (None, 45.0)},
    "la_diameter_mm": {"m": (None, 45.0), "f": (None, 43.0)},
    "ra_diameter_mm": {"m": (None, 50.0), "f": (None, 48.0)},
    "wall_thickness_mm": {"m": (None, 12.0), "f": (None, 11.0)},
}
_LOWER_IS_ABNORMAL = ("lvef_percent", "rvef_percent")


def outside_normal(measurement: str, value: float, sex: str) -> bool:
    """Return whether a value is abnormal: too low for ejection fractions, else too high.

    Raises:
        KeyError: No range is known for the measurement or sex.
    """
    lower, upper = NORMAL_RANGES[measurement][sex]
    if measurement in _LOWER_IS_ABNORMAL:
        return lower is not None and value < lower
    return upper is not None and value > upper
