"""Numbers as people write them in tables: unknown ones, decimal commas, impossible values."""

from __future__ import annotations

import math
import re

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.measurements import check_plausible, plausible_range

# How tables and programs write that a value is unknown, in lower case.
UNKNOWN = frozenset(
    (
        "nan",
        "-nan",
        "+nan",
        "nan()",
        "1.#qnan",
        "1.#ind",
        "-1.#ind",
        "nat",
        "na",
        "n/a",
        "n.a.",
        "n.a",
        "#n/a",
        "<na>",
        "n/k",
        "nk",
        "nd",
        "n.d.",
        "null",
        "none",
        "unknown",
        "missing",
        "undefined",
        "-",
        "--",
        "---",
        "–",
        "—",
        ".",
        "..",
        "未知",
        "不详",
        "缺失",
        "未测",
        "无数据",
        "not available",
        "not known",
        "not measured",
        "not recorded",
        "no data",
        "keine angabe",
    )
)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_INFINITE = re.compile(r"[+-]?(inf|infinity|∞)", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"(\d),(\d)")
# Full-width digits and signs of Chinese texts, and the minus sign of typography.
_PLAIN = str.maketrans("０１２３４５６７８９．，＋－−", "0123456789.,+--")
_REMEDY = "Leave it blank when it is unknown."
# Ways to write a unit behind a number, in lower case. `063Y` is DICOM's way to write an age.
_WRITTEN_UNITS = {
    "years": ("years", "year", "yrs", "yr", "y", "a", "岁"),
    "months": ("months", "month", "mo", "个月", "月"),
    "%": ("%", "％"),
    "ml": ("ml", "毫升"),
    "mm": ("mm", "毫米"),
    "cm": ("cm", "厘米"),
    "kg": ("kg", "公斤", "千克"),
    "g": ("g", "克"),
}


def is_unknown(text: str) -> bool:
    """Return whether a text says that a value is unknown."""
    return text.strip().lower() in UNKNOWN


def parse_number(
    text: str | None, field: str, quantity: str | None = None, *, decimal_comma: bool = False
) -> float | None:
    """Return the number that a text states, or None where it is unknown.

    Args:
        text: The text; None where there is none.
        field: Where it stands, for the error message.
        quantity: What the number is, such as `lvef_percent` or `age_years`; its plausible range is
            checked. None checks none.
        decimal_comma: Whether `31,5` is a number.

    Raises:
        CmrvlmError: The text is no number, not finite, or impossible for the quantity.
    """
    if text is None or not text.strip() or is_unknown(text):
        return None
    plain = text.translate(_PLAIN).strip()
    if quantity is not None:
        plain = _without_unit(plain, plausible_range(quantity)[2])
    if decimal_comma and plain.count(",") == 1 and "." not in plain:
        plain = _DECIMAL_COMMA.sub(r"\1.\2", plain)
    if _INFINITE.fullmatch(plain):
        raise CmrvlmError(f"'{text}' is not finite", field=field, remedy=_REMEDY)
    if not _NUMBER.fullmatch(plain):
        remedy = _REMEDY
        if _NUMBER.fullmatch(plain.replace(",", ".")):
            remedy = f"Write {plain.replace(',', '.')} with a point."
        raise CmrvlmError(f"'{shorten(text)}' is no number", field=field, remedy=remedy)
    value = float(plain)
    if math.isinf(value):
        raise CmrvlmError(f"'{shorten(text)}' is not finite", field=field, remedy=_REMEDY)
    if quantity is not None:
        check_plausible(quantity, value, field)
    return value


def _without_unit(text: str, unit: str) -> str:
    """Return a text without the unit at its end, where that is the unit of its quantity."""
    lower = text.lower()
    for written in _WRITTEN_UNITS.get(unit, ()):
        number = text[: -len(written)].rstrip()
        if lower.endswith(written) and number[-1:].isdigit():
            return number
    return text


def shorten(text: str, most: int = 60) -> str:
    """Return a text for a message, cut where it is long."""
    if len(text) <= most:
        return text
    return f"{text[:most]}…"
