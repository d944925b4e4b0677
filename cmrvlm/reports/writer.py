"""Reports and captions written from what is known: labels in, sentences in English and Chinese out.

A value that is unknown, or that the shown sequences cannot give, is left out; it is never written as normal.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from cmrvlm.reports.numbers import NumberWriter, plain_number
from cmrvlm.study.measurements import MEASUREMENTS
from cmrvlm.study.study import StudyLabels
from cmrvlm.study.vocabulary import (
    CINE,
    DISEASES,
    FINDING_SEQUENCES,
    LGE_PATTERNS,
    MOTION_PATTERNS,
    OTHER_PATTERNS,
    WALL_REGIONS,
)

SECTION_NAMES = {
    "structure": ("Structure", "结构"),
    "function": ("Function", "功能"),
    "lge": ("LGE", "延迟强化"),
    "other": ("Other", "其他"),
    "impression": ("Impression", "结论"),
}
CUT = "…"  # ends a section that was not finished
_STRUCTURE = ("lvedd_mm", "wall_thickness_mm", "rvedd_mm", "la_diameter_mm", "ra_diameter_mm")
_FUNCTION = ("lvef_percent", "lvedv_ml", "lvesv_ml", "rvef_percent", "rvedv_ml")
# finding, English and Chinese name
_OTHER = (
    ("mitral_regurgitation", "mitral regurgitation", "二尖瓣反流"),
    ("tricuspid_regurgitation", "tricuspid regurgitation", "三尖瓣反流"),
    ("aortic_regurgitation", "aortic regurgitation", "主动脉瓣反流"),
    ("aneurysm", "aneurysm", "室壁瘤"),
    ("thrombus", "thrombus", "血栓"),
    ("fatty_infiltration", "fatty infiltration of the RV", "右心室脂肪浸润"),
    ("pericardial_effusion", "pericardial effusion", "心包积液"),
    ("pleural_effusion", "pleural effusion", "胸腔积液"),
)


def _shown(needs: Collection[str], shown: Collection[str]) -> bool:
    return any(sequence in shown for sequence in needs)


def _judged(abnormal: bool | None, language: str, low: bool) -> str:
    if abnormal is None:
        return ""
    if not abnormal:
        return " (normal)" if language == "en" else "(正常)"
    if language == "en":
        return " (reduced)" if low else " (increased)"
    return "(减低)" if low else "(增大)"


def _measured(
    names: Collection[str],
    labels: StudyLabels,
    shown: Collection[str],
    language: str,
    number: NumberWriter,
) -> list[str]:
    parts = []
    for name in names:
        one, value = MEASUREMENTS[name], labels.measurements.get(name)
        if value is None or not _shown(one.sequences, shown):
            continue
        judged = _judged(
            labels.findings.get(one.finding), language, low=name.endswith("ef_percent")
        )
        parts.append(f"{one.name(language)} {number(name, value)} {one.unit}{judged}")
    return parts


def _pattern(labels: StudyLabels, language: str) -> str:
    pattern = LGE_PATTERNS[labels.patterns["lge_pattern"]].name(language)
    region = labels.patterns.get("lge_region", "")
    if not region:
        return pattern
    where = WALL_REGIONS[region].name(language)
    return f"{where}{pattern}" if language == "zh" else f"{pattern} of the {where}"


def _lge_parts(labels: StudyLabels, language: str) -> list[str]:
    parts = [_pattern(labels, language)] if labels.patterns.get("lge_pattern") else []
    extra = (
        ("rv_lge", "RV enhancement", "右心室强化"),
        ("pericardial_enhancement", "pericardial enhancement", "心包强化"),
    )
    parts += [
        english if language == "en" else chinese
        for code, english, chinese in extra
        if labels.findings.get(code)
    ]
    return parts


def _present(labels: StudyLabels, shown: Collection[str], language: str) -> list[str]:
    known = [
        row
        for row in _OTHER
        if labels.findings.get(row[0]) is not None and _shown(FINDING_SEQUENCES[row[0]], shown)
    ]
    found = [
        english if language == "en" else chinese
        for code, english, chinese in known
        if labels.findings[code]
    ]
    extra = labels.patterns.get("other_pattern")
    if extra and _shown(CINE, shown):
        found.append(OTHER_PATTERNS[extra].name(language))
    if found or not known:
        return found
    return ["no further abnormality" if language == "en" else "未见其他异常"]


def not_assessed(language: str) -> str:
    """What a section says about which nothing is known."""
    return "not assessed." if language == "en" else "未评估。"


def write_report(
    labels: StudyLabels, shown: Collection[str], language: str, number: NumberWriter = plain_number
) -> dict[str, str]:
    """Sections of a report in `language` about the `shown` sequences, with numbers as `number` writes them.

    Returns:
        Section (`cmrvlm.study.vocabulary.REPORT_SECTIONS`) to text. A section about which nothing is known says so; the
        impression is absent when the disease is unknown.
    """
    joint, stop = ("; ", ".") if language == "en" else ("；", "。")
    structure = _measured(_STRUCTURE, labels, shown, language, number)
    function = _measured(_FUNCTION, labels, shown, language, number)
    motion = labels.patterns.get("motion_pattern")
    if motion and _shown(CINE, shown):
        function.append(MOTION_PATTERNS[motion].name(language))
    parts = {
        "structure": structure,
        "function": function,
        "lge": _lge_parts(labels, language) if "lge" in shown else [],
        "other": _present(labels, shown, language),
    }
    sections = {
        name: joint.join(part) + stop if part else not_assessed(language)
        for name, part in parts.items()
    }
    if labels.diseases is not None:
        names = [DISEASES[code].name(language) for code in DISEASES if code in labels.diseases]
        sections["impression"] = joint.join(names) + stop
    return sections


def write_captions(
    labels: StudyLabels, shown: Collection[str], language: str, number: NumberWriter = plain_number
) -> dict[str, str]:
    """One sentence about each shown sequence on which something is known."""
    joint, stop = ("; ", ".") if language == "en" else ("；", "。")
    captions = {}
    for sequence in shown:
        alone = (sequence,)
        rows = {
            "sax": _measured((*_STRUCTURE[:3], *_FUNCTION[:1]), labels, alone, language, number),
            "lax_4ch": _measured(_STRUCTURE[3:], labels, alone, language, number),
            "lge": _lge_parts(labels, language),
        }[sequence]
        motion = labels.patterns.get("motion_pattern")
        if sequence == "sax" and motion:
            rows.append(MOTION_PATTERNS[motion].name(language))
        if sequence == "lax_4ch":
            rows += _present(labels, alone, language)
        if rows:
            captions[sequence] = joint.join(rows) + stop
    return captions


def headings(language: str, sections: Collection[str] = tuple(SECTION_NAMES)) -> list[str]:
    """Names of sections as they stand in a report, each with its colon and what sets it apart, in the fixed order."""
    position = 1 if language == "zh" else 0
    colon, gap = ("：", "") if language == "zh" else (":", " ")
    found = [
        f"{gap}{names[position]}{colon}" for key, names in SECTION_NAMES.items() if key in sections
    ]
    return [one.lstrip() if place == 0 else one for place, one in enumerate(found)]


def all_headings() -> list[str]:
    """Everything that is read as the name of a section, in any language and with either colon."""
    return [
        f"{name}{colon}"
        for names in SECTION_NAMES.values()
        for name in names
        for colon in (":", "：")
    ]


def join_sections(sections: Mapping[str, str], language: str) -> str:
    """One text from a report's sections, each behind its name, in the fixed order."""
    gap = "" if language == "zh" else " "
    own = [key for key in SECTION_NAMES if key in sections]
    return "".join(
        f"{heading}{gap}{sections[key]}"
        for heading, key in zip(headings(language, own), own, strict=True)
    )


def split_sections(text: str, *, truncated: bool = False) -> dict[str, str]:
    """Sections read back from a report in either language.

    A section whose name is not there is absent, and so is one whose name is there twice: which of the two holds cannot
    be known. Of a truncated text the last section is absent too, and so is one that was closed before it was finished:
    half a section is never taken for a whole one.
    """
    starts = []
    twice = {
        key
        for key, names in SECTION_NAMES.items()
        if sum(text.count(name + colon) for name, colon in zip(names, (":", "："), strict=True)) > 1
    }
    for key, names in SECTION_NAMES.items():
        for name, colon in zip(names, (":", "："), strict=True):
            at = text.find(name + colon)
            if at >= 0:
                starts.append((at, at + len(name + colon), key))
                break
    starts.sort()
    ends = [start[0] for start in starts[1:]] + [len(text)] * bool(starts)
    sections = {
        key: text[begin:end].strip() for (_, begin, key), end in zip(starts, ends, strict=True)
    }
    if truncated and sections:
        sections.popitem()
    return {
        key: section
        for key, section in sections.items()
        if key not in twice and not section.endswith(CUT)
    }
