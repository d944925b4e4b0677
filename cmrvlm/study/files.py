"""Studies on disk: a folder of memory-mapped arrays for the cache, and a folder of NIfTI files for exchange."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray

from cmrvlm.errors import CmrvlmError, told_in
from cmrvlm.study.atomic_files import json_text, write_json
from cmrvlm.study.measurements import known_numbers
from cmrvlm.study.orientation import from_layout, reversed_places, reverses_slices, to_layout
from cmrvlm.study.study import Series, Study, StudyLabels, UserQuestion, check_images
from cmrvlm.study.vocabulary import SEQUENCES

log = logging.getLogger(__name__)


def labels_to_json(labels: StudyLabels) -> dict[str, Any]:
    """Plain data for `json`, without loss."""
    data = dict(vars(labels))
    data["diseases"] = None if labels.diseases is None else sorted(labels.diseases)
    data["questions"] = [asdict(one) for one in labels.questions]
    return data


def labels_from_json(data: Mapping[str, Any]) -> StudyLabels:
    """Inverse of `labels_to_json`; numbers that are null are unknown."""
    fields = dict(data)
    for name in ("measurements", "follow_up"):
        fields[name] = known_numbers(data.get(name, {}))
    fields["demographics"] = _known(data.get("demographics", {}))
    fields["diseases"] = None if data["diseases"] is None else frozenset(data["diseases"])
    fields["boxes_mm"] = {name: tuple(box) for name, box in data["boxes_mm"].items()}
    fields["questions"] = tuple(
        UserQuestion(
            **one | {"options": tuple(one["options"]), "sequences": tuple(one["sequences"])}
        )
        for one in data["questions"]
    )
    return StudyLabels(**fields)


def _known(demographics: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of a patient: what is null is not."""
    return {name: value for name, value in demographics.items() if value is not None}


def study_files(study: Study) -> dict[str, bytes]:
    """A preprocessed study as files: name to content, `.npy` (images in half precision) and `study.json`."""
    files = {}
    meta: dict[str, Any] = {
        "study_id": study.study_id,
        "patient_id": study.patient_id,
        "synthetic": study.synthetic,
        "labels": labels_to_json(study.labels),
        "series": {},
    }
    for name, series in study.series.items():
        half = series.image.astype(np.float16)
        if not np.isfinite(half).all():
            raise CmrvlmError(
                f"grey values of study {study.study_id} do not fit half precision",
                field=f"{name}.image",
                remedy="Keep a step that scales them in transform.preprocessing.steps.",
            )
        files[f"{name}.npy"] = _npy(half)
        if series.mask is not None:
            files[f"{name}_mask.npy"] = _npy(series.mask)
        meta["series"][name] = _series_to_json(series) | {"has_mask": series.mask is not None}
    return files | {"study.json": json_text(meta).encode()}


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def save_arrays(study: Study, folder: Path) -> None:
    """Write `study_files` into a folder."""
    for name, content in study_files(study).items():
        (folder / name).write_bytes(content)


def _series_to_json(series: Series) -> dict[str, Any]:
    return {
        "affine": series.affine.tolist(),
        "frame_times_ms": series.frame_times_ms,
        "phases": dict(series.phases),
        "levels": list(series.levels),
        "slice_places_mm": series.slice_places_mm,
        "drawn": list(series.drawn),
    }


def read_meta(folder: Path) -> dict[str, Any]:
    """The `study.json` of a cached study."""
    return dict(json.loads((folder / "study.json").read_text()))


def load_arrays(folder: Path) -> Study:
    """Read what `save_arrays` wrote; images and masks are memory-mapped."""
    return _study(read_meta(folder), lambda name: np.load(folder / name, mmap_mode="r"))


def study_from_files(files: Mapping[str, bytes]) -> Study:
    """Inverse of `study_files`."""
    return _study(
        json.loads(files["study.json"]),
        lambda name: np.load(io.BytesIO(files[name]), allow_pickle=False),
    )


def _study(meta: Mapping[str, Any], array: Callable[[str], NDArray[Any]]) -> Study:
    series = {}
    for name, data in meta["series"].items():
        times = data["frame_times_ms"]
        series[name] = Series(
            image=array(f"{name}.npy"),
            affine=np.array(data["affine"]),
            frame_times_ms=None if times is None else tuple(times),
            mask=array(f"{name}_mask.npy") if data["has_mask"] else None,
            phases=data["phases"],
            levels=tuple(data["levels"]),
            slice_places_mm=_places(data),
            drawn=tuple(data.get("drawn", ())),
        )
    labels = labels_from_json(meta["labels"])
    return Study(meta["study_id"], meta["patient_id"], series, labels, meta["synthetic"])


