"""Tables (CSV, TSV, Excel, Parquet, JSON Lines) as rows of text, in which ids keep their zeros."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from charset_normalizer import from_bytes

from cmrvlm.errors import CmrvlmError

# Text by column; blank values are left out.
Row = dict[str, str]


def read_table(path: Path) -> list[Row]:
    """Read the rows of a table, all values as text and without blank ones.

    Raises:
        CmrvlmError: The file is missing, has an unknown suffix, or has a column twice.
    """
    if not path.is_file():
        raise CmrvlmError(
            "there is no such file",
            file=path,
            field="data.path",
            remedy="Give the path of a table.",
        )
    rows = []
    for values in _read_rows(path):
        texts = {name: _as_text(value) for name, value in values.items()}
        rows.append({name: text for name, text in texts.items() if text})
    return rows


def _read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a table with values of any type, as its format holds them.

    Raises:
        CmrvlmError: The file has an unknown suffix, or has a column twice.
    """
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return _read_csv(path, ",")
    if suffix == ".tsv":
        return _read_csv(path, "\t")
    if suffix == ".jsonl":
        return [json.loads(line) for line in read_text(path).splitlines() if line.strip()]
    if suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    if suffix == ".xlsx":
        return _read_excel(path)
    raise CmrvlmError(
        f"'{suffix}' is no kind of table",
        file=path,
        field="data.path",
        remedy="Use .csv, .tsv, .xlsx, .parquet or .jsonl.",
    )


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, else in the likelier encoding of Chinese or Western European text.

    Raises:
        CmrvlmError: It is in none of these.
    """
    raw = path.read_bytes()
    try:
        # With or without the byte order mark that Excel writes.
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        best = from_bytes(raw, cp_isolation=["gb18030", "cp1252"]).best()
    if best is None:
        raise CmrvlmError("the text cannot be decoded", file=path, remedy="Save it as UTF-8.")
    return str(best)


def _as_text(value: Any) -> str:
    """Return a value as text, empty for None."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        # Spreadsheets keep whole numbers as 12.0.
        return str(int(value))
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False)
    return str(value).strip()


def _read_csv(path: Path, delimiter: str) -> list[dict[str, Any]]:
    """Read the rows of a text table."""
    lines = list(csv.reader(io.StringIO(read_text(path), newline=""), delimiter=delimiter))
    return _rows_from_lines(path, lines)


def _read_excel(path: Path) -> list[dict[str, Any]]:
    """Read the rows of the first sheet of an Excel file.

    Raises:
        CmrvlmError: openpyxl is not installed.
    """
    if importlib.util.find_spec("openpyxl") is None:
        raise CmrvlmError(
            "Excel files need openpyxl",
            file=path,
            remedy="pip install 'cmrvlm[excel]', or save as CSV.",
        )
    # An extra: only those who keep tables in Excel need it.
    from openpyxl import load_workbook

    sheet = load_workbook(path, read_only=True, data_only=True).worksheets[0]
    lines = [list(values) for values in sheet.iter_rows(values_only=True)]
    return _rows_from_lines(path, lines)


def _rows_from_lines(path: Path, lines: list[list[Any]]) -> list[dict[str, Any]]:
    """Return the lines below the head as value by column, without blank lines.

    Args:
        path: The file, for the error message.
        lines: Values of each line, the head first.

    Raises:
        CmrvlmError: A column is there twice.
    """
    if not lines:
        return []
    columns = [_as_text(name) for name in lines[0]]
    repeated = next((name for name in columns if name and columns.count(name) > 1), None)
    if repeated:
        raise CmrvlmError(
            f"column '{repeated}' is there twice",
            file=path,
            field=repeated,
            remedy="Rename one of them.",
        )
    return [
        dict(zip(columns, line, strict=False))
        for line in lines[1:]
        if any(_as_text(value) for value in line)
    ]
