"""Texts without clauses about what no shown series shows."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cmrvlm.reports.findings import findings_stated
from cmrvlm.reports.numbers import UNKNOWN, numbers_stated
from cmrvlm.reports.reader import terms_named
from cmrvlm.reports.writer import OTHER_FINDINGS, join_sections, not_assessed, split_sections
from cmrvlm.study.evidence import Evidence
from cmrvlm.study.vocabulary import (
    EF_GRADES,
    LGE_PATTERNS,
    MOTION_PATTERNS,
    OTHER_PATTERNS,
    STRUCTURE_TERMS,
    Term,
)

_CLAUSES = re.compile(r"(?<=[;；。])|(?<=\.)(?=\s|$)")
# Words and marks that texts have in place of a number, with the unit behind it.
_UNKNOWN_NUMBER = re.compile(
    rf"(?<!\w)(?:{'|'.join(UNKNOWN.values())}|n/?a|nan|none|null|\?+|[-–—]+)\s*(?:%|ml\b|mm\b)",
    re.IGNORECASE,
)
# "no further abnormality" denies all findings of its section, none of which it names.
_NOTHING_ELSE = re.compile(
    r"(?<!\w)no (?:\w+ )?(?:other|further|additional) (?:\w+ )?(?:abnormalit|finding|patholog)"
    r"|(?<!\w)otherwise (?:normal|unremarkable)|(?:未见|无)(?:明显)?其[他它](?:明显)?异常",
    re.IGNORECASE,
)
# Terms that a text may name, to what must be shown for them; see `cmrvlm.study.evidence.NEEDS`.
_NAMED: tuple[tuple[str, dict[str, Term]], ...] = (
    ("lvef_percent", EF_GRADES),
    ("motion_pattern", MOTION_PATTERNS),
    ("other_pattern", OTHER_PATTERNS),
    ("lge_pattern", LGE_PATTERNS),
    ("lge_pattern", {name: STRUCTURE_TERMS[name] for name in ("scar", "no_reflow")}),
)


def _stated(clause: str) -> list[str]:
    """Return the findings, numbers and patterns that a clause states or denies, by their codes."""
    stated = [*findings_stated(clause), *numbers_stated(clause)]
    stated += [code for code, terms in _NAMED if terms_named(clause, terms)]
    if _NOTHING_ELSE.search(clause):
        stated += OTHER_FINDINGS
    return stated


def visible_clauses(text: str, evidence: Evidence) -> str:
    """Return a text without the clauses about findings and numbers that no shown series shows.

    A clause that states a number as unknown says nothing, and is left out too.
    """
    kept = []
    for clause in _CLAUSES.split(text):
        if all(evidence.shows(name) for name in _stated(clause)) and not _UNKNOWN_NUMBER.search(
            clause
        ):
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


def visible_captions(captions: Mapping[str, str], evidence: Evidence) -> dict[str, str]:
    """Return captions by sequence on what is shown; one of which nothing is left is left out."""
    visible = {name: visible_clauses(text, evidence) for name, text in captions.items()}
    return {name: text for name, text in visible.items() if text}
