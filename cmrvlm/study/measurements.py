"""Table of measurements: names, units, sequences that show them, and which a head reads out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.vocabulary import CINE


@dataclass(frozen=True)
class Measurement:
    """A number that reports state.

    Attributes:
        en: Name in English reports.
        zh: Name in Chinese reports.
        unit: Unit as written.
        finding: Finding of `cmrvlm.study.vocabulary.FINDINGS` that says whether it is abnormal.
        sequences: Sequences of which any shows it.
        typical: Centre of the usual values; it only scales the regression and is no normal value.
        spread: Half width of the usual values; it only scales the regression.
        plausible: Least and largest value of any patient; what lies outside is a mistake.
        synonyms: Other names that are read back from texts.
    """

    en: str
    zh: str
    unit: str
    finding: str
    sequences: tuple[str, ...]
    typical: float
    spread: float
    plausible: tuple[float, float]
    synonyms: tuple[str, ...] = ()

    def name(self, language: str) -> str:
        """Return the name in `language` (`en` or `zh`)."""
        return self.zh if language == "zh" else self.en


MEASUREMENTS: dict[str, Measurement] = {
    "lvedd_mm": Measurement("LVEDD", "左心室舒张末径", "mm", "lvedd", CINE, 52, 8, (10, 150)),
    "wall_thickness_mm": Measurement(
        "wall thickness", "室壁厚度", "mm", "wall_thickness", ("sax",), 9, 3, (1, 60)
    ),
    "rvedd_mm": Measurement("RVEDD", "右心室舒张末径", "mm", "rvedd", CINE, 33, 7, (5, 150)),
    "la_diameter_mm": Measurement(
        "LA", "左心房", "mm", "la_diameter", ("lax_4ch",), 42, 7, (5, 150), ("left atrium",)
    ),
    "ra_diameter_mm": Measurement(
        "RA", "右心房", "mm", "ra_diameter", ("lax_4ch",), 45, 7, (5, 150), ("right atrium",)
    ),
    "lvef_percent": Measurement(
        "LVEF",
        "左心室射血分数",
        "%",
        "lvef",
        ("sax",),
        52,
        15,
        (1, 100),
        ("left ventricular ejection fraction",),
    ),
    "lvedv_ml": Measurement(
        "LVEDV",
        "左心室舒张末容积",
        "ml",
        "lvedv",
        ("sax",),
        165,
        50,
        (5, 1000),
        ("left ventricular end-diastolic volume",),
    ),
    "lvesv_ml": Measurement(
        "LVESV",
        "左心室收缩末容积",
        "ml",
        "lvesv",
        ("sax",),
        80,
        50,
        (1, 1000),
        ("left ventricular end-systolic volume",),
    ),
    "rvef_percent": Measurement(
        "RVEF",
        "右心室射血分数",
        "%",
        "rvef",
        ("sax",),
        50,
        13,
        (1, 100),
        ("right ventricular ejection fraction",),
    ),
    "rvedv_ml": Measurement(
        "RVEDV",
        "右心室舒张末容积",
        "ml",
        "rvedv",
        ("sax",),
        170,
        45,
        (5, 1000),
        ("right ventricular end-diastolic volume",),
    ),
    "rvesv_ml": Measurement(
        "RVESV",
        "右心室收缩末容积",
        "ml",
        "rvesv",
        ("sax",),
        85,
        40,
        (1, 1000),
        ("right ventricular end-systolic volume",),
    ),
}
# Least number of short-axis slices for a volume: one or two do not show how long the ventricle is.
FEWEST_SLICES = 3
NEEDS_STACK = tuple(name for name in MEASUREMENTS if name.endswith(("_ml", "ef_percent")))
# End-systolic volume to the end-diastolic volume and the ejection fraction that it follows from.
DERIVED = {"lvesv_ml": ("lvedv_ml", "lvef_percent"), "rvesv_ml": ("rvedv_ml", "rvef_percent")}
# Measurements that a head reads out, in the order of its outputs.
READ_OUT = tuple(name for name in MEASUREMENTS if name not in DERIVED)
MACE_RISK = "mace_risk_percent"

# Other numbers of a patient: least and largest plausible value, and unit.
DEMOGRAPHICS: dict[str, tuple[float, float, str]] = {
    "age_years": (0, 120, "years"),
    "height_cm": (40, 250, "cm"),
    "weight_kg": (1, 400, "kg"),
}
FOLLOW_UP = "follow_up_months"
_LONGEST_FOLLOW_UP_MONTHS = 1200
# By unit: units that are mistaken for it, and how many of it each makes.
_MISTAKEN_UNITS: dict[str, tuple[tuple[str, float], ...]] = {
    "mm": (("centimetres", 10), ("metres", 1000), ("micrometres", 0.001)),
    "cm": (("metres", 100), ("millimetres", 0.1)),
    "kg": (("grams", 0.001),),
    "ml": (("litres", 1000), ("cubic millimetres", 0.001)),
    "%": (("a fraction", 100),),
}


def with_derived(values: Mapping[str, float]) -> dict[str, float]:
    """Add the end-systolic volumes that follow from read-out values: ESV = EDV (1 - EF / 100)."""
    result = dict(values)
    for name, (volume, fraction) in DERIVED.items():
        if volume in values and fraction in values:
            result[name] = values[volume] * (1 - values[fraction] / 100)
    return result


def plausible_range(name: str) -> tuple[float, float, str]:
    """Return the least and the largest plausible value of a quantity, and its unit.

    Args:
        name: Name of a measurement, of `DEMOGRAPHICS`, or `follow_up_months`.
    """
    if name in DEMOGRAPHICS:
        return DEMOGRAPHICS[name]
    if name == FOLLOW_UP:
        return 0, _LONGEST_FOLLOW_UP_MONTHS, "months"
    measurement = MEASUREMENTS[name]
    return *measurement.plausible, measurement.unit


def check_plausible(name: str, value: float, field: str | None = None) -> None:
    """Refuse a number that no patient has; it is mostly written in another unit.

    Args:
        name: Name of a measurement, of `DEMOGRAPHICS`, or `follow_up_months`.
        value: The number.
        field: Where it stands, for the error message; the name where it is None.

    Raises:
        CmrvlmError: It lies outside the plausible range, or is not finite.
    """
    low, high, unit = plausible_range(name)
    if low <= value <= high:
        return
    remedy = "Correct it, or leave it blank when it is unknown."
    for other, factor in _MISTAKEN_UNITS.get(unit, ()):
        if low <= value * factor <= high:
            remedy = f"It looks like {other}: write {value * factor:g} {unit}."
            break
    raise CmrvlmError(
        f"{value:g} is outside the plausible range of {low:g} to {high:g} {unit}",
        field=field or name,
        remedy=remedy,
    )


def check_volumes(values: Mapping[str, float], fields: Mapping[str, str] | None = None) -> None:
    """Refuse a ventricle that is not larger at end-diastole than at end-systole.

    Args:
        values: Measurements by name, some of them volumes in ml.
        fields: Where a measurement stands by its name, for the error message; its name elsewhere.

    Raises:
        CmrvlmError: There is such a ventricle; the field is that of its end-systolic volume.
    """
    for name, (diastole, _) in DERIVED.items():
        if name not in values or diastole not in values or values[name] < values[diastole]:
            continue
        raise CmrvlmError(
            f"{values[name]:g} ml at end-systole are not less than {diastole} of "
            f"{values[diastole]:g} ml",
            field=(fields or {}).get(name, name),
            remedy="They may be swapped: correct them, or leave them blank when they are unknown.",
        )


def known_numbers(values: Mapping[str, float | None]) -> dict[str, float]:
    """Return the known numbers: tables write unknown ones as NaN, and JSON files as null."""
    return {
        name: value for name, value in values.items() if value is not None and not math.isnan(value)
    }
