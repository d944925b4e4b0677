"""Rows of tables, read with errors that name file, row and column."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cmrvlm.errors import CmrvlmError, naming_file
from data_modules.tables.numbers import is_unknown, parse_number, shorten

_YES = ("1", "yes", "y", "true", "abnormal", "ja", "oui", "sí", "是", "有")
_NO = ("0", "no", "n", "false", "normal", "nein", "non", "否", "无")
# Blanks of all kinds, marks that are not seen, `_` and `-`.
_IGNORED = re.compile(r"[\s_\-\u200b\ufeff]")


@lru_cache(maxsize=100_000)
def fold(column: str) -> str:
    """Return a column's name without what does not matter: case, blanks, `-` and `_`."""
    return _IGNORED.sub("", unicodedata.normalize("NFKC", column)).casefold()


@dataclass(frozen=True)
class Row(Mapping[str, str]):
    """Text by column, without blank values; a column is found under any spelling of its name.

    Attributes:
        path: The table.
        number: Number of the row as an editor or a spreadsheet shows it: the line of the file.
        texts: Text by folded name of the column.
        names: Name of each column as it is written, by folded name.
        named_in: Where the columns are named, such as `header, row 1`; empty where no row does.
        decimal_comma: Whether numbers may be written as `31,5`.
    """

    path: Path
    number: int
    texts: Mapping[str, str]
    names: Mapping[str, str]
    named_in: str
    decimal_comma: bool = False

    def __getitem__(self, column: str) -> str:
        return self.texts[fold(column)]

    def __iter__(self) -> Iterator[str]:
        return (self.names[key] for key in self.texts)

    def __len__(self) -> int:
        return len(self.texts)

    def error(self, column: str, problem: str, remedy: str) -> CmrvlmError:
        """Return an error about a column of this row."""
        return CmrvlmError(problem, file=self.path, field=self.field(column), remedy=remedy)

    def column_error(self, column: str, problem: str, remedy: str) -> CmrvlmError:
        """Return an error about a column itself, whatever this row states in it."""
        name = shorten(self.names.get(fold(column), column))
        field = f"{name}, {self.named_in}" if self.named_in else name
        return CmrvlmError(problem, file=self.path, field=field, remedy=remedy)

    def field(self, column: str) -> str:
        """Return where the value in a column stands, for an error message."""
        name = self.names.get(fold(column), column)
        return f"{shorten(name)}, row {self.number}"

    def read_text(self, column: str) -> str | None:
        """Return the text in a column, or None where it is blank or says that it is unknown."""
        text = self.get(column)
        if text is None or is_unknown(text):
            return None
        return text

    def read_number(self, column: str, quantity: str | None = None) -> float | None:
        """Return the number in a column, or None where it is unknown.

        Args:
            column: The column.
            quantity: What it is, such as `age_years`, whose plausible range is checked.

        Raises:
            CmrvlmError: The text is no number, not finite, or impossible for the quantity.
        """
        with naming_file(self.path):
            return parse_number(
                self.get(column), self.field(column), quantity, decimal_comma=self.decimal_comma
            )

    def read_flag(self, column: str) -> bool | None:
        """Return the yes or no in a column, or None where it is unknown.

        Raises:
            CmrvlmError: The text is neither.
        """
        text = self.read_text(column)
        if text is None:
            return None
        # Programs write a column of 0 and 1 with gaps as 0.0 and 1.0.
        word = re.sub(r"^([01])[.,]0+$", r"\1", text.lower())
        if word not in (*_YES, *_NO):
            raise self.error(
                column,
                f"'{shorten(text)}' is neither yes nor no",
                "Use yes or no; leave it blank when unknown.",
            )
        return word in _YES
