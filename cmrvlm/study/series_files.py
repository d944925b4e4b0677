"""The one reader of series: a NIfTI file, or a folder with one file for each frame."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmrvlm.errors import CmrvlmError, naming_file
from cmrvlm.study.codec import META_FILE, series_in_layout
from cmrvlm.study.file_names import without_clutter
from cmrvlm.study.frame_times import frame_times_of_header
from cmrvlm.study.geometry_checks import check_geometry
from cmrvlm.study.nifti_file import SUFFIXES, NiftiContent, read_content
from cmrvlm.study.orientation import to_layout
from cmrvlm.study.reading_settings import NOTHING_STATED, ReadingSettings
from cmrvlm.study.spacing import true_affine, with_slice_step
from cmrvlm.study.study import Series
from cmrvlm.study.third_axis import third_axis_of
from cmrvlm.study.vocabulary import CINE, SEQUENCES

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredSeries:
    """A series as its files hold it.

    Attributes:
        image: (Z, T, H, W) values.
        affine: (4, 4), voxel index (w, h, z) to RAS in mm.
        frame_times_ms: T times in ms as the header has them; None where it has none.
    """

    image: NDArray[Any]
    affine: NDArray[np.float64]
    frame_times_ms: tuple[float, ...] | None = None


def find_series(folder: Path, name: str) -> Path | None:
    """Return the file or folder of a series, or None where there is neither.

    Links that lead nowhere, pipes and the like are returned too: reading them says what is wrong.

    Raises:
        CmrvlmError: There is more than one.
    """
    paths = [folder / f"{name}{suffix}" for suffix in SUFFIXES]
    present = [path for path in paths if os.path.lexists(path)]
    if (folder / name).is_dir():
        present.append(folder / name)
    if len(present) > 1:
        raise CmrvlmError(
            f"{name} is there twice: {', '.join(path.name for path in present)}",
            file=folder,
            field=name,
            remedy="Leave one of them.",
        )
    return present[0] if present else None


def holds_series(folder: Path) -> bool:
    """Return whether a folder holds any series, whether or not it can be read."""
    names = [f"{name}{suffix}" for name in SEQUENCES for suffix in ("", *SUFFIXES)]
    return any(os.path.lexists(folder / name) for name in names)


def files_of_series(path: Path) -> list[Path]:
    """Return the files of a series in the order of its frames.

    Raises:
        CmrvlmError: It is a folder without a NIfTI file, or with one frame in two files.
    """
    if not path.is_dir():
        return [path]
    present = without_clutter(path.iterdir())
    files = [file for file in present if file.name.lower().endswith(SUFFIXES)]
    if not files:
        raise CmrvlmError(
            "the folder holds no NIfTI file",
            file=path,
            remedy="Put one file for each frame there.",
        )
    stems = [_stem(file) for file in files]
    repeated = next((stem for stem in stems if stems.count(stem) > 1), None)
    if repeated is not None:
        raise CmrvlmError(
            f"{repeated} is there twice", file=path, field=repeated, remedy="Leave one of them."
        )
    return sorted(files, key=_frame_order)


def _stem(path: Path) -> str:
    """Return the name of a file without .nii or .nii.gz."""
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def _frame_order(path: Path) -> tuple[list[int], str]:
    """Return a sort key by which frame 2 comes before frame 10."""
    return [int(digits) for digits in re.findall(r"\d+", path.name)], path.name


def read_series(
    path: Path,
    sequence: str,
    settings: ReadingSettings = NOTHING_STATED,
    meta: Mapping[str, Any] | None = None,
    *,
    is_synthetic: bool = False,
) -> Series:
    """Read a series, bring it to the one layout, and join what `study.json` states about it.

    Args:
        path: File, or folder with one file for each frame.
        sequence: Its sequence.
        settings: What the user states about files.
        meta: The part of `study.json` about the series; empty or None without one.
        is_synthetic: `study.json` says that the study is a phantom.

    Raises:
        CmrvlmError: A file cannot be read, lies in no chest, or does not fit `study.json`.
    """
    meta = meta or {}
    stated_times = meta.get("frame_times_ms")
    stored = read_stored(
        path, sequence, settings, frames=None if stated_times is None else len(stated_times)
    )
    image, affine = to_layout(stored.image, stored.affine, sequence)
    check_geometry(image.shape, affine, path, is_synthetic=is_synthetic)
    with naming_file(path.with_name(META_FILE)):
        fields = series_in_layout(meta, stored.affine, sequence)
        if fields["frame_times_ms"] is None:
            fields["frame_times_ms"] = stored.frame_times_ms
        return Series(image=image.astype(np.float32), affine=affine, **fields)


def read_label_values(
    path: Path, sequence: str, settings: ReadingSettings, frames: int
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Read the label values of a mask and bring them to the one layout.

    Args:
        path: File or folder of the mask.
        sequence: Sequence of its image.
        settings: What the user states about files.
        frames: Frames of the image.

    Returns:
        Array (Z, T, H, W) and affine.
    """
    stored = read_stored(path, sequence, settings, frames)
    return to_layout(stored.image, stored.affine, sequence)


