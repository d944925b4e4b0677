"""Rows of a public set's table by the study that they are about."""

from __future__ import annotations

from collections.abc import Iterable

from data_modules.tables.numbers import shorten
from data_modules.tables.rows import Row


def rows_by_id(rows: Iterable[Row], column: str, width: int = 0) -> dict[str, Row]:
    """Return the rows with an id, by it; a row that is there twice counts as one.

    Args:
        rows: Rows of one table.
        column: Column of the id.
        width: Digits of an id, whose leading zeros spreadsheets drop.

    Raises:
        CmrvlmError: Two rows about one study differ.
    """
    by_id: dict[str, Row] = {}
    for row in rows:
        if column not in row:
            continue
        study_id = row[column].zfill(width)
        first = by_id.setdefault(study_id, row)
        if dict(first.texts) != dict(row.texts):
            raise row.error(
                column,
                f"'{shorten(study_id)}' is there twice, first in row {first.number}, and the rows "
                "differ",
                "Take out the one that is wrong.",
            )
    return by_id
