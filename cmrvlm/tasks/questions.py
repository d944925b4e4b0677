"""List the questions that labels answer, for closed and open question answering."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from cmrvlm.study.study import StudyLabels
from cmrvlm.study.vocabulary import (
    CINE,
    DISEASES,
    EF_GRADE_LIMITS_PERCENT,
    EF_GRADES,
    FINDINGS,
    LGE_PATTERNS,
    MOTION_PATTERNS,
    OTHER_PATTERNS,
    WALL_REGIONS,
    Term,
)

_CINES = frozenset(CINE)
Prompts = Mapping[str, tuple[str, ...]]
CHAMBERS = {
    "lv": Term("lv", "the left ventricle", "左心室"),
    "rv": Term("rv", "the right ventricle", "右心室"),
    "la": Term("la", "the left atrium", "左心房"),
    "ra": Term("ra", "the right atrium", "右心房"),
    "none": Term("none", "no chamber", "无心腔扩大"),
}
_CHAMBER_FINDING = {"lv": "lvedv", "rv": "rvedv", "la": "la_diameter", "ra": "ra_diameter"}
PRESENT_PATTERNS = {code: term for code, term in LGE_PATTERNS.items() if code != "none"}
VALVES = {
    "mitral": Term("mitral", "the mitral valve", "二尖瓣"),
    "tricuspid": Term("tricuspid", "the tricuspid valve", "三尖瓣"),
    "aortic": Term("aortic", "the aortic valve", "主动脉瓣"),
    "none": Term("none", "no valve", "无瓣膜反流"),
}


@dataclass(frozen=True)
class LabelQuestion:
    """A question about something that labels may state.

    Attributes:
        key: Its name in results.
        category: `structure`, `function`, `lge` or `other`.
        terms: Code to possible answer.
        truth: Returns the right code for some labels, None when they do not state one.
        any_of: The question is asked when at least one of these sequences is shown.
        all_of: All of these sequences must be shown.
        prompts: Language to wordings; the last one is never shown in training.
        closed_only: The question makes sense only with options.
        absent: Code that says that there is nothing of the kind. It is an answer to the open question alone: among
            options it would be right most often, and a model that looks at no image would do well. Closed questions
            ask which, where there is one; whether there is one is what the findings are asked for.
    """

    key: str
    category: str
    terms: Mapping[str, Term]
    truth: Callable[[StudyLabels], str | None]
    any_of: frozenset[str]
    prompts: Prompts
    all_of: frozenset[str] = frozenset()
    closed_only: bool = False
    absent: str = ""

    def question(self, language: str, wording: int, *, paraphrased: bool) -> str:
        """Return one of the wordings that training shows, or the one that it never shows."""
        *trained, unseen = self.prompts[language]
        if paraphrased:
            return unseen
        return trained[wording % len(trained)]

    def askable(self, shown: Collection[str]) -> bool:
        """Return whether the shown sequences can answer the question."""
        return bool(self.any_of & set(shown)) and self.all_of <= set(shown)


def _pattern(
    name: str, without: tuple[str, ...] = ("", "none")
) -> Callable[[StudyLabels], str | None]:
    """Return a function that reads a named pattern from labels, None for the codes in `without`."""

    def truth(labels: StudyLabels) -> str | None:
        code = labels.patterns.get(name, "")
        return None if code in without else code

    return truth


def _ef_grade(labels: StudyLabels) -> str | None:
    value = labels.measurements.get("lvef_percent")
    if value is None:
        return None
    return next(grade for grade, lowest in EF_GRADE_LIMITS_PERCENT.items() if value >= lowest)


def _one_of(findings: Mapping[str, str]) -> Callable[[StudyLabels], str | None]:
    """Return a function that reads the one abnormal finding of a group from labels.

    It returns `none` when all are normal, and None when one is not stated or several are abnormal.

    Args:
        findings: Code of the answer to the finding that it stands for.
    """

    def truth(labels: StudyLabels) -> str | None:
        stated = {code: labels.findings.get(finding) for code, finding in findings.items()}
        if any(value is None for value in stated.values()):
            return None
        present = [code for code, value in stated.items() if value]
        if not present:
            return "none"
        return present[0] if len(present) == 1 else None

    return truth


def _single_disease(labels: StudyLabels) -> str | None:
    if not labels.diseases or len(labels.diseases) != 1:
        return None
    return next(iter(labels.diseases))


def abnormal_finding(labels: StudyLabels) -> str | None:
    """Return the first abnormal finding in their fixed order, None when none is stated."""
    return next((code for code in FINDINGS if labels.findings.get(code)), None)


QUESTIONS = (
    LabelQuestion(
        "diagnosis",
        "other",
        DISEASES,
        _single_disease,
        _CINES | {"lge"},
        {
            "en": (
                "Which diagnosis fits best?",
                "What is the most likely diagnosis?",
                "Which disease is it?",
                "Which label suits this heart?",
            ),
            "zh": (
                "哪项诊断最符合？",
                "最可能的诊断是什么？",
                "是哪种疾病？",
                "这颗心脏属于哪一类疾病？",
            ),
        },
        closed_only=True,
    ),
    LabelQuestion(
        "chamber",
        "structure",
        CHAMBERS,
        _one_of(_CHAMBER_FINDING),
        _CINES,
        {
            "en": (
                "Which chamber is enlarged?",
                "Is one of the chambers too large, and which?",
                "Which chamber is dilated?",
                "Name the cavity that exceeds its normal size.",
            ),
            "zh": (
                "哪个心腔扩大？",
                "是否有心腔过大，是哪个？",
                "哪个心腔增大？",
                "请指出超出正常大小的心腔。",
            ),
        },
        all_of=_CINES,
        absent="none",
    ),
    LabelQuestion(
        "ef_grade",
        "function",
        EF_GRADES,
        _ef_grade,
        frozenset({"sax"}),
        {
            "en": (
                "How is the left ventricular ejection fraction?",
                "Grade the systolic function of the left ventricle.",
                "Is the ejection fraction reduced, and how far?",
                "How well does the left ventricle eject?",
            ),
            "zh": (
                "左心室射血分数如何？",
                "请评价左心室收缩功能。",
                "射血分数是否减低，程度如何？",
                "左心室射血能力怎样？",
            ),
        },
        absent="normal",
    ),
    LabelQuestion(
        "motion",
        "function",
        MOTION_PATTERNS,
        _pattern("motion_pattern", ("",)),
        _CINES,
        {
            "en": (
                "How does the left ventricular wall move?",
                "Describe the wall motion.",
                "Is the wall motion abnormal, and how?",
                "What is the movement of the ventricle like?",
            ),
            "zh": (
                "左心室壁运动如何？",
                "请描述室壁运动。",
                "室壁运动有何异常？",
                "心室的活动情况怎样？",
            ),
        },
        absent="normal",
    ),
    LabelQuestion(
        "lge_pattern",
        "lge",
        PRESENT_PATTERNS,
        _pattern("lge_pattern"),
        frozenset({"lge"}),
        {
            "en": (
                "Which pattern does the late enhancement have?",
                "What kind of late enhancement is there?",
                "Describe the pattern of enhancement.",
                "In which layer of the wall does contrast stay?",
            ),
            "zh": (
                "延迟强化是什么类型？",
                "存在哪种延迟强化？",
                "请描述强化的类型。",
                "对比剂滞留在室壁的哪一层？",
            ),
        },
    ),
    LabelQuestion(
        "lge_region",
        "lge",
        WALL_REGIONS,
        _pattern("lge_region"),
        frozenset({"lge"}),
        {
            "en": (
                "Where is the late enhancement?",
                "Which wall shows late enhancement?",
                "Locate the late enhancement.",
                "On which side of the ventricle does contrast stay?",
            ),
            "zh": (
                "延迟强化位于何处？",
                "哪个壁有延迟强化？",
                "请指出延迟强化的部位。",
                "对比剂滞留在心室的哪一侧？",
            ),
        },
    ),
    LabelQuestion(
        "valve",
        "other",
        VALVES,
        _one_of({v: f"{v}_regurgitation" for v in VALVES if v != "none"}),
        frozenset({"lax_4ch"}),
        {
            "en": (
                "Which valve leaks?",
                "Is there a valve that regurgitates, and which?",
                "Name the leaking valve.",
                "Through which valve does blood flow back?",
            ),
            "zh": (
                "哪个瓣膜有反流？",
                "是否有瓣膜反流，是哪个？",
                "请说出反流的瓣膜。",
                "血液从哪个瓣膜倒流？",
            ),
        },
        all_of=_CINES,
        absent="none",
    ),
    LabelQuestion(
        "other_pattern",
        "other",
        OTHER_PATTERNS,
        _pattern("other_pattern"),
        _CINES,
        {
            "en": (
                "Which further abnormality is there?",
                "What else is abnormal in this heart?",
                "What other finding is there?",
                "Name the additional anomaly.",
            ),
            "zh": (
                "还有什么异常？",
                "这颗心脏还有哪些异常？",
                "还有哪些其他发现？",
                "请指出另外的异常。",
            ),
        },
    ),
    LabelQuestion(
        "abnormal_finding",
        "other",
        FINDINGS,
        abnormal_finding,
        _CINES,
        {
            "en": (
                "Which of these is abnormal?",
                "Which of these findings is present?",
                "Which one is not normal?",
                "Pick what is out of order.",
            ),
            "zh": (
                "下列哪项异常？",
                "存在下列哪项表现？",
                "哪一项不正常？",
                "请选出不正常的一项。",
            ),
        },
        all_of=_CINES | {"lge"},
        closed_only=True,
    ),
)
BY_KEY = {question.key: question for question in QUESTIONS}
