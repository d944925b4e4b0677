"""Tables as people have them, CSV, Excel, Parquet or JSON Lines, to rows of text: what is typed stays as it is."""

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

Row = dict[str, str]


def read_table(path: Path) -> list[Row]:
    """Rows of a table, with all values as text and blank ones left out; leading zeros stay.

    Raises:
        CmrvlmError: The file is missing, of another kind, or has a column twice.
    """
    if not path.is_file():
        raise CmrvlmError(
            "there is no such file",
            file=path,
            field="data.path",
            remedy="Give the path of a table.",
        )
    kind = path.suffix.lower()
    if kind in (".csv", ".tsv"):
        rows = _read_csv(path, "\t" if kind == ".tsv" else ",")
    elif kind == ".jsonl":
        rows = [json.loads(line) for line in read_text(path).splitlines() if line.strip()]
    elif kind == ".parquet":
        rows = pq.read_table(path).to_pylist()
    elif kind == ".xlsx":
        rows = _read_excel(path)
    else:
        raise CmrvlmError(
            f"'{kind}' is no kind of table",
            file=path,
            field="data.path",
            remedy="Use .csv, .tsv, .xlsx, .parquet or .jsonl.",
        )
    return [
        {name: text for name, value in row.items() if (text := _as_text(value))} for row in rows
    ]


def read_text(path: Path) -> str:
    """Text of a file in UTF-8, else in the likelier one of the encodings of Chinese and of Western European text.

    Raises:
        CmrvlmError: It is in neither.
    """
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")  # with or without the mark that Excel writes
    except UnicodeDecodeError:
        best = from_bytes(raw, cp_isolation=["gb18030", "cp1252"]).best()
    if best is None:
        raise CmrvlmError("the text cannot be decoded", file=path, remedy="Save it as UTF-8.")
    return str(best)


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # spreadsheets keep whole numbers as 12.0
    return (
        json.dumps(value, ensure_ascii=False)
        if isinstance(value, (list, dict))
        else str(value).strip()
    )


def _read_csv(path: Path, delimiter: str) -> list[dict[str, Any]]:
    lines = list(csv.reader(io.StringIO(read_text(path), newline=""), delimiter=delimiter))
    return _rows(path, lines)


def _read_excel(path: Path) -> list[dict[str, Any]]:
    if importlib.util.find_spec("openpyxl") is None:
        raise CmrvlmError(
            "Excel files need openpyxl",
            file=path,
            remedy="pip install 'cmrvlm[excel]', or save as CSV.",
        )
    from openpyxl import load_workbook  # an extra: only those who keep tables in Excel need it

    sheet = load_workbook(path, read_only=True, data_only=True).worksheets[0]
    return _rows(path, [list(row) for row in sheet.iter_rows(values_only=True)])


def _rows(path: Path, lines: list[list[Any]]) -> list[dict[str, Any]]:
    if not lines:
        return []
    head = [_as_text(name) for name in lines[0]]
    twice = next((name for name in head if name and head.count(name) > 1), None)
    if twice:
        raise CmrvlmError(
            f"column '{twice}' is there twice", file=path, field=twice, remedy="Rename one of them."
        )
    return [
        dict(zip(head, line, strict=False))
        for line in lines[1:]
        if any(_as_text(value) for value in line)
    ]
