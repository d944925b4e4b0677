"""Labels of a `study.json` that people wrote, with errors that name the field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.codec import labels_to_json
from cmrvlm.study.json_fields import (
    REMEDY,
    check_codes,
    check_fields,
    json_list,
    json_number,
    json_object,
    json_string,
    wrong,
)
from cmrvlm.study.measurements import (
    DEMOGRAPHICS,
    FOLLOW_UP,
    MEASUREMENTS,
    check_plausible,
    check_volumes,
)
from cmrvlm.study.study import StudyLabels, UserQuestion
from cmrvlm.study.vocabulary import (
    DISEASES,
    FINDINGS,
    LANGUAGES,
    LGE_PATTERNS,
    MOTION_PATTERNS,
    OTHER_PATTERNS,
    REPORT_SECTIONS,
    SEQUENCES,
    STRUCTURES,
    WALL_REGIONS,
)

_SEXES = ("m", "f")
# Phantoms state these too; no head and no report names them.
_OF_PHANTOMS = ("lvedv_ml_per_m2", "rvedv_ml_per_m2", "lv_mass_g")
# Codes of each pattern; an empty text, which phantoms state, is none.
_PATTERNS = {
    "lge_pattern": tuple(LGE_PATTERNS),
    "lge_region": tuple(WALL_REGIONS),
    "motion_pattern": tuple(MOTION_PATTERNS),
    "other_pattern": tuple(OTHER_PATTERNS),
}
_PERSON = ("sex", *DEMOGRAPHICS)
_FOLLOW_UP = ("months", "event")
_LISTS_OF_QUESTION = ("options", "sequences")
# Names of the fields of each object in the labels.
FIELDS: dict[str, tuple[str, ...]] = {
    "findings": tuple(FINDINGS),
    "measurements": (*MEASUREMENTS, *_OF_PHANTOMS),
    "patterns": tuple(_PATTERNS),
    "report": LANGUAGES,
    "captions": LANGUAGES,
    "boxes_mm": tuple(STRUCTURES),
    "demographics": _PERSON,
    "follow_up": _FOLLOW_UP,
}


def checked_labels(data: Any) -> dict[str, Any]:
    """Return labels as `labels_to_json` writes them, unknown where they are not stated.

    Raises:
        CmrvlmError: There is an unknown field, or one that states what cannot be.
    """
    unknown = labels_to_json(StudyLabels())
    stated = json_object(data, "labels")
    check_fields(stated, unknown, "labels")
    labels = {**unknown, **stated}
    if labels["diseases"] is not None:
        check_codes(json_list(labels["diseases"], "diseases"), DISEASES, "diseases")
    for field in FIELDS:
        labels[field] = json_object(labels[field], field)
        if field != "findings":
            check_fields(labels[field], FIELDS[field], field)
    _check_findings(labels["findings"])
    _check_boxes(labels["boxes_mm"])
    for name, text in labels["patterns"].items():
        if text != "":
            check_codes([text], _PATTERNS[name], f"patterns.{name}")
    labels["report"] = _texts(labels["report"], "report", REPORT_SECTIONS)
    labels["captions"] = _texts(labels["captions"], "captions", SEQUENCES)
    labels["measurements"] = _measurements(labels["measurements"])
    labels["follow_up"] = _follow_up(labels["follow_up"])
    labels["demographics"] = _demographics(labels["demographics"])
    questions = json_list(labels["questions"], "questions")
    labels["questions"] = [_question(question, index) for index, question in enumerate(questions)]
    return labels


def _check_findings(findings: Mapping[str, Any]) -> None:
    """Refuse findings that are unknown, or neither true nor false.

    Raises:
        CmrvlmError: There is one.
    """
    check_codes(list(findings), FINDINGS, "findings")
    for code, flag in findings.items():
        if not isinstance(flag, bool):
            raise wrong(flag, f"findings.{code}", "true, false or null")


def _check_boxes(boxes: Mapping[str, Any]) -> None:
    """Refuse boxes of other than six numbers.

    Raises:
        CmrvlmError: There is one.
    """
    for name, box in boxes.items():
        field = f"boxes_mm.{name}"
        if len([json_number(value, field) for value in json_list(box, field)]) != 6:
            raise wrong(box, field, "box of six numbers")


def _texts(
    languages: Mapping[str, Any], field: str, names: tuple[str, ...]
) -> dict[str, dict[str, str]]:
    """Return texts by language and name.

    Raises:
        CmrvlmError: A name is unknown, or a value is no text.
    """
    checked = {}
    for language, values in languages.items():
        place = f"{field}.{language}"
        texts = json_object(values, place)
        check_fields(texts, names, place)
        checked[language] = {
            name: json_string(text, f"{place}.{name}") for name, text in texts.items()
        }
    return checked


def _measurements(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the measurements.

    Raises:
        CmrvlmError: One is that of no heart, or volumes are swapped.
    """
    numbers = {}
    for name, value in values.items():
        field = f"measurements.{name}"
        numbers[name] = json_number(value, field)
        if name in MEASUREMENTS:
            check_plausible(name, numbers[name], field)
        elif numbers[name] <= 0:
            raise wrong(value, field, "positive number")
    check_volumes(numbers, {name: f"measurements.{name}" for name in numbers})
    return numbers


def _follow_up(values: Mapping[str, Any]) -> dict[str, float]:
    """Return months of follow-up and whether they ended with an event; empty where unknown.

    Raises:
        CmrvlmError: One is stated without the other, or cannot be.
    """
    if not values:
        return {}
    missing = [name for name in _FOLLOW_UP if name not in values]
    if missing:
        raise CmrvlmError(
            "follow-up needs months and event",
            field=f"follow_up.{missing[0]}",
            remedy="State both, or none.",
        )
    months = json_number(values["months"], "follow_up.months")
    check_plausible(FOLLOW_UP, months, "follow_up.months")
    event = values["event"]
    if not isinstance(event, (int, float)) or event not in (0, 1):
        raise wrong(event, "follow_up.event", "event: 1, 0 or null")
    return {"months": months, "event": float(event)}


def _demographics(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the demographics.

    Raises:
        CmrvlmError: One is not that of a person.
    """
    demographics: dict[str, Any] = {}
    for name, value in values.items():
        if name == "sex":
            if value not in _SEXES:
                raise wrong(value, "sex", "sex: m or f")
            demographics[name] = value
            continue
        demographics[name] = json_number(value, name)
        check_plausible(name, demographics[name])
    return demographics


def _question(data: Any, index: int) -> dict[str, Any]:
    """Return a question with its lists, empty where they are not stated.

    Raises:
        CmrvlmError: It has another form, or lacks a text.
    """
    place = f"questions.{index}"
    question = json_object(data, place)
    check_fields(question, [field.name for field in fields(UserQuestion)], place)
    for field in fields(UserQuestion):
        if field.default is MISSING and field.name not in question:
            raise CmrvlmError("the field is missing", field=f"{place}.{field.name}", remedy=REMEDY)
    for name, value in question.items():
        if name not in _LISTS_OF_QUESTION:
            json_string(value, f"{place}.{name}")
    for name in _LISTS_OF_QUESTION:
        values = json_list(question.get(name, []), f"{place}.{name}")
        question[name] = [json_string(value, f"{place}.{name}") for value in values]
    check_codes(question["sequences"], SEQUENCES, f"{place}.sequences")
    return question
