"""Read a `study.json` that people wrote, with errors that name its field."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cmrvlm.errors import CmrvlmError, naming_file
from cmrvlm.study.codec import META_FILE, labels_to_json
from cmrvlm.study.frame_times import check_frame_times
from cmrvlm.study.measurements import DEMOGRAPHICS, check_plausible
from cmrvlm.study.study import StudyLabels
from cmrvlm.study.vocabulary import DISEASES, FINDINGS

_SEXES = ("m", "f")
_REMEDY = "Correct it, or write null when it is unknown."
_ADVICE = f"Correct {META_FILE}, or take it out."


def read_study_json(folder: Path) -> dict[str, Any]:
    """Read and check the `study.json` of a folder; return an empty dictionary when it has none.

    Raises:
        CmrvlmError: It is no JSON, has another form, or states what cannot be.
    """
    path = folder / META_FILE
    if not path.is_file():
        if path.is_symlink() or path.exists():
            raise CmrvlmError("this is no regular file", file=path, remedy=_ADVICE)
        return {}
    try:
        meta = json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CmrvlmError(f"this is no JSON ({error})", file=path, remedy=_ADVICE) from error
    with naming_file(path):
        return checked_meta(meta)


def is_synthetic(meta: Mapping[str, Any]) -> bool:
    """Return whether a `study.json` says that the study is a phantom."""
    return meta.get("synthetic") is True


def checked_meta(meta: Any) -> dict[str, Any]:
    """Return the content of a `study.json` with every label, unknown where it is not stated.

    Raises:
        CmrvlmError: It has another form, or states what cannot be; the field is named.
    """
    checked = dict(_mapping(meta, META_FILE))
    series = _mapping(checked.get("series"), "series")
    checked["series"] = {name: _checked_series(data, name) for name, data in series.items()}
    if "labels" in checked:
        checked["labels"] = _checked_labels(checked["labels"])
    patient = checked.get("patient_id", "")
    if not isinstance(patient, (str, int)):
        raise _wrong(patient, "patient_id", "text")
    return checked


def _wrong(value: Any, field: str, needed: str) -> CmrvlmError:
    """Return the error about a value that is not what its field needs."""
    shown = repr(value)
    if len(shown) > 60:
        shown = f"{shown[:60]}…"
    return CmrvlmError(f"{shown} is no {needed}", field=field, remedy=_REMEDY)


def _mapping(value: Any, field: str) -> Mapping[str, Any]:
    """Return an object of JSON; null is an empty one.

    Raises:
        CmrvlmError: It is something else.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _wrong(value, field, "object {…}")
    return value


def _list(value: Any, field: str) -> list[Any]:
    """Return a list of JSON.

    Raises:
        CmrvlmError: It is something else.
    """
    if not isinstance(value, list):
        raise _wrong(value, field, "list […]")
    return value


def _number(value: Any, field: str) -> float:
    """Return a finite number.

    Raises:
        CmrvlmError: It is something else.
    """
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # Python reads the NaN and Infinity that other programs write; integers may be of any length.
    if not is_number or abs(value) > 1e300 or not math.isfinite(value):
        raise _wrong(value, field, "finite number")
    return float(value)


def _checked_series(data: Any, name: str) -> dict[str, Any]:
    """Return what is stated of a series, with numbers in place of null left out.

    Raises:
        CmrvlmError: A field has another form.
    """
    series = dict(_mapping(data, f"series.{name}"))
    for field in ("frame_times_ms", "slice_places_mm"):
        if series.get(field) is not None:
            numbers = _list(series[field], field)
            series[field] = [_number(value, field) for value in numbers]
    check_frame_times(series.get("frame_times_ms") or [])
    for field in ("levels", "drawn"):
        if series.get(field) is not None:
            _list(series[field], field)
    if series.get("affine") is not None:
        rows = [_list(row, "affine") for row in _list(series["affine"], "affine")]
        series["affine"] = [[_number(value, "affine") for value in row] for row in rows]
        if [len(row) for row in rows] != [4] * 4:
            raise CmrvlmError(
                "this is no affine of four by four numbers", field="affine", remedy="Take it out."
            )
    else:
        series.pop("affine", None)
    phases = _mapping(series.get("phases"), "phases")
    for phase, frame in phases.items():
        if not isinstance(frame, int) or isinstance(frame, bool):
            raise _wrong(frame, f"phases.{phase}", "number of a frame")
    return series


def _checked_labels(data: Any) -> dict[str, Any]:
    """Return labels as `labels_to_json` writes them, unknown where they are not stated.

    Raises:
        CmrvlmError: There is an unknown field, or one of another form.
    """
    unknown = labels_to_json(StudyLabels())
    labels = {**unknown, **_mapping(data, "labels")}
    extra = sorted(set(labels) - set(unknown))
    if extra:
        raise CmrvlmError(
            "unknown field",
            field=f"labels.{extra[0]}",
            remedy=f"Take it out; known: {', '.join(unknown)}.",
        )
    if labels["diseases"] is not None:
        _check_known(_list(labels["diseases"], "diseases"), DISEASES, "diseases")
    for field in ("findings", "patterns", "report", "captions", "boxes_mm"):
        labels[field] = dict(_mapping(labels[field], field))
    _check_findings(labels["findings"])
    _check_boxes(labels["boxes_mm"])
    for field in ("report", "captions"):
        for language, texts in labels[field].items():
            _mapping(texts, f"{field}.{language}")
    for field in ("measurements", "follow_up"):
        labels[field] = _known_numbers(labels[field], field)
    labels["demographics"] = _demographics(labels["demographics"])
    labels["questions"] = _list(labels["questions"] or [], "questions")
    for question in labels["questions"]:
        _mapping(question, "questions")
    return labels


def _check_findings(findings: Mapping[str, Any]) -> None:
    """Refuse findings that are unknown, or neither true, false nor null.

    Raises:
        CmrvlmError: There is one.
    """
    _check_known(list(findings), FINDINGS, "findings")
    for code, flag in findings.items():
        if flag is not None and not isinstance(flag, bool):
            raise _wrong(flag, f"findings.{code}", "true, false or null")


def _check_boxes(boxes: Mapping[str, Any]) -> None:
    """Refuse boxes of other than six numbers.

    Raises:
        CmrvlmError: There is one.
    """
    for name, box in boxes.items():
        field = f"boxes_mm.{name}"
        if len([_number(value, field) for value in _list(box, field)]) != 6:
            raise _wrong(box, field, "box of six numbers")


def _check_known(codes: list[Any], known: Mapping[str, Any], field: str) -> None:
    """Refuse a code that is not in a vocabulary.

    Raises:
        CmrvlmError: There is one.
    """
    for code in codes:
        if not isinstance(code, str) or code not in known:
            raise CmrvlmError(
                f"unknown code {code!r}", field=field, remedy=f"Known: {', '.join(known)}."
            )


def _known_numbers(values: Any, field: str) -> dict[str, float]:
    """Return the numbers of an object that are not null."""
    return {
        name: _number(value, f"{field}.{name}")
        for name, value in _mapping(values, field).items()
        if value is not None
    }


def _demographics(values: Any) -> dict[str, Any]:
    """Return the known demographics.

    Raises:
        CmrvlmError: One is not that of a person.
    """
    demographics = {}
    for name, value in _mapping(values, "demographics").items():
        if value is None:
            continue
        if name == "sex":
            if value not in _SEXES:
                raise _wrong(value, "sex", "sex: m or f")
        else:
            value = _number(value, name)
            if name in DEMOGRAPHICS:
                check_plausible(name, value)
        demographics[name] = value
    return demographics
