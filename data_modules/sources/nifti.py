"""`data=nifti`: a folder of studies, each a folder of NIfTI series, as `cmrvlm.ingest` writes them or bare."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cmrvlm.errors import CmrvlmError, told_in
from cmrvlm.study.files import labels_from_json, read_nifti, slices_told
from cmrvlm.study.orientation import to_layout
from cmrvlm.study.study import Series, Study, StudyLabels
from cmrvlm.study.vocabulary import CINE, SEQUENCES
from data_modules.sources.base import Source
from data_modules.sources.masks import check_grid, check_label_map, remap_partial_labels

ENDS = (".nii.gz", ".nii")


class NiftiSource(Source):
    """Studies `<root>/<study>/` with `sax`, `lax_4ch` and `lge`, any of them, and `<sequence>_mask` where known.

    A series is one file (x, y, z, t), or a folder with one file (x, y, z) for each frame, in the order of the numbers
    in their names. `study.json`, where it is there, tells labels, ED and ES, times and patient.

    Args:
        root: Folder with the studies.
        third_axis: What the third axis of a cine in one file with three axes is, `z` or `t`; None refuses such files.
        label_map: Mask value to structure for masks without the canonical values, such as `{1: rv, 2: myo, 3: lv}`.
    """

    def __init__(
        self,
        root: str,
        third_axis: Literal["z", "t"] | None = None,
        label_map: Mapping[int, str] | None = None,
    ) -> None:
        self.root, self.third_axis, self.label_map = Path(root), third_axis, dict(label_map or {})
        check_label_map(self.label_map)
        if third_axis not in (None, "z", "t"):
            raise CmrvlmError(
                f"unknown axis '{third_axis}'", field="data.source.third_axis", remedy="Use z or t."
            )
        self._ids = sorted(
            path.name for path in self.root.glob("*") if any(_place(path, one) for one in SEQUENCES)
        )
        if not self._ids:
            raise CmrvlmError(
                f"no folder with {', '.join(SEQUENCES)} as NIfTI here",
                file=self.root,
                field="data.root",
                remedy="Give a folder that holds one folder for each study.",
            )

    def study_ids(self) -> list[str]:
        """Names of the folders."""
        return list(self._ids)

    def patient_ids(self) -> list[str]:
        """The patient that `study.json` names, else the study itself."""
        return [str(self._told(study).get("patient_id", study)) for study in self._ids]

    def files(self, study_id: str) -> list[Path]:
        """Everything in the study's folder."""
        return sorted(path for path in (self.root / study_id).rglob("*") if path.is_file())

    def _told(self, study_id: str) -> dict[str, Any]:
        path = self.root / study_id / "study.json"
        return dict(json.loads(path.read_text())) if path.is_file() else {}

    def load(self, study_id: str) -> Study:
        """Read the series of a study, their masks, and what is told of them."""
        self.index_of(study_id)
        folder, told = self.root / study_id, self._told(study_id)
        series = {
            name: self._series(
                name, place, _place(folder, f"{name}_mask"), told.get("series", {}).get(name, {})
            )
            for name in SEQUENCES
            if (place := _place(folder, name))
        }
        labels = labels_from_json(told["labels"]) if "labels" in told else StudyLabels()
        return Study(study_id, str(told.get("patient_id", study_id)), series, labels)

    def _series(
        self, sequence: str, place: Path, mask_place: Path | None, told: Mapping[str, Any]
    ) -> Series:
        stored, stored_affine = self._read(place)
        image, affine = to_layout(stored, stored_affine, sequence)
        mask = None
        if mask_place is not None:
            values, own = to_layout(*self._read(mask_place), sequence)
            check_grid(mask_place, values.shape, own, image.shape, affine)
            mask = remap_partial_labels(values, self.label_map, mask_place)
        times = told.get("frame_times_ms")
        with told_in(place.with_name("study.json")):
            levels, places = slices_told(told, stored_affine, sequence)
            return Series(
                image.astype(np.float32),
                affine,
                None if times is None else tuple(times),
                mask,
                told.get("phases", {}),
                levels,
                places,
                tuple(told.get("drawn", ())),
            )

    def _read(self, place: Path) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
        """Array (Z, T, H, W) and affine of one file, or of a folder with a file for each frame."""
        if place.is_dir():
            return _read_frames(place)
        image, affine = read_nifti(place)
        if not place.name.startswith(CINE) or image.shape[1] > 1 or image.shape[0] == 1:
            return image, affine
        if self.third_axis is None:
            raise CmrvlmError(
                f"the third of three axes ({image.shape[0]}) may be slices or frames",
                file=place,
                field="data.source.third_axis",
                remedy="Set it to z or to t.",
            )
        return (image.swapaxes(0, 1) if self.third_axis == "t" else image), affine


def _place(folder: Path, name: str) -> Path | None:
    """The file or folder of a series, None where there is neither."""
    found = [folder / f"{name}{end}" for end in ENDS if (folder / f"{name}{end}").is_file()]
    if (folder / name).is_dir():
        found.append(folder / name)
    if len(found) > 1:
        raise CmrvlmError(
            f"{name} is there twice", file=folder, field=name, remedy="Leave one of them."
        )
    return found[0] if found else None


def _read_frames(folder: Path) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
    def number(path: Path) -> tuple[list[int], str]:
        return [int(one) for one in re.findall(r"\d+", path.name)], path.name

    paths = sorted((path for path in folder.iterdir() if path.name.endswith(ENDS)), key=number)
    if not paths:
        raise CmrvlmError(
            "the folder holds no NIfTI file",
            file=folder,
            remedy="Put one file for each frame there.",
        )
    frames = [read_nifti(path) for path in paths]
    first, affine = frames[0]
    for path, (one, own) in zip(paths, frames, strict=True):
        if one.shape[1] != 1:
            raise CmrvlmError(
                f"a frame of its own file has {one.shape[1]} frames",
                file=path,
                remedy="Write three axes, (x, y, z), for each frame.",
            )
        check_grid(path, one.shape, own, first.shape, affine)
    return np.concatenate([one for one, _ in frames], axis=1), affine
