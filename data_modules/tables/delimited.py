"""Text tables: which delimiter they use, at which line a row begins, and which quotes are astray."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmrvlm.errors import CmrvlmError
from data_modules.tables.numbers import shorten
from data_modules.tables.text_files import read_text

DELIMITERS = (",", ";", "\t")
_QUOTED = re.compile(r'"[^"]*"')
# The line by which Excel tells itself the delimiter.
_STATED = re.compile(r"\s*\"?sep=(.)\"?\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Sheet:
    """Head and lines of a table.

    Attributes:
        head: Names of the columns as they are written.
        lines: Number and values of each line that is not blank.
        head_number: Number of the line of the head.
        decimal_comma: Whether numbers may be written as `31,5`.
    """

    head: list[Any]
    lines: list[tuple[int, list[Any]]]
    head_number: int = 1
    decimal_comma: bool = False


def read_delimited(path: Path) -> Sheet:
    """Read a table whose values are parted by commas, semicolons or tabs.

    Raises:
        CmrvlmError: It cannot be decoded, a quote is astray, or a line has too many or too few
            values.
    """
    text = read_text(path)
    delimiter, skipped = _delimiter_of(text)
    records = [
        (number, values)
        for number, values in _records(path, text, delimiter)
        if number > skipped and any(value.strip() for value in values)
    ]
    if not records:
        return Sheet([], [])
    head = [name.strip() for name in records[0][1]]
    for number, values in records[1:]:
        _check_width(path, number, values, head)
    return Sheet(head, records[1:], records[0][0], decimal_comma=delimiter != ",")


def delimiter_of(path: Path) -> str:
    """Return the delimiter of a text table.

    Raises:
        CmrvlmError: It cannot be decoded.
    """
    return _delimiter_of(read_text(path))[0]


def _delimiter_of(text: str) -> tuple[str, int]:
    """Return the delimiter of a text table, and how many lines stand above its head.

    The delimiter is the one that makes most columns of the head.
    """
    lines = io.StringIO(text, newline="")
    head = ""
    for number, line in enumerate(lines, start=1):
        stated = _STATED.fullmatch(line)
        if stated and stated[1] in DELIMITERS:
            return stated[1], number
        if line.strip():
            head = line
            break
    unquoted = _QUOTED.sub("", head)
    counts = [unquoted.count(mark) for mark in DELIMITERS]
    return DELIMITERS[counts.index(max(counts))], 0


def _records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the values of each record with the number of the line that it begins at.

    Raises:
        CmrvlmError: A quote is not closed, or text follows a quoted value.
    """
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)
    head: list[str] = []
    while True:
        number = reader.line_num + 1
        try:
            values = next(reader, None)
        except csv.Error as error:
            raise _stray_quote(path, text, delimiter, head, number) from error
        if values is None:
            return
        head = head or values
        yield number, values


def _stray_quote(
    path: Path, text: str, delimiter: str, head: list[str], number: int
) -> CmrvlmError:
    """Return the error about a quote that does not end where a value does.

    Args:
        path: The table.
        text: Its text.
        delimiter: Its delimiter.
        head: Names of its columns.
        number: Line at which the record begins.
    """
    line = next(
        line for index, line in enumerate(io.StringIO(text, newline=""), start=1) if index == number
    )
    column = _malformed_value(line.rstrip("\r\n"), delimiter)
    field = f"row {number}"
    if column < len(head):
        field = f"{shorten(head[column].strip())}, {field}"
    return CmrvlmError(
        "a quotation mark does not belong to a whole value, and would swallow what follows",
        file=path,
        field=field,
        remedy='Close every quoted text, and write a quotation mark inside it twice ("").',
    )


def _malformed_value(line: str, delimiter: str) -> int:
    """Return the position among the values of a line of the first whose quotes do not match."""
    mark = re.escape(delimiter)
    value = re.compile(rf' *(?:"(?:[^"]|"")*"|(?!")[^{mark}]*)(?:{mark}|$)')
    position = 0
    count = 0
    while position < len(line):
        match = value.match(line, position)
        if match is None:
            break
        position = match.end()
        count += 1
    return count


def _check_width(path: Path, number: int, values: list[str], head: list[str]) -> None:
    """Refuse a line with more values than the head has columns, or with fewer.

    Raises:
        CmrvlmError: It is such a line.
    """
    beyond = [value for value in values[len(head) :] if value.strip()]
    if beyond:
        raise CmrvlmError(
            f"the row has {len(values)} values for {len(head)} columns; "
            f"'{shorten(beyond[0].strip())}' stands under no column",
            file=path,
            field=f"{shorten(head[-1])}, row {number}",
            remedy="A text that holds the delimiter needs quotation marks around it.",
        )
    lacking = [name for name in head[len(values) :] if name]
    if lacking:
        raise CmrvlmError(
            f"the row has {len(values)} values for {len(head)} columns; "
            f"there is none for '{shorten(lacking[0])}'",
            file=path,
            field=f"{shorten(lacking[0])}, row {number}",
            remedy="Leave unknown values blank, but keep their delimiters.",
        )
