"""Table of measurements: names, units, sequences that show them, and which a head reads out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

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
        synonyms: Other names that are read back from texts.
    """

    en: str
    zh: str
    unit: str
    finding: str
    sequences: tuple[str, ...]
    typical: float
    spread: float
    synonyms: tuple[str, ...] = ()

    def name(self, language: str) -> str:
        """Return the name in `language` (`en` or `zh`)."""
        return self.zh if language == "zh" else self.en


MEASUREMENTS: dict[str, Measurement] = {
    "lvedd_mm": Measurement("LVEDD", "左心室舒张末径", "mm", "lvedd", CINE, 52, 8),
    "wall_thickness_mm": Measurement(
        "wall thickness", "室壁厚度", "mm", "wall_thickness", ("sax",), 9, 3
    ),
    "rvedd_mm": Measurement("RVEDD", "右心室舒张末径", "mm", "rvedd", CINE, 33, 7),
    "la_diameter_mm": Measurement(
        "LA", "左心房", "mm", "la_diameter", ("lax_4ch",), 42, 7, ("left atrium",)
    ),
    "ra_diameter_mm": Measurement(
        "RA", "右心房", "mm", "ra_diameter", ("lax_4ch",), 45, 7, ("right atrium",)
    ),
    "lvef_percent": Measurement(
        "LVEF",
        "左心室射血分数",
        "%",
        "lvef",
        ("sax",),
        52,
        15,
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


def with_derived(values: Mapping[str, float]) -> dict[str, float]:
    """Add the end-systolic volumes that follow from read-out values: ESV = EDV (1 - EF / 100)."""
    result = dict(values)
    for name, (volume, fraction) in DERIVED.items():
        if volume in values and fraction in values:
            result[name] = values[volume] * (1 - values[fraction] / 100)
    return result


def known_numbers(values: Mapping[str, float | None]) -> dict[str, float]:
    """Return the known numbers: tables write unknown ones as NaN, and JSON files as null."""
    return {
        name: value for name, value in values.items() if value is not None and not math.isnan(value)
    }
