"""NIfTI files: image and mask of a series, and folders of them for the exchange of studies."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray

from cmrvlm.errors import CmrvlmError, naming_file
from cmrvlm.study.atomic_files import write_json
from cmrvlm.study.codec import (
    META_FILE,
    demographics_from_json,
    read_optional_meta,
    series_in_layout,
    series_meta,
    study_to_json,
)
from cmrvlm.study.orientation import from_layout, to_layout
from cmrvlm.study.study import Series, Study, StudyLabels, check_images
from cmrvlm.study.vocabulary import SEQUENCES

log = logging.getLogger(__name__)


def read_image(path: Path, sequence: str) -> tuple[np.ndarray, np.ndarray]:
    """Read a NIfTI file as `read_nifti` does, and bring it to the one layout of its sequence.

    Args:
        path: NIfTI file.
        sequence: Sequence of the series.

    Returns:
        Array (Z, T, H, W) and affine; as they are stored where the affine has no orientation.
    """
    return to_layout(*read_nifti(path), sequence)


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a 3D or 4D NIfTI file with axes (x, y, z) or (x, y, z, t).

    Returns:
        Array (Z, T, H, W) in the order of the file, and affine (4, 4).

    Raises:
        CmrvlmError: The file is missing, is not NIfTI, has other than three or four axes, or holds
            a value that is not finite.
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
    # Values that are too large for float32 would become infinite later.
    if not np.isfinite(data.astype(np.float32)).all():
        raise CmrvlmError(
            "a voxel holds NaN or infinity",
            file=path,
            remedy="Write the file again without it, or leave it out.",
        )
    volumes = data[..., None] if data.ndim == 3 else data  # (x, y, z, t)
    return np.ascontiguousarray(volumes.transpose(2, 3, 1, 0)), _true_affine(image, path)


def _true_affine(image: Any, path: Path) -> NDArray[np.float64]:
    """Return the affine (4, 4) of an image, with the header's spacing where it has none.

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
    """Write an array as a NIfTI file with axes (x, y, z, t), or (x, y, z) when T is 1.

    Args:
        path: File to write.
        array: (Z, T, H, W).
        affine: (4, 4), voxel index (w, h, z) to RAS in mm.
    """
    data = array.transpose(3, 2, 0, 1)  # (x, y, z, t)
    image = nib.Nifti1Image(data[..., 0] if data.shape[3] == 1 else data, affine)
    image.header.set_xyzt_units("mm", "msec")
    nib.save(image, path)


# Fields of a NIfTI header that say where its voxels lie.
_GEOMETRY_FIELDS = (
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


def write_mask(path: Path, label_map: NDArray[np.uint8], image: Path, sequence: str) -> None:
    """Write a mask as a NIfTI file with the axes and the geometry of an image's file.

    Of that file's header nothing else is kept: it may name the patient.

    Args:
        path: File to write.
        label_map: (Z, T, H, W) in the layout of `read_image`.
        image: File of the image.
        sequence: Sequence of the image.
    """
    source: Any = nib.load(image)
    header = nib.Nifti1Header()
    for name in _GEOMETRY_FIELDS:
        header[name] = source.header[name]
    x, y, z = (*source.shape, 1)[:3]
    stored = from_layout(label_map, _true_affine(source, image), (x, y, z), sequence)
    data = stored.reshape(source.shape)  # (x, y, z, t), without t where the image has three axes
    nib.save(nib.Nifti1Image(data, None, header, dtype=np.uint8), path)


def write_study(study: Study, folder: Path) -> None:
    """Write `<sequence>.nii.gz`, `<sequence>_mask.nii.gz` where known, and `study.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, series in study.series.items():
        write_nifti(folder / f"{name}.nii.gz", series.image.astype(np.float32), series.affine)
        if series.mask is not None:
            write_nifti(folder / f"{name}_mask.nii.gz", series.mask, series.affine)
    write_json(folder / META_FILE, study_to_json(study))


def image_files(path: Path, sequence: str = "sax") -> dict[str, Path]:
    """Return sequence to NIfTI file, as `read_study` reads them.

    Args:
        path: Folder of a study, or one file.
        sequence: Sequence of a single file.

    Raises:
        CmrvlmError: A folder holds none.
    """
    if not path.is_dir():
        return {sequence: path}
    files = {name: path / f"{name}{end}" for end in (".nii", ".nii.gz") for name in SEQUENCES}
    present = {name: file for name, file in files.items() if file.is_file()}
    if not present:
        raise CmrvlmError(
            "no sax.nii.gz, lax_4ch.nii.gz or lge.nii.gz here",
            file=path,
            remedy="Name the series so, or give one NIfTI file.",
        )
    return present


def read_study(path: Path, sequence: str = "sax") -> Study:
    """Read one NIfTI file, or a folder with any of `sax`, `lax_4ch` and `lge` as `.nii.gz`.

    Series are brought to the one layout of `cmrvlm.study.orientation`, in whatever order files
    store their axes.

    From a `study.json` beside them come frame times, positions of slices and the patient's
    demographics; nothing that the model is to find out.

    Args:
        path: Folder of a study, or one file.
        sequence: Sequence of a single file.

    Raises:
        CmrvlmError: Nothing readable is there.
    """
    files = image_files(path, sequence)
    meta_file = next(iter(files.values())).with_name(META_FILE)
    meta = read_optional_meta(meta_file.parent)
    series = {}
    for name in SEQUENCES:
        if name not in files:
            continue
        stored, stored_affine = read_nifti(files[name])
        image, affine = to_layout(stored, stored_affine, name)
        with naming_file(meta_file):
            fields = series_in_layout(series_meta(meta, files[name]), stored_affine, name)
            series[name] = Series(
                image=image.astype(np.float32),
                affine=affine,
                frame_times_ms=fields["frame_times_ms"],
                slice_places_mm=fields["slice_places_mm"],
            )
    with naming_file(meta_file):
        labels = StudyLabels(demographics=demographics_from_json(meta.get("labels", {})))
    study_id = path.name.removesuffix(".gz").removesuffix(".nii")
    study = Study(study_id, study_id, series, labels)
    check_images(study)
    return study
