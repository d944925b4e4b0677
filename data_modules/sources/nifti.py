"""`data=nifti`: a folder of studies, each a folder of NIfTI series."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cmrvlm.errors import CmrvlmError, naming_file
from cmrvlm.study.codec import META_FILE, labels_from_json, read_optional_meta, series_in_layout
from cmrvlm.study.files import read_nifti
from cmrvlm.study.orientation import to_layout
from cmrvlm.study.study import Series, Study, StudyLabels
from cmrvlm.study.vocabulary import CINE, SEQUENCES
from data_modules.sources.base import Source
from data_modules.sources.masks import check_grid, check_label_map, remap_partial_labels

SUFFIXES = (".nii.gz", ".nii")


class NiftiSource(Source):
    """Folders `<root>/<study>/` with any of `sax`, `lax_4ch`, `lge`, and masks `<sequence>_mask`.

    A series is one file (x, y, z, t), or a folder with one file (x, y, z) for each frame, in the
    order of the numbers in their names. A file `study.json` may state labels, ED and ES, times and
    patient.

    Args:
        root: Folder with the studies.
        third_axis: What the third axis of a cine in one file with three axes is, `z` or `t`; None
            refuses such files.
        label_map: Structure by label value, for masks with other values than those of `STRUCTURES`,
            such as `{1: rv, 2: myo, 3: lv}`.
    """

    def __init__(
        self,
        root: str,
        third_axis: Literal["z", "t"] | None = None,
        label_map: Mapping[int, str] | None = None,
    ) -> None:
        self.root = Path(root)
        self.third_axis = third_axis
        self.label_map = dict(label_map or {})
        check_label_map(self.label_map)
        if third_axis not in (None, "z", "t"):
            raise CmrvlmError(
                f"unknown axis '{third_axis}'", field="data.source.third_axis", remedy="Use z or t."
            )
        self._ids = sorted(
            folder.name
            for folder in self.root.glob("*")
            if any(_find_series(folder, sequence) for sequence in SEQUENCES)
        )
        if not self._ids:
            raise CmrvlmError(
                f"no folder with {', '.join(SEQUENCES)} as NIfTI here",
                file=self.root,
                field="data.root",
                remedy="Give a folder that holds one folder for each study.",
            )

    def study_ids(self) -> list[str]:
        """Return the names of the folders."""
        return list(self._ids)

    def patient_ids(self) -> list[str]:
        """Return the patient that each `study.json` names, else the study's own id."""
        return [str(self._read_meta(study).get("patient_id", study)) for study in self._ids]

    def files(self, study_id: str) -> list[Path]:
        """Return all files of the study's folder."""
        return sorted(path for path in (self.root / study_id).rglob("*") if path.is_file())

    def _read_meta(self, study_id: str) -> dict[str, Any]:
        """Read `study.json`; empty where there is none."""
        return read_optional_meta(self.root / study_id)

    def load(self, study_id: str) -> Study:
        """Load the series of a study, their masks, and what `study.json` states.

        Raises:
            CmrvlmError: There is no such study, or a file does not fit the others.
        """
        self.index_of(study_id)
        folder = self.root / study_id
        meta = self._read_meta(study_id)
        series = {}
        for sequence in SEQUENCES:
            path = _find_series(folder, sequence)
            if path:
                series_meta = meta.get("series", {}).get(sequence, {})
                series[sequence] = self._load_series(sequence, path, series_meta)
        labels = labels_from_json(meta["labels"]) if "labels" in meta else StudyLabels()
        return Study(study_id, str(meta.get("patient_id", study_id)), series, labels)

    def _load_series(self, sequence: str, path: Path, meta: Mapping[str, Any]) -> Series:
        """Load a series with its mask.

        Args:
            sequence: The sequence.
            path: File or folder of the series.
            meta: What `study.json` states of the series.
        """
        stored, stored_affine = self._read(path)
        image, affine = to_layout(stored, stored_affine, sequence)
        mask = None
        mask_path = _find_series(path.parent, f"{sequence}_mask")
        if mask_path is not None:
            values, mask_affine = to_layout(*self._read(mask_path), sequence)
            check_grid(mask_path, values.shape, mask_affine, image.shape, affine)
            mask = remap_partial_labels(values, self.label_map, mask_path)

        with naming_file(path.with_name(META_FILE)):
            stated = series_in_layout(meta, stored_affine, sequence)
            return Series(image=image.astype(np.float32), affine=affine, mask=mask, **stated)

    def _read(self, path: Path) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
        """Read one file, or a folder with a file for each frame.

        Returns:
            Array `(Z, T, H, W)` and affine `(4, 4)`, both as stored.

        Raises:
            CmrvlmError: The third of three axes of a cine may be slices or frames.
        """
        if path.is_dir():
            return _read_frames(path)
        image, affine = read_nifti(path)
        has_one_axis_for_both = image.shape[1] == 1 and image.shape[0] > 1
        if not path.name.startswith(CINE) or not has_one_axis_for_both:
            return image, affine
        if self.third_axis is None:
            raise CmrvlmError(
                f"the third of three axes ({image.shape[0]}) may be slices or frames",
                file=path,
                field="data.source.third_axis",
                remedy="Set it to z or to t.",
            )
        if self.third_axis == "t":
            image = image.swapaxes(0, 1)
        return image, affine


def _find_series(folder: Path, name: str) -> Path | None:
    """Return the file or folder of a series, or None where there is neither.

    Raises:
        CmrvlmError: There is more than one.
    """
    files = [folder / f"{name}{suffix}" for suffix in SUFFIXES]
    paths = [path for path in files if path.is_file()]
    if (folder / name).is_dir():
        paths.append(folder / name)
    if len(paths) > 1:
        raise CmrvlmError(
            f"{name} is there twice", file=folder, field=name, remedy="Leave one of them."
        )
    return paths[0] if paths else None


def _read_frames(folder: Path) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
    """Read a folder with one file for each frame.

    Returns:
        Array `(Z, T, H, W)` and affine `(4, 4)`, both as stored.

    Raises:
        CmrvlmError: There is no file, or one is not a frame on the grid of the first.
    """
    files = [path for path in folder.iterdir() if path.name.endswith(SUFFIXES)]
    if not files:
        raise CmrvlmError(
            "the folder holds no NIfTI file",
            file=folder,
            remedy="Put one file for each frame there.",
        )
    images = []
    first_affine = None
    for path in sorted(files, key=_frame_order):
        image, affine = read_nifti(path)
        if image.shape[1] != 1:
            raise CmrvlmError(
                f"a frame of its own file has {image.shape[1]} frames",
                file=path,
                remedy="Write three axes, (x, y, z), for each frame.",
            )
        if first_affine is None:
            first_affine = affine
        images.append(image)
        check_grid(path, image.shape, affine, images[0].shape, first_affine)
    assert first_affine is not None
    return np.concatenate(images, axis=1), first_affine


def _frame_order(path: Path) -> tuple[list[int], str]:
    """Return a sort key by which frame 2 comes before frame 10."""
    return [int(digits) for digits in re.findall(r"\d+", path.name)], path.name