def _places(data: Mapping[str, Any]) -> tuple[float, ...] | None:
    places = data.get("slice_places_mm")
    return None if places is None else tuple(places)


def _told_beside(image: Path) -> dict[str, Any]:
    """What a `study.json` beside a NIfTI file says of the study; empty without one."""
    path = image.with_name("study.json")
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def _told_of(image: Path, told: Mapping[str, Any]) -> dict[str, Any]:
    """The part about one file's series of what `_told_beside` gave."""
    return dict(told.get("series", {}).get(image.name.removesuffix(".gz").removesuffix(".nii"), {}))


def stored_places_mm(
    image: Path, affine: NDArray[np.float64], sequence: str
) -> tuple[float, ...] | None:
    """Return the places of slices that a `study.json` beside a NIfTI file states for it; None when it states none.

    Args:
        image: The file.
        affine: (4, 4) as the file stores it.
        sequence: What it shows.
    """
    return slices_told(_told_of(image, _told_beside(image)), affine, sequence)[1]


def slices_told(
    told: Mapping[str, Any], affine: NDArray[np.float64], sequence: str
) -> tuple[tuple[str | None, ...], tuple[float, ...] | None]:
    """Return levels and places in mm of slices, as a `study.json` states them, in the one layout.

    They stand there in the order of the affine beside them, which may be another than that of the file by now.

    Args:
        told: The part of `study.json` about a series.
        affine: (4, 4) as the file stores it, for a `study.json` without one.
        sequence: What it shows.

    Raises:
        CmrvlmError: The affine in `study.json` is none.
    """
    stated = np.array(told.get("affine", affine), dtype=np.float64)
    if stated.shape != (4, 4) or not np.linalg.norm(stated[:3, 2]) > 0:
        raise CmrvlmError(
            "this is no affine of four by four numbers", field="affine", remedy="Take it out."
        )
    levels, places = tuple(told.get("levels", ())), _places(told)
    if reverses_slices(stated, sequence):
        return levels[::-1], reversed_places(places)
    return levels, places


