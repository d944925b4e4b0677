"""Write the manifest of an archive into a table in which somebody may have worked."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cmrvlm.study.atomic_files import atomic_write
from data_modules.tables.cells import safe_cell
from data_modules.tables.delimited import DELIMITERS, delimiter_of, read_delimited
from data_modules.tables.read_table import read_table
from data_modules.tables.rows import fold

_STUDY = fold("study_id")


@dataclass
class Manifest:
    """The manifest with all that somebody wrote into it.

    Attributes:
        names: Name of each column as it is written, by folded name.
        rows: Text by folded name of the column.
        delimiter: What parts the values.
        encoding: Encoding of the file.
    """

    names: dict[str, str] = field(default_factory=dict)
    rows: list[dict[str, str]] = field(default_factory=list)
    delimiter: str = ","
    encoding: str = "utf-8"

    def update(self, study_id: str, row: Mapping[str, Any], before: Mapping[str, Any]) -> None:
        """Write the values of a study, except into cells that somebody has changed.

        Args:
            study_id: Id of the study.
            row: Value by column, None where it is unknown.
            before: Values that the last run wrote, empty where that is not known.
        """
        for column in row:
            self.names.setdefault(fold(column), column)
        own = [texts for texts in self.rows if texts.get(_STUDY) == study_id]
        if not own:
            own = [{}]
            self.rows += own
        for texts in own:
            for column, value in row.items():
                key = fold(column)
                text = safe_cell(value)
                if _may_change(texts.get(key, ""), text, before, column):
                    texts[key] = text

    def write(self, path: Path) -> None:
        """Write the table, with the delimiter and the encoding that it had."""
        names = self.names or {_STUDY: "study_id"}
        # A delimiter of another kind in a name must not be taken for that of the table.
        is_odd = any(mark in name for mark in DELIMITERS for name in names.values())
        with (
            atomic_write(path) as temporary,
            temporary.open("w", newline="", encoding=self.encoding) as file,
        ):
            # Cells that somebody wrote stay as they are.
            writer = csv.writer(file, delimiter=self.delimiter)
            if is_odd:
                head = csv.writer(file, delimiter=self.delimiter, quoting=csv.QUOTE_ALL)
                head.writerow(names.values())
            else:
                writer.writerow(names.values())
            writer.writerows([texts.get(key, "") for key in names] for texts in self.rows)


def read_manifest(path: Path) -> Manifest:
    """Read the manifest; one that is not there has no rows.

    Raises:
        CmrvlmError: It is no table, or has no ids of studies.
    """
    if not path.is_file():
        return Manifest()
    # It refuses a table that has a column twice or lacks the ids.
    read_table(path, ["study_id"])
    sheet = read_delimited(path)
    names = {fold(name): name for name in sheet.head}
    rows = []
    for _, values in sheet.lines:
        texts = [value.strip() for value in values]
        rows.append(dict(zip(names, texts, strict=False)))
    with path.open("rb") as file:
        has_mark = file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8
    encoding = "utf-8-sig" if has_mark else "utf-8"
    return Manifest(names, rows, delimiter_of(path), encoding)


def _may_change(cell: str, text: str, before: Mapping[str, Any], column: str) -> bool:
    """Return whether a cell holds what the last run wrote, and not what somebody wrote.

    Args:
        cell: Text of the cell.
        text: New text.
        before: Values that the last run wrote.
        column: Name of the column.
    """
    if not before:
        return bool(text) or cell.endswith(f"/{column}.nii.gz")
    value = before.get(column)
    return _is_same(cell, safe_cell(value).strip())


def _is_same(cell: str, text: str) -> bool:
    """Return whether two cells say the same; spreadsheets write 47.0 as 47 or 47,0."""
    if cell == text:
        return True
    try:
        return float(cell.replace(",", ".")) == float(text)
    except ValueError:
        return False
