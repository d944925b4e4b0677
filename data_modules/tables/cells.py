"""Write tables that a spreadsheet may open, in which no text of others is taken for a formula."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

# With these a formula begins, behind what is not seen; spreadsheets of East Asia take the wide ones
# for the same.
_FORMULA = re.compile("[\\s\0-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\ufeff]*[=+\\-@＝＋－＠]")
# What parts cells in one country or another, whatever parts them in this file.
_SEPARATORS = re.compile(r"([;,|\t\r\n])")
# No number with its unit is longer.
_LONGEST_NUMBER = 60
# A signed number with nothing but a unit behind it calculates nothing.
_SIGNED_NUMBER = re.compile(r"\s*[+-]\d[\d.]*([eE][+-]?\d+)?[\w %/°]*")


def write_rows(file: TextIO, rows: Iterable[Sequence[Any]], **settings: Any) -> None:
    """Write rows of a table as `safe_cell` returns their values.

    Args:
        file: Text file that was opened with `newline=""`.
        rows: Values, the names of the columns first.
        **settings: Settings of `csv.writer`.
    """
    writer = csv.writer(file, **settings)
    for row in rows:
        writer.writerow([safe_cell(value) for value in row])


def safe_cell(value: Any) -> str:
    """Return the text of a value, with an apostrophe in front of what could be a formula.

    Numbers stay as they are, `-3.2` among them. Somebody may open a table with another separator
    than it was written with, so what stands behind one inside a cell is looked at, too.

    Source: OWASP, CSV Injection.

    Args:
        value: Text, number, or None for an empty cell.
    """
    if value is None:
        return ""
    return "".join(map(_safe_part, _SEPARATORS.split(str(value))))


def _safe_part(text: str) -> str:
    """Return a part of a cell between two separators, with an apostrophe where it needs one."""
    is_number = len(text) <= _LONGEST_NUMBER and _SIGNED_NUMBER.fullmatch(text)
    if _FORMULA.match(text) and not is_number:
        return f"'{text}"
    return text
