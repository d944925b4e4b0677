"""Texts without clauses about what no shown series shows."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cmrvlm.reports.findings import findings_stated
from cmrvlm.reports.numbers import UNKNOWN, numbers_stated
from cmrvlm.reports.writer import join_sections, not_assessed, split_sections
from cmrvlm.study.evidence import Evidence

_CLAUSES = re.compile(r"(?<=[;；。])|(?<=\.)(?=\s|$)")
_UNKNOWN_NUMBER = re.compile(rf"(?<!\w)(?:{'|'.join(UNKNOWN.values())})\s*(?:%|ml|mm)")


def visible_clauses(text: str, evidence: Evidence) -> str:
    """Return a text without the clauses about findings and numbers that no shown series shows.

    A clause that states a number as unknown says nothing, and is left out too.
    """
    kept = []
    for clause in _CLAUSES.split(text):
        stated = [*findings_stated(clause), *numbers_stated(clause)]
        if all(evidence.shows(name) for name in stated) and not _UNKNOWN_NUMBER.search(clause):
            kept.append(clause)
    return "".join(kept).strip()


def visible_sections(
    sections: Mapping[str, str], evidence: Evidence, language: str
) -> dict[str, str]:
    """Return the sections of a report on what is shown; one of which nothing is left says so.

    Args:
        sections: Section to text.
        evidence: What is shown.
        language: `en` or `zh`.
    """
    visible = {}
    for name, text in sections.items():
        can_be_seen = name != "lge" or "lge" in evidence.sizes
        kept = visible_clauses(text, evidence) if can_be_seen else ""
        visible[name] = kept or not_assessed(language)
    return visible


def visible_text(text: str, evidence: Evidence, language: str, *, truncated: bool = False) -> str:
    """Return a report or another text about what is shown; the text itself where all of it is.

    Args:
        text: The text.
        evidence: What is shown.
        language: `en` or `zh`.
        truncated: The text was cut off at its end.
    """
    sections = split_sections(text, truncated=truncated)
    if not sections:
        return visible_clauses(text, evidence) or not_assessed(language)
    visible = visible_sections(sections, evidence, language)
    return text if visible == sections else join_sections(visible, language)
