"""Read a `study.json` that people wrote, with errors that name its field."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from cmrvlm.errors import CmrvlmError, naming_file
from cmrvlm.study.codec import META_FILE, labels_to_json
from cmrvlm.study.frame_times import check_frame_times
from cmrvlm.study.json_fields import (
    check_codes,
    check_fields,
    check_no_misspelt,
    json_list,
    json_number,
    json_object,
    wrong,
)
from cmrvlm.study.labels_json import FIELDS, checked_labels
from cmrvlm.study.plain_text import check_text
from cmrvlm.study.study import StudyLabels
from cmrvlm.study.vocabulary import LEVELS, PHASES, SEQUENCES, STRUCTURES

_ADVICE = f"Correct {META_FILE}, or take it out."
# The cache writes the hashes of its arrays too.
_TOP = ("study_id", "patient_id", "synthetic", "labels", "series", "sha256")
_SERIES = (
    "affine",
    "frame_times_ms",
    "phases",
    "levels",
    "slice_places_mm",
    "drawn",
    # The cache writes whether there is a mask.
    "has_mask",
)


def _places() -> dict[str, str]:
    """Return the place of each field of a `study.json` by its name."""
    places = {name: f"series.<name>.{name}" for name in _SERIES}
    places |= {name: f"series.{name}" for name in SEQUENCES}
    places |= {name: f"series.<name>.phases.{name}" for name in PHASES}
    for group, names in FIELDS.items():
        places |= {name: f"labels.{group}.{name}" for name in names}
    places |= {name: f"labels.{name}" for name in labels_to_json(StudyLabels())}
    return places | {name: name for name in _TOP}


_PLACES = _places()


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
        check_text(meta, "", path)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CmrvlmError(f"this is no JSON ({error})", file=path, remedy=_ADVICE) from error
    with naming_file(path):
        return _checked_meta(meta, _series_in(folder))


def is_synthetic(meta: Mapping[str, Any]) -> bool:
    """Return whether a `study.json` says that the study is a phantom."""
    return meta.get("synthetic") is True


def _series_in(folder: Path) -> set[str]:
    """Return the names that series of a folder may have: tables name files as they like."""
    return {name.removesuffix(".gz").removesuffix(".nii") for name in os.listdir(folder)}


def _checked_meta(meta: Any, present: Collection[str]) -> dict[str, Any]:
    """Return the content of a `study.json` with every label, unknown where it is not stated.

    Args:
        meta: The content.
        present: Names of files beside it.

    Raises:
        CmrvlmError: It has another form, or states what cannot be; the field is named.
    """
    checked = json_object(meta, META_FILE)
    check_no_misspelt(checked, _TOP, _PLACES)
    series = json_object(checked.get("series"), "series")
    elsewhere = {name: data for name, data in series.items() if name not in present}
    check_fields(elsewhere, SEQUENCES, "series")
    checked["series"] = {name: _checked_series(data, name) for name, data in series.items()}
    if "labels" in checked:
        checked["labels"] = checked_labels(checked["labels"])
    patient = checked.get("patient_id", "")
    if not isinstance(patient, (str, int)) or isinstance(patient, bool):
        raise wrong(patient, "patient_id", "text")
    if not str(patient).strip():
        # All patients without a name would be one.
        checked.pop("patient_id", None)
    return checked


def _checked_series(data: Any, name: str) -> dict[str, Any]:
    """Return what is stated of a series, without what is null.

    Raises:
        CmrvlmError: A field is unknown, has another form, or states what cannot be.
    """
    place = f"series.{name}"
    series = json_object(data, place)
    check_fields(series, _SERIES, place)
    for field in ("frame_times_ms", "slice_places_mm"):
        if field in series:
            numbers = json_list(series[field], field)
            series[field] = [json_number(value, field) for value in numbers]
    check_frame_times(series.get("frame_times_ms", []))
    levels = json_list(series.get("levels", []), "levels")
    check_codes([level for level in levels if level is not None], LEVELS, "levels")
    check_codes(json_list(series.get("drawn", []), "drawn"), STRUCTURES, "drawn")
    if "affine" in series:
        series["affine"] = _checked_affine(series["affine"])
    series["phases"] = json_object(series.get("phases"), "phases")
    check_fields(series["phases"], PHASES, "phases")
    for phase, frame in series["phases"].items():
        if not isinstance(frame, int) or isinstance(frame, bool):
            raise wrong(frame, f"phases.{phase}", "number of a frame")
    return series


def _checked_affine(value: Any) -> list[list[float]]:
    """Return an affine of four by four numbers.

    Raises:
        CmrvlmError: It is something else.
    """
    rows = [json_list(row, "affine") for row in json_list(value, "affine")]
    affine = [[json_number(number, "affine") for number in row] for row in rows]
    if [len(row) for row in affine] != [4] * 4:
        raise CmrvlmError(
            "this is no affine of four by four numbers", field="affine", remedy="Take it out."
        )
    return affine
