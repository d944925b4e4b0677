"""Numbers in texts: written, quoted by a mark that a read-out fills, and read back."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from cmrvlm.study.measurements import MACE_RISK, MEASUREMENTS, Measurement

QUOTABLE = (*MEASUREMENTS, MACE_RISK)
_QUOTE = re.compile("<(" + "|".join(QUOTABLE) + ")>")

# What stands in a text for a number that is not known.
UNKNOWN = {"en": "unknown", "zh": "未知"}
# A function that writes the value of a measurement, given the measurement's name and the value.
NumberWriter = Callable[[str, float], str]


def quote(name: str) -> str:
    """Return the mark that stands in a text for a number that a head reads out."""
    return f"<{name}>"


def has_quotes(text: str) -> bool:
    """Return whether a text has marks for numbers."""
    return bool(_QUOTE.search(text))


def fill_quotes(text: str, values: Mapping[str, float], language: str) -> str:
    """Return the text with whole numbers for its marks, and "unknown" for missing ones."""

    def number(match: re.Match[str]) -> str:
        value = values.get(match[1])
        if value is not None:
            return f"{value:.0f}"
        return UNKNOWN[language]

    return _QUOTE.sub(number, text)


def plain_number(name: str, value: float) -> str:
    """Return a measured value as a whole number."""
    return f"{value:.0f}"


def quoted_number(name: str, value: float) -> str:
    """Return the mark of a value in place of the value."""
    return quote(name)


def numbers_stated(text: str) -> dict[str, float]:
    """Read measurements back from a text in either language.

    A measurement is stated by a name that a number with its unit follows in the same clause.

    Returns:
        Name of the measurement to its value.
    """
    stated = {}
    for name, measurement in MEASUREMENTS.items():
        match = re.search(_pattern_of(measurement), text)
        if match:
            stated[name] = float(match[1])
    return stated


def _pattern_of(measurement: Measurement) -> str:
    """Return a regular expression for a measurement in a text, whose first group is the number."""
    names = (measurement.en, measurement.zh, *measurement.synonyms)
    any_name = "|".join(re.escape(name) for name in names)
    unit = re.escape(measurement.unit)
    return rf"(?<![A-Za-z])(?:{any_name})[^;；。,，\d]{{0,40}}?(-?\d+(?:\.\d+)?)\s*{unit}"
