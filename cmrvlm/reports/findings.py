"""Findings read back from a report, so that "LGE present" and "no LGE" are distinguished."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from cmrvlm.reports.reader import any_of
from cmrvlm.reports.writer import split_sections
from cmrvlm.study.measurements import MEASUREMENTS, Measurement
from cmrvlm.study.vocabulary import FINDINGS, LGE_PATTERNS, MOTION_PATTERNS, Term

_SENTENCE = re.compile(r"[;；。\n]|\.(?!\d)")
_ITEM = re.compile(r"[,，、]")
_DENIAL = re.compile(
    r"(?<!\w)(?:no|not|without|absence of|negative for|free of)(?!\w)|未见|没有|无|未",
    re.IGNORECASE,
)
_DENIED_AFTER = re.compile(
    r"(?<!\w)(?:absent|not seen|not present|excluded)(?!\w)|未见|阴性", re.IGNORECASE
)
# Words that end a denial which runs through a list: "no thrombus, effusion or aneurysm, but late
# enhancement".
_AFFIRMATION = re.compile(
    r"(?<!\w)(?:but|however|yet|with|shows?|there (?:is|are)|is|are)(?!\w)|但|可见|伴|提示|\d",
    re.IGNORECASE,
)
_NOT_NORMAL = re.compile(r"(?<!\w)not normal(?!\w)|不正常", re.IGNORECASE)
_NORMAL = re.compile(r"(?<!\w)(?:normal|preserved|unremarkable)(?!\w)|正常|不大", re.IGNORECASE)
_ABNORMAL = re.compile(
    r"(?<!\w)(?:abnormal(?:ity|ities)?|reduced|decreased|impaired|increased|elevated|dilated|"
    r"enlarged|thickened)(?!\w)"
    r"|减低|降低|下降|增大|扩大|扩张|增厚|升高|异常",
    re.IGNORECASE,
)
_ENHANCEMENT = (
    "LV late enhancement",
    "late gadolinium enhancement",
    "late enhancement",
    "myocardial enhancement",
    "左心室延迟强化",
    "延迟强化",
    "心肌强化",
)
_NAMED_FINDINGS = (
    "aneurysm",
    "mitral_regurgitation",
    "tricuspid_regurgitation",
    "aortic_regurgitation",
    "rv_lge",
    "pericardial_enhancement",
    "fatty_infiltration",
    "thrombus",
    "pericardial_effusion",
    "pleural_effusion",
)


def _names_but(terms: Mapping[str, Term], normal: str) -> tuple[str, ...]:
    """Return the names of terms in both languages, without those of the normal one."""
    names: list[str] = []
    for code, term in terms.items():
        if code != normal:
            names += [term.en, term.zh]
    return tuple(names)


def _names_of_finding(code: str) -> tuple[str, ...]:
    """Return the names of a finding in both languages."""
    term = FINDINGS[code]
    return term.en, term.zh, *term.synonyms


def _names_of_measurement(measurement: Measurement) -> tuple[str, ...]:
    """Return the names of a measurement and of the finding that judges it, in both languages."""
    finding = FINDINGS[measurement.finding]
    return measurement.en, measurement.zh, finding.en, finding.zh, *measurement.synonyms


# Finding to the names by which a text says that it is there.
_PRESENCE = {code: _names_of_finding(code) for code in _NAMED_FINDINGS} | {
    "lv_lge": (*_ENHANCEMENT, *_names_but(LGE_PATTERNS, "none")),
    "wall_motion": _names_but(MOTION_PATTERNS, "normal"),
}
# Finding to the names of what a text judges to be normal or abnormal.
_JUDGED = {
    measurement.finding: _names_of_measurement(measurement) for measurement in MEASUREMENTS.values()
} | {"wall_motion": ("wall motion", "室壁运动")}


def findings_stated(text: str) -> dict[str, bool]:
    """Read the findings that a report or caption states, in either language.

    A measured finding is stated when its measurement is judged beside it ("LVEF 35 % (reduced)");
    any other when it is named. A denial holds for the rest of its sentence, through a list too,
    until something is affirmed. Where sentences disagree, present wins: reports deny in general and
    name in particular.

    Returns:
        Finding to abnormal (True) or denied (False); findings that are not stated are absent.
    """
    sections = split_sections(text)
    stated: dict[str, bool] = {}
    for section in sections.values() or [text]:
        for sentence in _SENTENCE.split(section):
            for code, abnormal in _findings_in_sentence(sentence):
                stated[code] = stated.get(code, False) or abnormal
    return stated


def _findings_in_sentence(sentence: str) -> Iterator[tuple[str, bool]]:
    """Yield the findings that a sentence states, each with whether it is abnormal."""
    denied = False
    for item in _ITEM.split(sentence):
        if _AFFIRMATION.search(item):
            denied = False
        yield from _findings_in_item(item, denied=denied).items()
        if _DENIAL.search(item):
            denied = True


def _findings_in_item(item: str, *, denied: bool) -> dict[str, bool]:
    """Return the findings that one item of a list states.

    Args:
        item: Text of the item.
        denied: Whether a denial before it in its sentence still holds.
    """
    findings: dict[str, bool] = {}
    for code, names in _JUDGED.items():
        if any_of(names).search(item):
            abnormal = _judgement(item, denied=denied)
            if abnormal is not None:
                findings[code] = abnormal
    for code, names in _PRESENCE.items():
        match = any_of(names).search(item)
        if match:
            absent = denied or _is_denied(match)
            findings[code] = findings.get(code, False) or not absent
    return findings


def _is_denied(name: re.Match[str]) -> bool:
    """Return whether the words before or after a name deny it."""
    before = name.string[: name.start()]
    after = name.string[name.end() :]
    return bool(_DENIAL.search(before) or _DENIED_AFTER.search(after))


def _judgement(item: str, *, denied: bool) -> bool | None:
    """Return whether an item judges something to be abnormal, None when it does not judge.

    Args:
        item: Text of the item.
        denied: Whether a denial before it in its sentence still holds.
    """
    if _NOT_NORMAL.search(item):
        return True
    abnormal = _ABNORMAL.search(item)
    if abnormal:
        return not denied and not _DENIAL.search(item[: abnormal.start()])
    if _NORMAL.search(item):
        return False
    return None
