"""JSON Lines, Parquet and Excel files as rows with values of any type."""

from __future__ import annotations

import importlib.util
import json
import lzma
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cmrvlm.errors import CmrvlmError
from data_modules.tables.delimited import Sheet
from data_modules.tables.numbers import shorten
from data_modules.tables.text_files import MOST_BYTES, read_text

# What openpyxl raises about a damaged file.
_EXCEL_ERRORS = (
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    lzma.LZMAError,
    zipfile.BadZipFile,
    zlib.error,
)
# Number and value by column of each row.
Records = list[tuple[int, dict[str, Any]]]


def as_text(value: Any) -> str:
    """Return a value as text, empty for None and NaN."""
    if value is None:
        return ""
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        if value.is_integer():
            # Spreadsheets keep whole numbers as 12.0.
            return str(int(value))
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False)
    # Marks that are not seen come along when text is copied from a page.
    return str(value).strip().strip("\u200b\ufeff").strip()


def read_json_lines(path: Path) -> Records:
    """Read the rows of a file with a JSON object in each line.

    Raises:
        CmrvlmError: A line is no such object, or names a column twice.
    """
    records = []
    # Only a line feed ends a line: texts may hold other line separators of Unicode.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line, object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            raise CmrvlmError(
                f"the line is no JSON object ({error})",
                file=path,
                field=f"row {number}",
                remedy="Write one object a line.",
            ) from error
        if not isinstance(values, dict):
            raise CmrvlmError(
                "the line is no JSON object",
                file=path,
                field=f"row {number}",
                remedy="Write one object a line.",
            )
        records.append((number, values))
    return records


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object whose keys differ.

    Raises:
        ValueError: A key is there twice.
    """
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key is there twice")
    return values


def read_parquet(path: Path) -> Records:
    """Read the rows of a Parquet file.

    Raises:
        CmrvlmError: It is damaged, has a column twice, or is too large when it is unpacked.
    """
    try:
        file = pq.ParquetFile(path)
        columns = file.schema_arrow.names
        if len(set(columns)) < len(columns):
            raise CmrvlmError("a column is there twice", file=path, remedy="Rename one of them.")
        groups = [file.metadata.row_group(index) for index in range(file.num_row_groups)]
        _check_unpacked(path, sum(group.total_byte_size for group in groups))
        values = file.read().to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise CmrvlmError(
            f"the file cannot be read as Parquet ({error})", file=path, remedy="Export it again."
        ) from error
    return list(enumerate(values, start=1))


def _check_unpacked(path: Path, size: int) -> None:
    """Refuse a compressed table that is too large when it is unpacked.

    Raises:
        CmrvlmError: It is.
    """
    if size > MOST_BYTES:
        raise CmrvlmError(
            f"the table would have {size / 2**30:.1f} GiB unpacked",
            file=path,
            remedy="Check whether it is the right file.",
        )


def read_excel(path: Path) -> Sheet:
    """Read the first sheet of an Excel file.

    Raises:
        CmrvlmError: openpyxl is not installed, the file is damaged, or a value lies beside the
            columns.
    """
    if importlib.util.find_spec("openpyxl") is None:
        raise CmrvlmError(
            "Excel files need openpyxl",
            file=path,
            remedy="pip install 'cmrvlm[excel]', or save as CSV.",
        )
    # An extra: only those who keep tables in Excel need it.
    from openpyxl import load_workbook

    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(part.file_size for part in archive.infolist())
        if unpacked <= MOST_BYTES:
            book = load_workbook(path, read_only=True, data_only=True)
            sheet = book.worksheets[0]
            # The stated size may reach to a far cell, and each row would be filled up to it.
            sheet.reset_dimensions()
            rows = enumerate(sheet.iter_rows(values_only=True), start=1)
            lines = [(number, list(row)) for number, row in rows if any(map(as_text, row))]
            book.close()
    except _EXCEL_ERRORS as error:
        raise CmrvlmError(
            f"the file cannot be read as Excel ({error})", file=path, remedy="Save it again."
        ) from error
    _check_unpacked(path, unpacked)
    if not lines:
        return Sheet([], [])
    head = lines[0][1]
    for number, values in lines[1:]:
        _check_beside(path, number, values, len(head))
    return Sheet(head, lines[1:], lines[0][0])


def _check_beside(path: Path, number: int, values: list[Any], column_count: int) -> None:
    """Refuse a row of a sheet with a value that is right of the head's last column.

    Raises:
        CmrvlmError: It is such a row.
    """
    for column, value in enumerate(values[column_count:], start=column_count + 1):
        if as_text(value):
            raise CmrvlmError(
                f"'{shorten(as_text(value))}' stands in column {column}, which has no name",
                file=path,
                field=f"row {number}",
                remedy="Name the column, or clear the cell.",
            )
