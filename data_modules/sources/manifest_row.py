"""Labels of a manifest's row, with errors that name file, row and column."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from cmrvlm.errors import naming_file
from cmrvlm.reports.writer import split_sections
from cmrvlm.study.measurements import DEMOGRAPHICS, FOLLOW_UP, MEASUREMENTS, check_volumes
from cmrvlm.study.study import StudyLabels, UserQuestion
from cmrvlm.study.vocabulary import DISEASES, FINDINGS, LANGUAGES
from data_modules.tables.numbers import shorten
from data_modules.tables.rows import Row

# Words for a patient's sex, in lower case.
_SEXES = {
    **dict.fromkeys(("m", "male", "man", "männlich", "男", "男性"), "m"),
    **dict.fromkeys(("f", "female", "woman", "w", "weiblich", "女", "女性"), "f"),
}
_BETWEEN_DISEASES = re.compile(r"[;,；，、|]")
# Code of a disease by its names, in lower case.
_CODES = {
    name.casefold(): code
    for code, term in DISEASES.items()
    for name in (code, term.en, term.zh, *term.synonyms)
}


def read_labels(row: Row) -> StudyLabels:
    """Return the labels that a row states."""
    # Measurements are checked before demographics: the first wrong value is named.
    measurements = _measurements(row)
    demographics = _demographics(row)
    diseases = _diseases(row)
    flags = {code: row.read_flag(f"finding_{code}") for code in FINDINGS}
    reports = {language: _report(row, language) for language in LANGUAGES}
    return StudyLabels(
        diseases=diseases,
        findings={code: flag for code, flag in flags.items() if flag is not None},
        measurements=measurements,
        report={language: sections for language, sections in reports.items() if sections},
        demographics=demographics,
        follow_up=_follow_up(row),
        questions=_questions(row),
    )


def _measurements(row: Row) -> dict[str, float]:
    """Return the measurements that a row states.

    Raises:
        CmrvlmError: One is that of no heart, or volumes are swapped.
    """
    measurements = _numbers(row, MEASUREMENTS)
    fields = {name: row.field(name) for name in measurements}
    with naming_file(row.path):
        check_volumes(measurements, fields)
    return measurements


def _numbers(row: Row, columns: Iterable[str]) -> dict[str, float]:
    """Return the numbers of some columns, without unknown ones."""
    values = {column: row.read_number(column, column) for column in columns}
    return {column: value for column, value in values.items() if value is not None}


def _demographics(row: Row) -> dict[str, float | str]:
    """Return age, height, weight and sex as far as a row states them.

    Raises:
        CmrvlmError: One of them is wrong.
    """
    demographics: dict[str, float | str] = {**_numbers(row, DEMOGRAPHICS)}
    sex = row.read_text("sex")
    if sex is None:
        return demographics
    letter = _SEXES.get(sex.casefold())
    if letter is None:
        raise row.error("sex", f"'{shorten(sex)}' is unknown", "Use m or f, or leave it blank.")
    demographics["sex"] = letter
    return demographics


def _diseases(row: Row) -> frozenset[str] | None:
    """Return the codes of the diseases, or None where they are unknown.

    Raises:
        CmrvlmError: A code is unknown.
    """
    text = row.read_text("diseases")
    if text is None:
        return None
    names = [name.strip() for name in _names(text) if name.strip()]
    if not names:
        # No name is no statement that there is no disease.
        return None
    unknown = [name for name in names if name.casefold() not in _CODES]
    if unknown:
        known = ", ".join(f"{code} ({term.en})" for code, term in DISEASES.items())
        raise row.error("diseases", f"unknown disease '{shorten(unknown[0])}'", f"Known: {known}.")
    return frozenset(_CODES[name.casefold()] for name in names)


def _names(text: str) -> list[str]:
    """Return names that are a list of JSON, as in JSON Lines, or have separators between them."""
    if text.startswith("["):
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            values = None
        if isinstance(values, list) and all(isinstance(value, str) for value in values):
            return values
    return _BETWEEN_DISEASES.split(text)


def _follow_up(row: Row) -> dict[str, float]:
    """Return months of follow-up and whether they ended with an event; empty where unknown.

    Raises:
        CmrvlmError: One is stated without the other.
    """
    months = row.read_number(FOLLOW_UP, FOLLOW_UP)
    event = row.read_flag("event")
    if (months is None) != (event is None):
        raise row.error(FOLLOW_UP, "follow-up needs months and event", "Fill both, or none.")
    if months is None or event is None:
        return {}
    return {"months": months, "event": float(event)}


def _questions(row: Row) -> tuple[UserQuestion, ...]:
    """Return the questions of a row, which are a JSON list.

    Raises:
        CmrvlmError: They cannot be read.
    """
    text = row.read_text("questions")
    if text is None:
        return ()
    try:
        questions = []
        for entry in json.loads(text):
            lists = {name: tuple(entry.get(name, ())) for name in ("options", "sequences")}
            questions.append(UserQuestion(**entry | lists))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        remedy = 'Write [{"category": "lge", "language": "en", "prompt": "…", "answer": "…"}, …].'
        raise row.error("questions", f"they cannot be read ({error})", remedy) from error
    return tuple(questions)


def _report(row: Row, language: str) -> dict[str, str]:
    """Return the sections of a report; a text without headings is one section, `other`."""
    text = row.read_text(f"report_{language}") or ""
    sections = dict(split_sections(text))
    if text and not sections:
        sections = {"other": text}
    impression = row.read_text(f"impression_{language}")
    if impression:
        sections["impression"] = impression
    return sections