def read_slices(
    path: Path, sequence: str, settings: ReadingSettings = NOTHING_STATED
) -> StoredSeries:
    """Read a NIfTI file whose third axis is known to hold slices, and bring it to the one layout.

    Args:
        path: NIfTI file.
        sequence: Sequence of the series.
        settings: What the user states about files.

    Returns:
        The series; in the order of the file where the affine has no orientation.
    """
    stored = _read_file(path, sequence, ReadingSettings("z", settings.spacing_mm), None)
    image, affine = to_layout(stored.image, stored.affine, sequence)
    check_geometry(image.shape, affine, path)
    return replace(stored, image=image, affine=affine)


def read_image(
    path: Path, sequence: str, settings: ReadingSettings = NOTHING_STATED
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return array (Z, T, H, W) and affine of a file whose times do not matter; see `read_slices`."""
    stored = read_slices(path, sequence, settings)
    return stored.image, stored.affine


def read_nifti(path: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Read a NIfTI file in its own order; the third of three axes holds slices.

    Returns:
        Array (Z, T, H, W) in the order of the file, and affine (4, 4) in mm.
    """
    stored = _read_file(path, CINE[0], ReadingSettings("z"), None)
    return stored.image, stored.affine


def read_stored(
    path: Path,
    sequence: str,
    settings: ReadingSettings = NOTHING_STATED,
    frames: int | None = None,
) -> StoredSeries:
    """Read a series in the order of its files.

    Args:
        path: File, or folder with one file for each frame.
        sequence: Its sequence.
        settings: What the user states about files.
        frames: Number of its frames where something else states it.

    Raises:
        CmrvlmError: A file cannot be read, or the third of its axes may be slices or frames.
    """
    if not path.is_dir():
        return _read_file(path, sequence, settings, frames)
    images: list[NDArray[Any]] = []
    first_affine = None
    for file in files_of_series(path):
        # A frame of its own file has slices along the third axis.
        frame = _read_file(file, sequence, ReadingSettings("z", settings.spacing_mm), None)
        if first_affine is None:
            first_affine = frame.affine
        same_shape = not images or frame.image.shape == images[0].shape
        if frame.image.shape[1] != 1 or not same_shape:
            raise CmrvlmError(
                f"a frame of its own file is {frame.image.shape}, (slices, 1, rows, columns)",
                file=file,
                remedy="Write three axes, (x, y, z), for each frame, all of one size.",
            )
        if not np.allclose(frame.affine, first_affine, rtol=0, atol=1e-2):
            raise CmrvlmError(
                "this frame and the first do not lie on one grid",
                file=file,
                field="srow",
                remedy="Write all frames on one grid.",
            )
        images.append(frame.image)
    assert first_affine is not None
    return StoredSeries(np.concatenate(images, axis=1), first_affine)


def _read_file(
    path: Path, sequence: str, settings: ReadingSettings, frames: int | None
) -> StoredSeries:
    """Read one file with axes (x, y), (x, y, z), (x, y, t), (x, y, z, t) or more of one voxel.

    Raises:
        CmrvlmError: It has more axes than slices and frames, or a value is not finite.
    """
    content = read_content(path)
    # Values that are too large for float32 would become infinite later.
    if not np.isfinite(content.values.astype(np.float32)).all():
        raise CmrvlmError(
            "a voxel holds NaN or infinity",
            file=path,
            remedy="Write the file again without it, or leave it out.",
        )
    volumes = _four_axes(content.values, path)
    affine = true_affine(content.affine, content.header, volumes.shape[2], settings, path)
    third = _third_axis(content, volumes, affine, sequence, settings, frames, path)
    times = None
    if third == "t":
        volumes = volumes.swapaxes(2, 3)
        affine = with_slice_step(affine)
    elif volumes.shape[3] > 1:
        times = frame_times_of_header(content.header, volumes.shape[3], path)
    image = np.ascontiguousarray(volumes.transpose(2, 3, 1, 0))  # (Z, T, H, W)
    return StoredSeries(image, affine, times)


def _four_axes(values: NDArray[Any], path: Path) -> NDArray[Any]:
    """Return values of any number of axes as (x, y, z, t).

    Raises:
        CmrvlmError: More than one axis beyond the third has more than one voxel.
    """
    shape = (*values.shape, 1)[:3]
    beyond = [length for length in values.shape[3:] if length > 1]
    if len(beyond) > 1:
        raise CmrvlmError(
            f"the image has {values.ndim} axes {values.shape}; (x, y, z, t) are needed",
            file=path,
            field="dim",
            remedy="Write one file for each series.",
        )
    return values.reshape(*shape, *(beyond or [1]))


def _third_axis(
    content: NiftiContent,
    volumes: NDArray[Any],
    affine: NDArray[np.float64],
    sequence: str,
    settings: ReadingSettings,
    frames: int | None,
    path: Path,
) -> str:
    """Return what the third axis of (x, y, z, t) is, `z` or `t`."""
    if sequence not in CINE or volumes.shape[3] > 1 or volumes.shape[2] == 1:
        return "z"
    if settings.third_axis is not None:
        return settings.third_axis
    return third_axis_of(volumes[..., 0], affine, content.header, frames, path)
