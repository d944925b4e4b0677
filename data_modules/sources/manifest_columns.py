"""Columns of a manifest: which there are, and rows that state something else."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from cmrvlm.study.measurements import DEMOGRAPHICS, FOLLOW_UP, MEASUREMENTS
from cmrvlm.study.vocabulary import FINDINGS, LANGUAGES, PHASES, SEQUENCES
from data_modules.split import PARTS
from data_modules.tables.numbers import shorten
from data_modules.tables.rows import Row, fold

# For people; nothing reads them.
_EXTRA = ("date", "maker", "field_t")
# Columns whose values may go over several lines.
_TEXTS = (
    *(f"{text}_{language}" for text in ("report", "impression") for language in LANGUAGES),
    "questions",
)
COLUMNS = (
    "study_id",
    "patient_id",
    "split",
    *SEQUENCES,
    *(f"{name}_mask" for name in SEQUENCES),
    *(f"{name}_{phase}_frame" for name in SEQUENCES for phase in PHASES),
    "diseases",
    *(f"finding_{code}" for code in FINDINGS),
    *MEASUREMENTS,
    "sex",
    *DEMOGRAPHICS,
    FOLLOW_UP,
    "event",
    *_TEXTS,
    *_EXTRA,
)
_KNOWN = {fold(column): column for column in COLUMNS}
# Share of letters in common from which a column's name is taken for another that is misspelt.
_ALIKE = 0.6
# Unknown columns that an error names, at most.
_MOST_NAMED = 10
_FOLDED_TEXTS = frozenset(fold(column) for column in _TEXTS)
# They change nothing of a study, so they are no part of its key in the cache.
UNKEYED = ("study_id", "split", *_EXTRA)


def check_columns(rows: Sequence[Row], ignored: Sequence[str]) -> None:
    """Refuse a table with columns that are neither known nor to be ignored.

    A column in which no row states anything is ignored as well.

    Args:
        rows: Rows of the table.
        ignored: Names and patterns of columns to ignore.

    Raises:
        CmrvlmError: It has such columns; all of them are named.
    """
    # Of a column the first row that states something in it.
    stated: dict[str, Row] = {}
    for row in rows:
        for column in row:
            stated.setdefault(column, row)
    unknown = [
        column
        for column in stated
        if fold(column) not in _KNOWN
        and not any(fnmatchcase(fold(column), fold(pattern)) for pattern in ignored)
    ]
    if not unknown:
        return
    problem = "unknown column"
    if len(unknown) > 1:
        names = ", ".join(shorten(column, 30) for column in unknown[1:_MOST_NAMED])
        problem = f"unknown column; so are {len(unknown) - 1} more: {names}"
    raise stated[unknown[0]].column_error(
        unknown[0],
        problem,
        f"{_suggest(unknown[0])}Name columns that are not to be read in "
        f"data.source.ignored_columns ('*' is all); known: {', '.join(COLUMNS)}.",
    )


def _suggest(column: str) -> str:
    """Return a sentence that names columns which an unknown one may have been meant to be."""
    key = fold(column)
    alike = [known for known in _KNOWN if len(key) > 2 and known.startswith(key)]
    if not alike:
        alike = get_close_matches(shorten(key), _KNOWN, n=2, cutoff=_ALIKE)
    if not alike:
        return ""
    return f"Is it {' or '.join(_KNOWN[known] for known in alike[:2])}? "


def check_row(row: Row) -> None:
    """Refuse a row with an unknown part, without a series, or that swallows others.

    Raises:
        CmrvlmError: It is such a row.
    """
    for column in row:
        _check_lines(row, column)
    if all(row.read_text(sequence) is None for sequence in SEQUENCES):
        raise row.error(
            "sax", "the study has no series", f"Give a path in one of {', '.join(SEQUENCES)}."
        )
    part = row.read_text("split")
    if part is not None and part not in PARTS:
        raise row.error(
            "split", f"'{shorten(part)}' is no part", f"Use {', '.join(PARTS)}, or leave all blank."
        )


def _check_lines(row: Row, column: str) -> None:
    """Refuse a value that goes over several lines and is no text, or that holds other rows.

    Two quotation marks that are astray, each in another row, make the rows between them one value.

    Raises:
        CmrvlmError: It is such a value.
    """
    further = row[column].splitlines()[1:]
    if not further:
        return
    if fold(column) not in _KNOWN:
        # It is ignored, whatever it holds.
        return
    if fold(column) not in _FOLDED_TEXTS or any(".nii" in line.lower() for line in further):
        raise row.error(
            column,
            "the value goes over several lines and seems to hold further rows",
            'Look for a quotation mark that is astray; write one inside a text twice ("").',
        )
