"""Values and labels of a manifest's row, with errors that name file, row and column."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cmrvlm.errors import CmrvlmError
from cmrvlm.reports.writer import split_sections
from cmrvlm.study.measurements import MEASUREMENTS
from cmrvlm.study.study import StudyLabels, UserQuestion
from cmrvlm.study.vocabulary import DISEASES, FINDINGS, LANGUAGES
from data_modules.tables import Row

DEMOGRAPHICS = ("age_years", "height_cm", "weight_kg")
_YES = ("1", "yes", "true", "abnormal")
_NO = ("0", "no", "false", "normal")


@dataclass(frozen=True)
class RowReader:
    """A row of the table, read with errors that name file, row and column.

    Attributes:
        path: The table.
        row: Text by column.
        number: Number of the row, as a spreadsheet shows it: the head is row 1.
    """

    path: Path
    row: Row
    number: int

    def error(self, column: str, problem: str, remedy: str) -> CmrvlmError:
        """Return an error about a column of this row."""
        field = f"{column}, row {self.number}"
        return CmrvlmError(problem, file=self.path, field=field, remedy=remedy)

    def read_number(self, column: str) -> float | None:
        """Return the number in a column, or None where it is unknown.

        Raises:
            CmrvlmError: The text is not a number.
        """
        text = self.row.get(column)
        if text is None:
            return None
        remedy = "Leave it blank when it is unknown."
        try:
            value = float(text)
        except ValueError:
            raise self.error(column, f"'{text}' is no number", remedy) from None
        # Tables that were written by programs say so that a number is unknown.
        if math.isnan(value):
            return None
        if math.isinf(value):
            raise self.error(column, f"'{text}' is not finite", remedy)
        return value

    def read_flag(self, column: str) -> bool | None:
        """Return the yes or no in a column, or None where it is unknown.

        Raises:
            CmrvlmError: The text is neither.
        """
        text = self.row.get(column)
        if text is None:
            return None
        if text.lower() not in (*_YES, *_NO):
            raise self.error(
                column,
                f"'{text}' is neither yes nor no",
                "Use yes or no; leave it blank when unknown.",
            )
        return text.lower() in _YES


def read_labels(reader: RowReader) -> StudyLabels:
    """Return the labels that a row states."""
    # Measurements are checked before demographics: the first wrong value is named.
    measurements = _numbers(reader, MEASUREMENTS)
    demographics = _demographics(reader)
    diseases = _diseases(reader)
    flags = {code: reader.read_flag(f"finding_{code}") for code in FINDINGS}
    reports = {language: _report(reader.row, language) for language in LANGUAGES}
    return StudyLabels(
        diseases=diseases,
        findings={code: flag for code, flag in flags.items() if flag is not None},
        measurements=measurements,
        report={language: sections for language, sections in reports.items() if sections},
        demographics=demographics,
        follow_up=_follow_up(reader),
        questions=_questions(reader),
    )


def _numbers(reader: RowReader, columns: Iterable[str]) -> dict[str, float]:
    """Return the numbers of some columns, without unknown ones."""
    values = {column: reader.read_number(column) for column in columns}
    return {column: value for column, value in values.items() if value is not None}


def _demographics(reader: RowReader) -> dict[str, float | str]:
    """Return age, height, weight and sex as far as a row states them.

    Raises:
        CmrvlmError: One of them is wrong.
    """
    demographics: dict[str, float | str] = {**_numbers(reader, DEMOGRAPHICS)}
    sex = reader.row.get("sex")
    if sex is None:
        return demographics
    if sex.lower() not in ("m", "f"):
        raise reader.error("sex", f"'{sex}' is unknown", "Use m or f, or leave it blank.")
    demographics["sex"] = sex.lower()
    return demographics


def _diseases(reader: RowReader) -> frozenset[str] | None:
    """Return the codes of the diseases, or None where they are unknown.

    Raises:
        CmrvlmError: A code is unknown.
    """
    text = reader.row.get("diseases")
    if text is None:
        return None
    codes = [code.strip().upper() for code in text.replace(",", ";").split(";") if code.strip()]
    unknown = [code for code in codes if code not in DISEASES]
    if unknown:
        raise reader.error(
            "diseases", f"unknown disease '{unknown[0]}'", f"Known: {', '.join(DISEASES)}."
        )
    return frozenset(codes)


def _follow_up(reader: RowReader) -> dict[str, float]:
    """Return months of follow-up and whether they ended with an event; empty where unknown.

    Raises:
        CmrvlmError: One is stated without the other.
    """
    months = reader.read_number("follow_up_months")
    event = reader.read_flag("event")
    if (months is None) != (event is None):
        raise reader.error(
            "follow_up_months", "follow-up needs months and event", "Fill both, or none."
        )
    if months is None or event is None:
        return {}
    return {"months": months, "event": float(event)}


def _questions(reader: RowReader) -> tuple[UserQuestion, ...]:
    """Return the questions of a row, which are a JSON list.

    Raises:
        CmrvlmError: They cannot be read.
    """
    text = reader.row.get("questions")
    if text is None:
        return ()
    try:
        questions = []
        for entry in json.loads(text):
            lists = {name: tuple(entry.get(name, ())) for name in ("options", "sequences")}
            questions.append(UserQuestion(**entry | lists))
    except (json.JSONDecodeError, TypeError, AttributeError) as error:
        remedy = 'Write [{"category": "lge", "language": "en", "prompt": "…", "answer": "…"}, …].'
        raise reader.error("questions", f"they cannot be read ({error})", remedy) from error
    return tuple(questions)


def _report(row: Row, language: str) -> dict[str, str]:
    """Return the sections of a report; a text without headings is one section, `other`."""
    text = row.get(f"report_{language}", "")
    sections = dict(split_sections(text))
    if text and not sections:
        sections = {"other": text}
    impression = row.get(f"impression_{language}")
    if impression:
        sections["impression"] = impression
    return sections
