"""Tables (CSV, TSV, Excel, Parquet, JSON Lines) as rows of text, in which ids keep their zeros."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.plain_text import check_text
from data_modules.tables.delimited import Sheet, read_delimited
from data_modules.tables.formats import (
    Records,
    as_text,
    read_excel,
    read_json_lines,
    read_parquet,
)
from data_modules.tables.numbers import shorten
from data_modules.tables.rows import Row, fold
from data_modules.tables.text_files import check_size

# More columns, or more rows of a sheet, are a mistake: one far cell makes millions of them.
MOST_COLUMNS = 10_000
# Columns that an error message lists.
_MOST_LISTED = 30


def read_table(path: Path, needed: Sequence[str] = ()) -> list[Row]:
    """Read the rows of a table, all values as text and without blank ones.

    Args:
        path: The table.
        needed: Columns without which it is another table.

    Raises:
        CmrvlmError: The file is missing, damaged or of an unknown kind, has a column twice, has a
            row with too many or too few values, or lacks a column that is needed.
    """
    _check_file(path)
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv", ".txt"):
        return _rows_of_sheet(path, read_delimited(path), needed)
    if suffix == ".xlsx":
        return _rows_of_sheet(path, read_excel(path), needed)
    if suffix == ".jsonl":
        return _rows_of_records(path, read_json_lines(path), needed)
    if suffix == ".parquet":
        return _rows_of_records(path, read_parquet(path), needed, is_one_head=True)
    raise CmrvlmError(
        f"'{suffix}' is no kind of table",
        file=path,
        field="data.path",
        remedy="Use .csv, .tsv, .xlsx, .parquet or .jsonl.",
    )


def _check_file(path: Path) -> None:
    """Refuse what is no file, or one that is too large for a table.

    Raises:
        CmrvlmError: It is.
    """
    try:
        is_file = path.is_file()
    except (OSError, ValueError):
        # Too long for the file system, for example.
        is_file = False
    if not is_file:
        raise CmrvlmError(
            "there is no such file",
            file=path,
            field="data.path",
            remedy="Give the path of a table.",
        )
    check_size(path)


def _rows_of_sheet(path: Path, sheet: Sheet, needed: Sequence[str]) -> list[Row]:
    """Return the rows of a table with a head."""
    columns = [as_text(name) for name in sheet.head]
    named_in = f"header, row {sheet.head_number}"
    names = _names(path, columns, named_in)
    _check_needed(path, names, needed)
    keys = [fold(column) for column in columns]
    rows = []
    for number, values in sheet.lines:
        texts: dict[str, str] = {}
        for position, (key, column, value) in enumerate(zip(keys, columns, values, strict=False)):
            text = _checked_text(path, f"{shorten(column)}, row {number}", value)
            # A first column without a name is the index that pandas writes.
            if not key and position == 0:
                continue
            if text and not key:
                raise CmrvlmError(
                    f"'{shorten(text)}' stands under a column without a name",
                    file=path,
                    field=f"row {number}",
                    remedy="Name the column, or take it out.",
                )
            if text:
                texts[key] = text
        if texts:
            rows.append(Row(path, number, texts, names, named_in, sheet.decimal_comma))
    return rows


def _rows_of_records(
    path: Path, records: Records, needed: Sequence[str], *, is_one_head: bool = False
) -> list[Row]:
    """Return the rows of a table without a line for the names of its columns.

    Args:
        path: The table.
        records: Number and value by column of each row.
        needed: Columns without which it is another table.
        is_one_head: Whether the file names the columns once, else each row does.
    """
    rows = []
    columns: dict[str, str] = {}
    for number, values in records:
        named_in = "" if is_one_head else f"row {number}"
        names = _names(path, list(values), f"row {number}")
        columns = {**names, **columns}
        texts = {}
        for name, value in values.items():
            text = _checked_text(path, f"{shorten(name)}, row {number}", value)
            if text:
                texts[fold(name)] = text
        if texts:
            rows.append(Row(path, number, texts, names, named_in))
    _check_needed(path, columns, needed)
    return rows


def _checked_text(path: Path, field: str, value: Any) -> str:
    """Return a value as text.

    Raises:
        CmrvlmError: It holds what no text holds.
    """
    text = as_text(value)
    check_text(text, field, path)
    return text


def _names(path: Path, columns: Sequence[str], where: str) -> dict[str, str]:
    """Return the name of each column by its folded name, those without a name left out.

    Raises:
        CmrvlmError: There are too many columns, or two have one name.
    """
    if len(columns) > MOST_COLUMNS:
        raise CmrvlmError(
            f"the table has {len(columns)} columns, more than {MOST_COLUMNS}",
            file=path,
            field=where,
            remedy="Take out those that nothing reads.",
        )
    names: dict[str, str] = {}
    for column in columns:
        key = fold(column)
        if key in names:
            raise _repeated(path, names[key], column)
        if key:
            names[key] = column
    return names


def _repeated(path: Path, first: str, second: str) -> CmrvlmError:
    """Return the error about two columns with one name."""
    problem = f"column '{shorten(second)}' is there twice"
    if first != second:
        problem = f"the columns '{shorten(first)}' and '{shorten(second)}' are taken for one"
    return CmrvlmError(problem, file=path, field=shorten(second), remedy="Rename one of them.")


def _check_needed(path: Path, names: Mapping[str, str], needed: Iterable[str]) -> None:
    """Refuse a table that lacks a column; one without any column is empty.

    Raises:
        CmrvlmError: It lacks one.
    """
    lacking = [column for column in needed if fold(column) not in names]
    if not names or not lacking:
        return
    listed = [shorten(name) for name in names.values()]
    if len(listed) > _MOST_LISTED:
        listed = [*listed[:_MOST_LISTED], "…"]
    raise CmrvlmError(
        f"there is no column {lacking[0]}; the columns are {', '.join(listed)}",
        file=path,
        field=lacking[0],
        remedy="Name the columns in the first row, parted by commas, semicolons or tabs.",
    )