def read_image(path: Path, sequence: str) -> tuple[np.ndarray, np.ndarray]:
    """Read a NIfTI file as `read_nifti` does, and bring it to the one layout of its sequence.

    Returns:
        Array (Z, T, H, W) and affine; as they are stored where the affine has no orientation.
    """
    return to_layout(*read_nifti(path), sequence)


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Array (Z, T, H, W) and affine of a 3D or 4D NIfTI file with axes (x, y, z[, t]).

    Raises:
        CmrvlmError: The file is missing, is not NIfTI, has other than three or four axes, or holds a value that is not
            finite.
    """
    if not path.is_file():
        raise CmrvlmError(
            "there is no such file", file=path, remedy="Give the path of a .nii or .nii.gz file."
        )
    try:
        image = nib.load(path)
        data = np.asanyarray(image.dataobj)  # type: ignore[attr-defined]
    except (ImageFileError, EOFError, OSError) as error:
        raise CmrvlmError(
            f"the file cannot be read as NIfTI ({error})", file=path, remedy="Check the file."
        ) from error
    if data.ndim not in (3, 4):
        raise CmrvlmError(
            f"the image has {data.ndim} axes; (x, y, z) or (x, y, z, t) are needed", file=path
        )
    if data.dtype.kind not in "iufb":
        raise CmrvlmError(
            f"the voxels are {data.dtype}, grey values are needed",
            file=path,
            field="datatype",
            remedy="Convert the file.",
        )
    if not np.isfinite(
        data.astype(np.float32)
    ).all():  # what is too large for float32 would become infinite
        raise CmrvlmError(
            "a voxel holds NaN or infinity",
            file=path,
            remedy="Write the file again without it, or leave it out.",
        )
    four = data[..., None] if data.ndim == 3 else data  # (x, y, z, t)
    return np.ascontiguousarray(four.transpose(2, 3, 1, 0)), _true_affine(image, path)


def _true_affine(image: Any, path: Path) -> NDArray[np.float64]:
    """The affine, with the header's spacing where the affine has none.

    Original ACDC files hold an affine of unit spacing and the true spacing in `pixdim` alone.

    Raises:
        CmrvlmError: Affine and header state two different spacings.
    """
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all():
        raise CmrvlmError(
            "the affine holds numbers that are not finite",
            file=path,
            field="srow",
            remedy="Write the file again.",
        )
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    stated = np.array(image.header.get_zooms()[:3], dtype=np.float64)
    if np.allclose(lengths, stated, rtol=0.01):
        return affine
    if not np.allclose(lengths, 1.0, rtol=1e-3):
        raise CmrvlmError(
            f"the affine's spacing is {lengths.round(3)} mm and the header's {stated.round(3)} mm",
            file=path,
            field="pixdim",
            remedy="Write the file again with the right spacing.",
        )
    log.warning(
        "%s: the affine has no spacing, the header's %s mm is used", path.name, stated.round(3)
    )
    scaled = affine.copy()
    scaled[:3, :3] *= stated
    return scaled


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    """Write (Z, T, H, W) as a NIfTI file with axes (x, y, z, t), or (x, y, z) when T is 1."""
    data = array.transpose(3, 2, 0, 1)  # (x, y, z, t)
    image = nib.Nifti1Image(data[..., 0] if data.shape[3] == 1 else data, affine)
    image.header.set_xyzt_units("mm", "msec")
    nib.save(image, path)


_PLACE = (
    "pixdim",
    "xyzt_units",
    "qform_code",
    "quatern_b",
    "quatern_c",
    "quatern_d",
    "qoffset_x",
    "qoffset_y",
    "qoffset_z",
    "sform_code",
    "srow_x",
    "srow_y",
    "srow_z",
)


def write_mask(path: Path, labels: NDArray[np.uint8], image: Path, sequence: str) -> None:
    """Write a mask as a NIfTI file with the axes, their order and the place of an image's file, as its header says.

    The rest of the header is left behind: it may name the patient.

    Args:
        path: The file to write.
        labels: (Z, T, H, W) in the layout of `read_image`.
        image: The image's file.
        sequence: What it shows.
    """
    like = nib.load(image)
    shape = (*like.shape, 1)[:3]  # type: ignore[attr-defined]
    header = nib.Nifti1Header()
    for name in _PLACE:
        header[name] = like.header[name]  # type: ignore[attr-defined]
    stored = from_layout(
        labels, _true_affine(like, image), (shape[0], shape[1], shape[2]), sequence
    )  # (x, y, z, t)
    data = stored.reshape(like.shape)  # type: ignore[attr-defined]
    nib.save(nib.Nifti1Image(data, None, header, dtype=np.uint8), path)


def write_study(study: Study, folder: Path) -> None:
    """Write a study for exchange: `<sequence>.nii.gz`, `<sequence>_mask.nii.gz` where known, and `study.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    meta = {
        "study_id": study.study_id,
        "patient_id": study.patient_id,
        "synthetic": study.synthetic,
        "labels": labels_to_json(study.labels),
        "series": {name: _series_to_json(series) for name, series in study.series.items()},
    }
    for name, series in study.series.items():
        write_nifti(folder / f"{name}.nii.gz", series.image.astype(np.float32), series.affine)
        if series.mask is not None:
            write_nifti(folder / f"{name}_mask.nii.gz", series.mask, series.affine)
    write_json(folder / "study.json", meta)


def image_files(path: Path, sequence: str = "sax") -> dict[str, Path]:
    """The files that `read_study` reads, by sequence.

    Raises:
        CmrvlmError: A folder holds none.
    """
    if not path.is_dir():
        return {sequence: path}
    files = {name: path / f"{name}{end}" for end in (".nii", ".nii.gz") for name in SEQUENCES}
    found = {name: file for name, file in files.items() if file.is_file()}
    if not found:
        raise CmrvlmError(
            "no sax.nii.gz, lax_4ch.nii.gz or lge.nii.gz here",
            file=path,
            remedy="Name the series so, or give one NIfTI file.",
        )
    return found


def read_study(path: Path, sequence: str = "sax") -> Study:
    """Read a study folder with `sax.nii.gz`, `lax_4ch.nii.gz`, `lge.nii.gz` (any of them), or one NIfTI file.

    Series are brought to the one layout of `cmrvlm.study.orientation`, in whatever order files store their axes.

    From a `study.json` beside them come times, places of slices, and what is known of the patient's body; nothing that
    the model is to find out.

    Args:
        path: The folder, or a file that is then taken as `sequence`.
        sequence: What a single file shows.

    Raises:
        CmrvlmError: Nothing readable is there.
    """
    files = image_files(path, sequence)
    told, series = _told_beside(next(iter(files.values()))), {}
    for name in (name for name in SEQUENCES if name in files):
        stored, stored_affine = read_nifti(files[name])
        image, affine = to_layout(stored, stored_affine, name)
        own = _told_of(files[name], told)
        times = own.get("frame_times_ms")
        with told_in(files[name].with_name("study.json")):
            series[name] = Series(
                image.astype(np.float32),
                affine,
                None if times is None else tuple(times),
                slice_places_mm=slices_told(own, stored_affine, name)[1],
            )
    with told_in(next(iter(files.values())).with_name("study.json")):
        labels = StudyLabels(demographics=_known(told.get("labels", {}).get("demographics", {})))
    name = path.name.removesuffix(".gz").removesuffix(".nii")
    study = Study(name, name, series, labels)
    check_images(study)
    return study
