"""JSON and array codec of studies: the one description of `study.json`, wherever a study is stored.

The study cache, the shards, the exchange folder of NIfTI files and the readers in `data_modules`
all use it. The cache and the shards keep arrays as `.npy` files beside `study.json`, the exchange
folder keeps them as NIfTI files.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.atomic_files import json_text
from cmrvlm.study.measurements import known_numbers
from cmrvlm.study.orientation import reversed_places, reverses_slices
from cmrvlm.study.study import Series, Study, StudyLabels, UserQuestion

META_FILE = "study.json"


def labels_to_json(labels: StudyLabels) -> dict[str, Any]:
    """Convert labels to plain data for `json`, without loss."""
    data = dict(vars(labels))
    data["diseases"] = None if labels.diseases is None else sorted(labels.diseases)
    data["questions"] = [asdict(question) for question in labels.questions]
    return data


def labels_from_json(data: Mapping[str, Any]) -> StudyLabels:
    """Rebuild labels from what `labels_to_json` returned; numbers that are null are unknown."""
    fields = dict(data)
    for name in ("measurements", "follow_up"):
        fields[name] = known_numbers(data.get(name, {}))
    fields["demographics"] = demographics_from_json(data)
    fields["diseases"] = None if data["diseases"] is None else frozenset(data["diseases"])
    fields["boxes_mm"] = {name: tuple(box) for name, box in data["boxes_mm"].items()}
    fields["questions"] = tuple(_question_from_json(question) for question in data["questions"])
    return StudyLabels(**fields)


def demographics_from_json(labels: Mapping[str, Any]) -> dict[str, Any]:
    """Return the known demographics in the labels of a `study.json`, without null values."""
    demographics = labels.get("demographics", {})
    return {name: value for name, value in demographics.items() if value is not None}


def _question_from_json(data: Mapping[str, Any]) -> UserQuestion:
    """Rebuild a question, whose tuples JSON holds as lists."""
    lists = {name: tuple(data[name]) for name in ("options", "sequences")}
    return UserQuestion(**{**data, **lists})


def series_to_json(series: Series) -> dict[str, Any]:
    """Convert everything of a series but its arrays to plain data for `json`."""
    return {
        "affine": series.affine.tolist(),
        "frame_times_ms": series.frame_times_ms,
        "phases": dict(series.phases),
        "levels": list(series.levels),
        "slice_places_mm": series.slice_places_mm,
        "drawn": list(series.drawn),
    }


def series_from_json(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments of `Series` that `series_to_json` stored, but for the affine.

    What is not stated, as in a `study.json` written by hand, has the default of `Series`.
    """
    times = data.get("frame_times_ms")
    places = data.get("slice_places_mm")
    return {
        "frame_times_ms": None if times is None else tuple(times),
        "phases": data.get("phases") or {},
        "levels": tuple(data.get("levels") or ()),
        "slice_places_mm": None if places is None else tuple(places),
        "drawn": tuple(data.get("drawn") or ()),
    }


def series_in_layout(
    data: Mapping[str, Any], stored_affine: NDArray[np.float64], sequence: str
) -> dict[str, Any]:
    """Return the keyword arguments of `series_from_json` with slices in layout order.

    `study.json` lists slices in the order of the affine that it states, which may be another than
    that of the image's file by now: a tool may have reordered the file's axes.

    Args:
        data: The part of `study.json` about a series.
        stored_affine: (4, 4) as the image's file stores it, for a `study.json` without one.
        sequence: Sequence of the series.

    Raises:
        CmrvlmError: The affine in `study.json` is not a valid (4, 4) affine.
    """
    affine = np.array(data.get("affine", stored_affine), dtype=np.float64)
    if affine.shape != (4, 4) or not np.linalg.norm(affine[:3, 2]) > 0:
        raise CmrvlmError(
            "this is no affine of four by four numbers", field="affine", remedy="Take it out."
        )
    fields = series_from_json(data)
    if reverses_slices(affine, sequence):
        fields["levels"] = fields["levels"][::-1]
        fields["slice_places_mm"] = reversed_places(fields["slice_places_mm"])
    return fields


def study_to_json(study: Study) -> dict[str, Any]:
    """Convert everything of a study but its arrays to the content of `study.json`."""
    return {
        "study_id": study.study_id,
        "patient_id": study.patient_id,
        "synthetic": study.synthetic,
        "labels": labels_to_json(study.labels),
        "series": {name: series_to_json(series) for name, series in study.series.items()},
    }


def study_files(study: Study) -> dict[str, bytes]:
    """Encode a preprocessed study as files.

    Returns:
        File name to content: `<sequence>.npy` with the image (Z, T, H, W) in half precision,
        `<sequence>_mask.npy` where there is a mask, and `study.json`.

    Raises:
        CmrvlmError: A grey value is too large for half precision.
    """
    files = {}
    meta = study_to_json(study)
    for name, series in study.series.items():
        half = series.image.astype(np.float16)
        if not np.isfinite(half).all():
            raise CmrvlmError(
                f"grey values of study {study.study_id} do not fit half precision",
                field=f"{name}.image",
                remedy="Keep a step that scales them in transform.preprocessing.steps.",
            )
        files[f"{name}.npy"] = _to_npy(half)
        if series.mask is not None:
            files[f"{name}_mask.npy"] = _to_npy(series.mask)
        meta["series"][name]["has_mask"] = series.mask is not None
    files[META_FILE] = json_text(meta).encode()
    return files


def _to_npy(array: NDArray[Any]) -> bytes:
    """Encode an array of any shape in the `.npy` format."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def study_from_files(files: Mapping[str, bytes]) -> Study:
    """Decode a study from what `study_files` returned."""

    def load(name: str) -> NDArray[Any]:
        return np.load(io.BytesIO(files[name]), allow_pickle=False)

    return _study_from_json(json.loads(files[META_FILE]), load)


def save_files(files: Mapping[str, bytes], folder: Path) -> None:
    """Write what `study_files` returned into a folder."""
    for name, content in files.items():
        (folder / name).write_bytes(content)


def load_arrays(folder: Path) -> Study:
    """Load a study that `save_files` wrote; images and masks are memory-mapped."""

    def load(name: str) -> NDArray[Any]:
        return np.load(folder / name, mmap_mode="r")

    return _study_from_json(read_meta(folder), load)


def _study_from_json(meta: Mapping[str, Any], load_array: Callable[[str], NDArray[Any]]) -> Study:
    """Build a study from its `study.json` and a function that loads an array by file name."""
    series = {}
    for name, data in meta["series"].items():
        series[name] = Series(
            image=load_array(f"{name}.npy"),
            affine=np.array(data["affine"]),
            mask=load_array(f"{name}_mask.npy") if data["has_mask"] else None,
            **series_from_json(data),
        )
    labels = labels_from_json(meta["labels"])
    return Study(meta["study_id"], meta["patient_id"], series, labels, meta["synthetic"])


def read_meta(folder: Path) -> dict[str, Any]:
    """Read the `study.json` of a folder."""
    return dict(json.loads((folder / META_FILE).read_text(encoding="utf-8")))


def series_meta(meta: Mapping[str, Any], image: Path) -> dict[str, Any]:
    """Return the part of a `study.json` about a series in a file or folder, empty without one."""
    name = image.name.removesuffix(".gz").removesuffix(".nii")
    return dict(meta.get("series", {}).get(name, {}))
