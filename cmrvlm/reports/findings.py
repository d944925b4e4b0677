"""Findings read back from the words of a report, so that "LGE present" and "no LGE" are told apart."""

from __future__ import annotations

import re

from cmrvlm.reports.reader import any_of
from cmrvlm.reports.writer import split_sections
from cmrvlm.study.measurements import MEASUREMENTS
from cmrvlm.study.vocabulary import FINDINGS, LGE_PATTERNS, MOTION_PATTERNS

_SENTENCE = re.compile(r"[;；。\n]|\.(?!\d)")
_ITEM = re.compile(r"[,，、]")
_DENIAL = re.compile(
    r"(?<!\w)(?:no|not|without|absence of|negative for|free of)(?!\w)|未见|没有|无|未",
    re.IGNORECASE,
)
_DENIED_AFTER = re.compile(
    r"(?<!\w)(?:absent|not seen|not present|excluded)(?!\w)|未见|阴性", re.IGNORECASE
)
# What ends a denial that runs through a list: "no thrombus, effusion or aneurysm, but late enhancement".
_AFFIRMATION = re.compile(
    r"(?<!\w)(?:but|however|yet|with|shows?|there (?:is|are)|is|are)(?!\w)|但|可见|伴|提示|\d",
    re.IGNORECASE,
)
_NOT_NORMAL = re.compile(r"(?<!\w)not normal(?!\w)|不正常", re.IGNORECASE)
_NORMAL = re.compile(r"(?<!\w)(?:normal|preserved|unremarkable)(?!\w)|正常|不大", re.IGNORECASE)
_ABNORMAL = re.compile(
    r"(?<!\w)(?:abnormal(?:ity|ities)?|reduced|decreased|impaired|increased|elevated|dilated|enlarged|thickened)(?!\w)"
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
_PRESENCE: dict[str, tuple[str, ...]] = {
    code: (FINDINGS[code].en, FINDINGS[code].zh, *FINDINGS[code].synonyms)
    for code in (
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
} | {
    "lv_lge": (
        *_ENHANCEMENT,
        *(
            name
            for code, term in LGE_PATTERNS.items()
            if code != "none"
            for name in (term.en, term.zh)
        ),
    ),
    "wall_motion": tuple(
        name
        for code, term in MOTION_PATTERNS.items()
        if code != "normal"
        for name in (term.en, term.zh)
    ),
}
_JUDGED = {
    one.finding: (one.en, one.zh, FINDINGS[one.finding].en, FINDINGS[one.finding].zh, *one.synonyms)
    for one in MEASUREMENTS.values()
} | {"wall_motion": ("wall motion", "室壁运动")}


def findings_stated(text: str) -> dict[str, bool]:
    """Findings that a report or caption states, in either language.

    A measured finding is stated when its measurement is judged beside it ("LVEF 35 % (reduced)"); any other when it is
    named. A denial holds for what follows it in its sentence, through a list too, until something is affirmed. Where
    sentences disagree, present wins: reports deny in general and name in particular.

    Returns:
        Finding to abnormal (True) or denied (False); what is not stated is not in it.
    """
    sections = split_sections(text)
    stated: dict[str, bool] = {}
    for part in sections.values() or [text]:
        for sentence in _SENTENCE.split(part):
            denied = False
            for item in _ITEM.split(sentence):
                denied = denied and not _AFFIRMATION.search(item)
                for code, abnormal in _in_item(item, denied=denied).items():
                    stated[code] = stated.get(code, False) or abnormal
                denied = denied or bool(_DENIAL.search(item))
    return stated


def _in_item(item: str, *, denied: bool) -> dict[str, bool]:
    """Findings that one item of a list states, when what came before it in the sentence was denied or not."""
    found: dict[str, bool] = {}
    for code, names in _JUDGED.items():
        judged = _judgement(item, denied=denied) if any_of(names).search(item) else None
        if judged is not None:
            found[code] = judged
    for code, names in _PRESENCE.items():
        match = any_of(names).search(item)
        if match:
            absent = (
                denied
                or _DENIAL.search(item[: match.start()])
                or _DENIED_AFTER.search(item[match.end() :])
            )
            found[code] = found.get(code, False) or not absent
    return found


def _judgement(item: str, *, denied: bool) -> bool | None:
    if _NOT_NORMAL.search(item):
        return True
    abnormal = _ABNORMAL.search(item)
    if abnormal:
        return not denied and not _DENIAL.search(item[: abnormal.start()])
    return False if _NORMAL.search(item) else None
