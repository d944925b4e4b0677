"""Reports and captions written from labels in both languages, and sections read back.

A value that is unknown, or that the shown sequences cannot give, is left out; it is never written
as normal.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

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

# Section to its English and Chinese name.
SECTION_NAMES = {
    "structure": ("Structure", "结构"),
    "function": ("Function", "功能"),
    "lge": ("LGE", "延迟强化"),
    "other": ("Other", "其他"),
    "impression": ("Impression", "结论"),
}
# Ends a section that was cut off before it was finished.
CUT = "…"
_COLONS = (":", "：")
_STRUCTURE = ("lvedd_mm", "wall_thickness_mm", "rvedd_mm", "la_diameter_mm", "ra_diameter_mm")
_FUNCTION = ("lvef_percent", "lvedv_ml", "lvesv_ml", "rvef_percent", "rvedv_ml")
# Findings of the sections "lge" and "other" with their English and Chinese names.
_ENHANCEMENT = (
    ("rv_lge", "RV enhancement", "右心室强化"),
    ("pericardial_enhancement", "pericardial enhancement", "心包强化"),
)
# Late enhancement of which no pattern is known; of the right ventricle it says nothing.
_ENHANCED = ("LV late enhancement", "左心室延迟强化")
_NOT_ENHANCED = ("no LV late enhancement", "未见左心室延迟强化")
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
OTHER_FINDINGS = tuple(code for code, _, _ in _OTHER)
# What a report says where none of the other findings is there.
NOTHING_FURTHER = ("no further abnormality", "未见其他异常")


def _is_shown(sequences: Collection[str], shown: Collection[str]) -> bool:
    """Return whether any of the sequences is shown."""
    return any(sequence in shown for sequence in sequences)


def _in_language(language: str, english: str, chinese: str) -> str:
    """Return one of two words for the same by language (`en` or `zh`)."""
    return english if language == "en" else chinese


@dataclass(frozen=True)
class _Phrases:
    """Phrases about one study, from which its report and captions are built.

    Attributes:
        labels: Labels of the study.
        shown: Sequences that the text may rely on.
        language: `en` or `zh`.
        number: Function that writes numbers.
    """

    labels: StudyLabels
    shown: Collection[str]
    language: str
    number: NumberWriter

    def measured(self, names: Collection[str]) -> list[str]:
        """Return the measurements that are known and shown, each with its unit and judgement."""
        phrases = []
        for name in names:
            measurement = MEASUREMENTS[name]
            value = self.labels.measurements.get(name)
            if value is None or not _is_shown(measurement.sequences, self.shown):
                continue
            written = f"{self.number(name, value)} {measurement.unit}"
            judgement = self._judgement(name, measurement.finding)
            phrases.append(f"{measurement.name(self.language)} {written}{judgement}")
        return phrases

    def _judgement(self, measurement: str, finding: str) -> str:
        """Return in brackets whether a measurement is normal, empty where unknown."""
        abnormal = self.labels.findings.get(finding)
        if abnormal is None:
            return ""
        if not abnormal:
            return _in_language(self.language, " (normal)", "(正常)")
        if measurement.endswith("ef_percent"):
            return _in_language(self.language, " (reduced)", "(减低)")
        return _in_language(self.language, " (increased)", "(增大)")

    def motion(self) -> list[str]:
        """Return the wall motion, where it is known."""
        pattern = self.labels.patterns.get("motion_pattern")
        if not pattern:
            return []
        return [MOTION_PATTERNS[pattern].name(self.language)]

    def enhancement(self) -> list[str]:
        """Return the pattern of late enhancement and the findings beside it, where known."""
        phrases = []
        is_enhanced = self.labels.findings.get("lv_lge")
        if self.labels.patterns.get("lge_pattern"):
            phrases.append(self._lge_pattern())
        elif is_enhanced:
            phrases.append(_in_language(self.language, *_ENHANCED))
        elif is_enhanced is not None:
            phrases.append(_in_language(self.language, *_NOT_ENHANCED))
        for code, english, chinese in _ENHANCEMENT:
            if self.labels.findings.get(code):
                phrases.append(_in_language(self.language, english, chinese))
        return phrases

    def _lge_pattern(self) -> str:
        """Return the pattern of late enhancement with its region."""
        pattern = LGE_PATTERNS[self.labels.patterns["lge_pattern"]].name(self.language)
        code = self.labels.patterns.get("lge_region", "")
        if not code:
            return pattern
        region = WALL_REGIONS[code].name(self.language)
        return _in_language(self.language, f"{pattern} of the {region}", f"{region}{pattern}")

    def other_findings(self) -> list[str]:
        """Return the other findings that are present, or that there are none.

        There are none only where every one of them is known to be absent, and is shown.
        """
        phrases = []
        all_absent = True
        for code, english, chinese in _OTHER:
            abnormal = self.labels.findings.get(code)
            if not _is_shown(FINDING_SEQUENCES[code], self.shown):
                abnormal = None
            if abnormal:
                phrases.append(_in_language(self.language, english, chinese))
            if abnormal is None:
                all_absent = False
        pattern = self.labels.patterns.get("other_pattern")
        if pattern and _is_shown(CINE, self.shown):
            phrases.append(OTHER_PATTERNS[pattern].name(self.language))
        if all_absent and not phrases:
            phrases.append(_in_language(self.language, *NOTHING_FURTHER))
        return phrases

    def sentence(self, phrases: Collection[str]) -> str:
        """Return phrases as one sentence."""
        separator = _in_language(self.language, "; ", "；")
        full_stop = _in_language(self.language, ".", "。")
        return separator.join(phrases) + full_stop


def not_assessed(language: str) -> str:
    """Return the text of a section about which nothing is known."""
    return _in_language(language, "not assessed.", "未评估。")


def write_report(
    labels: StudyLabels, shown: Collection[str], language: str, number: NumberWriter = plain_number
) -> dict[str, str]:
    """Write the sections of a report.

    Args:
        labels: Labels of the study.
        shown: Sequences that the report may rely on.
        language: `en` or `zh`.
        number: Function that writes numbers.

    Returns:
        Section (`cmrvlm.study.vocabulary.REPORT_SECTIONS`) to text. A section about which nothing
        is known says so; the impression is absent when the disease is unknown.
    """
    study = _Phrases(labels, shown, language, number)
    phrases = {
        "structure": study.measured(_STRUCTURE),
        "function": study.measured(_FUNCTION),
        "lge": [],
        "other": study.other_findings(),
    }
    if _is_shown(CINE, shown):
        phrases["function"] += study.motion()
    if "lge" in shown:
        phrases["lge"] = study.enhancement()

    sections = dict.fromkeys(phrases, not_assessed(language))
    for section, words in phrases.items():
        if words:
            sections[section] = study.sentence(words)
    if labels.diseases:
        names = [DISEASES[code].name(language) for code in DISEASES if code in labels.diseases]
        sections["impression"] = study.sentence(names)
    return sections


def write_captions(
    labels: StudyLabels, shown: Collection[str], language: str, number: NumberWriter = plain_number
) -> dict[str, str]:
    """Write one sentence about each shown sequence about which something is known.

    Args:
        labels: Labels of the study.
        shown: Sequences to caption.
        language: `en` or `zh`.
        number: Function that writes numbers.

    Returns:
        Sequence to caption.
    """
    captions = {}
    for sequence in shown:
        study = _Phrases(labels, (sequence,), language, number)
        if sequence == "sax":
            phrases = study.measured((*_STRUCTURE[:3], *_FUNCTION[:1])) + study.motion()
        elif sequence == "lax_4ch":
            phrases = study.measured(_STRUCTURE[3:]) + study.other_findings()
        else:
            phrases = study.enhancement()
        if phrases:
            captions[sequence] = study.sentence(phrases)
    return captions


def headings(language: str, sections: Collection[str] = tuple(SECTION_NAMES)) -> list[str]:
    """Return the headings of sections as they stand in a report, in the fixed order.

    Each has its colon, and all but the first the space that separates it from the section before.
    """
    texts = []
    for section, (english, chinese) in SECTION_NAMES.items():
        if section in sections:
            texts.append(_in_language(language, f" {english}:", f"{chinese}："))
    if texts:
        texts[0] = texts[0].lstrip()
    return texts


def all_headings() -> list[str]:
    """Return all texts that are read as headings, in any language and with either colon."""
    names = [name for both in SECTION_NAMES.values() for name in both]
    return [f"{name}{colon}" for name in names for colon in _COLONS]


def join_sections(sections: Mapping[str, str], language: str) -> str:
    """Join the sections of a report, each behind its heading, in the fixed order."""
    gap = _in_language(language, " ", "")
    ordered = [section for section in SECTION_NAMES if section in sections]
    texts = [
        f"{heading}{gap}{sections[section]}"
        for section, heading in zip(ordered, headings(language, ordered), strict=True)
    ]
    return "".join(texts)


def split_sections(text: str, *, truncated: bool = False) -> dict[str, str]:
    """Read the sections of a report in either language.

    A section whose heading is missing is absent, and so is one whose heading occurs twice: which of
    the two holds cannot be known. Of a truncated text the last section is absent too, and so is one
    that was closed before it was
    finished: half a section is never taken for a whole one.

    Args:
        text: Text of the report.
        truncated: Whether the text was cut off at its end.

    Returns:
        Section to text, in the order of the report.
    """
    starts = []
    repeated = set()
    for section in SECTION_NAMES:
        places = _places_of_heading(text, section)
        if places:
            starts.append((*places[0], section))
        if len(places) > 1:
            repeated.add(section)
    starts.sort()
    # A section ends where the next heading begins.
    ends = [*(start for start, _, _ in starts[1:]), len(text)]

    sections: dict[str, str] = {}
    for (_, begin, section), end in zip(starts, ends, strict=False):
        sections[section] = text[begin:end].strip()
    if truncated and sections:
        sections.popitem()
    return {
        section: content
        for section, content in sections.items()
        if section not in repeated and not content.endswith(CUT)
    }


def _places_of_heading(text: str, section: str) -> list[tuple[int, int]]:
    """Return begin and end of each heading of a section in a text, those in English first."""
    places = []
    for name, colon in zip(SECTION_NAMES[section], _COLONS, strict=True):
        heading = f"{name}{colon}"
        begin = text.find(heading)
        while begin >= 0:
            end = begin + len(heading)
            places.append((begin, end))
            begin = text.find(heading, end)
    return places
