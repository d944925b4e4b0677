"""JSON and array codec of studies: the one description of `study.json`, wherever a study is stored.

The study cache, the shards, the exchange folder of NIfTI files and the readers in `data_modules`
all use it. The cache and the shards keep arrays as `.npy` files beside `study.json`, the exchange
folder keeps them as NIfTI files.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.atomic_files import json_text
from cmrvlm.study.measurements import known_numbers
from cmrvlm.study.orientation import reversed_places, reverses_slices
from cmrvlm.study.study import Series, Study, StudyLabels, UserQuestion
from cmrvlm.study.vocabulary import SEQUENCES

META_FILE = "study.json"
# Files of arrays that a stored study may have; a name from elsewhere could lead out of its folder.
_ARRAY_FILES = frozenset(f"{name}{end}.npy" for name in SEQUENCES for end in ("", "_mask"))


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
    lists = {name: tuple(data.get(name, ())) for name in ("options", "sequences")}
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
    meta["sha256"] = {name: sha256(content).hexdigest() for name, content in files.items()}
    files[META_FILE] = json_text(meta).encode()
    return files


def _to_npy(array: NDArray[Any]) -> bytes:
    """Encode an array of any shape in the `.npy` format."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _from_npy(content: bytes) -> NDArray[Any]:
    """Decode an array of any shape from the `.npy` format.

    Raises:
        ValueError: It claims more than the content holds, or is an array of Python objects.
    """
    file = io.BytesIO(content)
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    if math.prod(shape) * dtype.itemsize != len(content) - file.tell():
        raise ValueError(f"an array {shape} is claimed, which the content is too short or long for")
    file.seek(0)
    return np.load(file, allow_pickle=False)


def study_from_files(files: Mapping[str, bytes]) -> Study:
    """Decode a study from what `study_files` returned."""

    def load(name: str) -> NDArray[Any]:
        return _from_npy(files[name])

    with _naming_damage("a study"):
        meta = json.loads(files[META_FILE])
        for name, expected in _hashes(meta).items():
            if sha256(files[name]).hexdigest() != expected:
                raise ValueError(f"{name} is not what was written")
        return _study_from_json(meta, load)


def save_files(files: Mapping[str, bytes], folder: Path) -> None:
    """Write what `study_files` returned into a folder."""
    for name, content in files.items():
        (folder / name).write_bytes(content)


def load_arrays(folder: Path) -> Study:
    """Load a study that `save_files` wrote; images and masks are memory-mapped."""

    def load(name: str) -> NDArray[Any]:
        return np.load(_array_file(folder, name), mmap_mode="r", allow_pickle=False)

    meta = read_meta(folder)
    with _naming_damage(folder):
        return _study_from_json(meta, load)


def check_arrays(folder: Path) -> None:
    """Check that a folder holds, byte for byte, what `save_arrays` wrote.

    Raises:
        CmrvlmError: A file is damaged or missing.
    """
    meta = read_meta(folder)
    with _naming_damage(folder):
        for name, expected in _hashes(meta).items():
            with _array_file(folder, name).open("rb") as file:
                if file_digest(file, "sha256").hexdigest() != expected:
                    raise ValueError(f"{name} is not what was written")


def _array_file(folder: Path, name: str) -> Path:
    """Return the file of an array.

    Raises:
        ValueError: The name is none of a stored study's, or leads to no file, such as to a pipe,
            which would be read for ever.
    """
    path = folder / name
    if name not in _ARRAY_FILES or not path.is_file():
        raise ValueError(f"{name!r:.60} is no file of a stored study")
    return path


def _hashes(meta: Mapping[str, Any]) -> dict[str, str]:
    """Return the hash of each array, by the name of its file; earlier versions wrote none."""
    return dict(meta.get("sha256", {}))


@contextmanager
def _naming_damage(file: str | Path) -> Iterator[None]:
    """Turn errors of decoding a study into one that names where it is stored.

    Raises:
        CmrvlmError: Decoding failed.
    """
    try:
        yield
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
        raise CmrvlmError(
            f"the stored study is damaged ({type(error).__name__}: {str(error)[:200]})",
            file=file,
            remedy="Take it out, so that it is made anew.",
        ) from error


def _study_from_json(meta: Mapping[str, Any], load_array: Callable[[str], NDArray[Any]]) -> Study:
    """Build a study from its `study.json` and a function that loads an array by file name."""
    series = {}
    for name, data in meta["series"].items():
        if name not in SEQUENCES:
            raise ValueError(f"{name!r:.60} is no sequence")
        series[name] = Series(
            image=load_array(f"{name}.npy"),
            affine=np.array(data["affine"]),
            mask=load_array(f"{name}_mask.npy") if data["has_mask"] else None,
            **series_from_json(data),
        )
    labels = labels_from_json(meta["labels"])
    return Study(meta["study_id"], meta["patient_id"], series, labels, meta["synthetic"])


def read_meta(folder: Path) -> dict[str, Any]:
    """Read the `study.json` of a folder.

    Raises:
        CmrvlmError: It is missing or damaged.
    """
    with _naming_damage(folder):
        return dict(json.loads((folder / META_FILE).read_text(encoding="utf-8")))


def series_meta(meta: Mapping[str, Any], image: Path) -> dict[str, Any]:
    """Return the part of a `study.json` about a series in a file or folder, empty without one."""
    name = image.name.removesuffix(".gz").removesuffix(".nii")
    return dict(meta.get("series", {}).get(name, {}))
