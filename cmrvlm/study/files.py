"""NIfTI files: image and mask of a series, and folders of them for the exchange of studies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.atomic_files import write_json
from cmrvlm.study.codec import META_FILE, demographics_from_json, series_meta, study_to_json
from cmrvlm.study.frame_times import mean_step_ms
from cmrvlm.study.nifti_file import read_header
from cmrvlm.study.orientation import from_layout
from cmrvlm.study.reading_settings import NOTHING_STATED, ReadingSettings
from cmrvlm.study.series_files import files_of_series, find_series, read_series
from cmrvlm.study.spacing import true_affine, with_slice_step
from cmrvlm.study.study import Study, StudyLabels, check_images
from cmrvlm.study.study_json import is_synthetic, read_study_json
from cmrvlm.study.vocabulary import SEQUENCES


def write_nifti(
    path: Path,
    array: np.ndarray,
    affine: np.ndarray,
    frame_times_ms: tuple[float, ...] | None = None,
) -> None:
    """Write an array as a NIfTI file with axes (x, y, z, t), or (x, y, z) when T is 1.

    The header states the mean distance of the frames, and 0 where it is unknown.

    Args:
        path: File to write.
        array: (Z, T, H, W).
        affine: (4, 4), voxel index (w, h, z) to RAS in mm.
        frame_times_ms: T times in ms; None when unknown.
    """
    data = array.transpose(3, 2, 0, 1)  # (x, y, z, t)
    image = nib.Nifti1Image(data[..., 0] if data.shape[3] == 1 else data, affine)
    step_ms = mean_step_ms(frame_times_ms)
    image.header["pixdim"][4] = step_ms or 0.0
    image.header.set_xyzt_units("mm", "msec" if step_ms else "unknown")
    # The third axis is that of slices.
    image.header.set_dim_info(slice=2)
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


def write_mask(
    path: Path,
    label_map: NDArray[np.uint8],
    image: Path,
    sequence: str,
    settings: ReadingSettings = NOTHING_STATED,
) -> None:
    """Write a mask as a NIfTI file with the axes and the geometry of an image's file.

    Of that file's header nothing else is kept: it may name the patient. The mask of a folder of
    frames is one file.

    Args:
        path: File to write.
        label_map: (Z, T, H, W) in the layout of `read_series`.
        image: File of the image, or the folder of its frames.
        sequence: Sequence of the image.
        settings: What the user stated about files when the image was read.
    """
    files = files_of_series(image)
    source, affine = read_header(files[0])
    header = nib.Nifti1Header()
    for name in _GEOMETRY_FIELDS:
        header[name] = source[name]
    shape = source.get_data_shape()
    x, y, z = (*shape, 1)[:3]
    affine = true_affine(affine, source, z, settings, files[0])
    frames = label_map.shape[1]
    if image.is_dir():
        shape = (x, y, z, frames)
    elif frames > 1 and len(shape) == 3:
        # The third axis of the file is time.
        z = 1
        affine = with_slice_step(affine)
    stored = from_layout(label_map, affine, (x, y, z), sequence)
    data = stored.reshape(shape)
    nib.save(nib.Nifti1Image(data, None, header, dtype=np.uint8), path)


def write_study(study: Study, folder: Path) -> None:
    """Write `<sequence>.nii.gz`, `<sequence>_mask.nii.gz` where known, and `study.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, series in study.series.items():
        times = series.frame_times_ms
        image = series.image.astype(np.float32)
        write_nifti(folder / f"{name}.nii.gz", image, series.affine, times)
        if series.mask is not None:
            write_nifti(folder / f"{name}_mask.nii.gz", series.mask, series.affine, times)
    write_json(folder / META_FILE, study_to_json(study))


def image_files(path: Path, sequence: str = "sax") -> dict[str, Path]:
    """Return sequence to NIfTI file or folder of frames, as `read_study` reads them.

    Args:
        path: Folder of a study, one file, or a folder of frames that is named as its sequence.
        sequence: Sequence of a single file.

    Raises:
        CmrvlmError: There is no such path, or a folder holds none, or one twice.
    """
    if not path.exists():
        raise CmrvlmError(
            "there is no such file or folder", file=path, remedy="Check the path of the study."
        )
    if not path.is_dir():
        return {sequence: path}
    found = {name: find_series(path, name) for name in SEQUENCES}
    present = {name: file for name, file in found.items() if file is not None}
    if present:
        return present
    if path.name in SEQUENCES:
        return {path.name: path}
    raise CmrvlmError(
        "no sax.nii.gz, lax_4ch.nii.gz or lge.nii.gz here",
        file=path,
        remedy="Name the series so, or give one NIfTI file.",
    )


def read_study(
    path: Path, sequence: str = "sax", settings: ReadingSettings = NOTHING_STATED
) -> Study:
    """Read one NIfTI series, or a folder with any of `sax`, `lax_4ch` and `lge`.

    Series are brought to the one layout of `cmrvlm.study.orientation`, in whatever order files
    store their axes.

    From a `study.json` beside them come frame times, positions of slices and the patient's
    demographics; nothing that the model is to find out.

    Args:
        path: Folder of a study, or one file.
        sequence: Sequence of a single file.
        settings: What the user states about files.

    Raises:
        CmrvlmError: Nothing readable is there.
    """
    files = image_files(path, sequence)
    folder = next(iter(files.values())).parent
    meta = read_study_json(folder)
    series = {}
    for name, file in files.items():
        read = read_series(
            file, name, settings, series_meta(meta, file), is_synthetic=is_synthetic(meta)
        )
        series[name] = replace(read, phases={}, levels=(), drawn=())
    labels = StudyLabels(demographics=demographics_from_json(meta.get("labels", {})))
    study_id = path.name.removesuffix(".gz").removesuffix(".nii")
    study = Study(study_id, study_id, series, labels)
    check_images(study)
    return study
