"""`data=acdc`: ACDC as published (Bernard et al., IEEE TMI 2018, doi 10.1109/TMI.2018.2837502)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmrvlm.errors import CmrvlmError, naming_file
from cmrvlm.study.file_names import without_clutter
from cmrvlm.study.reading_settings import ReadingSettings
from cmrvlm.study.series_files import read_image, read_slices
from cmrvlm.study.study import Series, Study, StudyLabels
from cmrvlm.study.vocabulary import NOT_ANNOTATED
from data_modules.sources.base import Source
from data_modules.sources.masks import (
    check_frames,
    measure_labelled_phases,
    order_base_to_apex,
    read_mask,
    remap_labels,
)
from data_modules.sources.stated_numbers import StatedNumbers
from data_modules.tables.numbers import parse_number
from data_modules.tables.text_files import read_text

LABEL_MAP = {0: "background", 1: "rv", 2: "myo", 3: "lv"}
# "Abnormal right ventricle" is not one of the sixteen classes: its disease is unknown, not normal.
GROUPS = {"DCM": "DCM", "HCM": "HCM", "MINF": "MI", "NOR": "NOR"}


class AcdcSource(Source):
    """Patients of ACDC, with or without the 4D files.

    Frame numbers in file names and in `Info.cfg` count from 1.

    Args:
        root: Folder with `patientNNN` folders.
        spacing_mm: Distance of slices, rows and columns in mm, for files whose header states none.
    """

    def __init__(self, root: str, spacing_mm: Sequence[float] | None = None) -> None:
        self.root = Path(root)
        self.spacing_mm = spacing_mm
        self._settings = ReadingSettings("z", spacing_mm)
        if not self.root.is_dir():
            raise CmrvlmError(
                "there is no such folder",
                file=self.root,
                remedy="Set data.root to ACDC's training folder.",
            )
        self._ids = sorted(
            p.name for p in self.root.iterdir() if p.is_dir() and p.name.startswith("patient")
        )
        if not self._ids:
            raise CmrvlmError(
                "no patientNNN folders here",
                file=self.root,
                field="data.root",
                remedy=_where_patients_are(self.root),
            )

    def study_ids(self) -> list[str]:
        """Return the names of the patient folders."""
        return list(self._ids)

    def strata(self) -> list[str]:
        """Return the challenge's group of each patient."""
        return [self.read_info(study_id).get("Group", "unknown") for study_id in self._ids]

    def files(self, study_id: str) -> list[Path]:
        """Return all files of the patient's folder."""
        return [p for p in without_clutter((self.root / study_id).iterdir()) if p.is_file()]

    def read_info(self, study_id: str) -> dict[str, str]:
        """Read `Info.cfg`, and return text by key.

        Raises:
            CmrvlmError: There is no such file, or it is no text.
        """
        path = self.root / study_id / "Info.cfg"
        if not path.is_file():
            raise CmrvlmError(
                "there is no Info.cfg",
                file=path,
                remedy="Restore the file; it names the ED and ES frames.",
            )
        pairs = (line.split(":", 1) for line in read_text(path).splitlines() if ":" in line)
        return {key.strip(): value.strip() for key, value in pairs}

    def notes(self, study_id: str) -> list[str]:
        """Return height and weight of `Info.cfg` that cannot be right and count as unknown."""
        return _stated_numbers(self.read_info(study_id)).notes

    def load(self, study_id: str) -> Study:
        """Load ED and ES with their masks, and all frames where the 4D file is present.

        Raises:
            CmrvlmError: A file or a frame number is missing, or ED and ES are swapped.
        """
        info = self.read_info(study_id)
        series = order_base_to_apex(self._load_series(study_id, self._frames(study_id, info)))
        measurements = measure_labelled_phases(
            series,
            self.root / study_id / "Info.cfg",
            "Frames count from 1; check ED and ES.",
        )

        group = info.get("Group", "")
        diseases = frozenset({GROUPS[group]}) if group in GROUPS else None
        labels = StudyLabels(
            diseases=diseases,
            measurements=measurements,
            demographics={**_stated_numbers(info).values},
        )
        return Study(study_id, study_id, {"sax": series}, labels)

    def _frames(self, study_id: str, info: dict[str, str]) -> dict[str, int]:
        """Return the frame number of ED and ES, counted from 1.

        Raises:
            CmrvlmError: One of them is missing, or is no number of a frame.
        """
        path = self.root / study_id / "Info.cfg"
        frames = {}
        for phase, key in (("ed", "ED"), ("es", "ES")):
            with naming_file(path):
                number = parse_number(info.get(key), key)
            if number is None or number < 1 or number != int(number):
                raise CmrvlmError(
                    "the frame number is missing",
                    file=path,
                    field=key,
                    remedy="Write the number of the frame, counted from 1.",
                )
            frames[phase] = int(number)
        return frames

    def _load_series(self, study_id: str, frames: dict[str, int]) -> Series:
        """Load the short-axis series with masks at ED and ES.

        Args:
            study_id: The patient.
            frames: Frame number of ED and ES, counted from 1.

        Raises:
            CmrvlmError: A frame has no mask, the cine has no such frame, or they differ in grid.
        """
        numbers = sorted(set(frames.values()))
        images: list[NDArray[np.generic]] = []
        masks = []
        affine = np.eye(4)
        for number in numbers:
            image, mask, frame_affine = self._load_frame(study_id, number)
            if images:
                path = self._frame_path(study_id, number)
                check_frames(path, image.shape, frame_affine, images[0].shape, affine)
            affine = frame_affine
            images.append(image)
            masks.append(mask)

        cine_path = self.root / study_id / f"{study_id}_4d.nii.gz"
        if not cine_path.is_file():
            return Series(
                image=np.concatenate(images, axis=1).astype(np.float32),
                affine=affine,
                mask=np.concatenate(masks, axis=1),
                phases={phase: numbers.index(number) for phase, number in frames.items()},
            )

        cine = read_slices(cine_path, "sax", self._settings)
        check_frames(cine_path, cine.image.shape, cine.affine, images[0].shape, affine)
        cine_mask = np.full(cine.image.shape, NOT_ANNOTATED, dtype=np.uint8)  # (Z, T, H, W)
        for number, mask in zip(numbers, masks, strict=True):
            if number > cine.image.shape[1]:
                raise CmrvlmError(
                    f"{number} is none of the {cine.image.shape[1]} frames",
                    file=self.root / study_id / "Info.cfg",
                    remedy="Frames count from 1; check ED and ES.",
                )
            cine_mask[:, number - 1] = mask[:, 0]
        return Series(
            image=cine.image.astype(np.float32),
            affine=cine.affine,
            frame_times_ms=cine.frame_times_ms,
            mask=cine_mask,
            phases={phase: number - 1 for phase, number in frames.items()},
        )

    def _frame_path(self, study_id: str, number: int, suffix: str = "") -> Path:
        """Return the file of a frame, counted from 1, or with suffix `_gt` that of its mask."""
        return self.root / study_id / f"{study_id}_frame{number:02d}{suffix}.nii.gz"

    def _load_frame(
        self, study_id: str, number: int
    ) -> tuple[NDArray[np.generic], NDArray[np.uint8], NDArray[np.float64]]:
        """Load one annotated frame.

        Args:
            study_id: The patient.
            number: Number of the frame, counted from 1.

        Returns:
            Image and mask, both `(Z, 1, H, W)`, and affine `(4, 4)`.

        Raises:
            CmrvlmError: The mask is empty, or lies on another grid.
        """
        path = self._frame_path(study_id, number)
        image, affine = read_image(path, "sax", self._settings)
        mask_path = self._frame_path(study_id, number, "_gt")
        values = read_mask(mask_path, image.shape, affine, "sax", self._settings)
        mask = remap_labels(values, LABEL_MAP, mask_path)
        if not mask.any():
            raise CmrvlmError(
                f"frame {number} has no mask",
                file=mask_path,
                remedy="Frames count from 1; check Info.cfg.",
            )
        return image, mask, affine


def _where_patients_are(root: Path) -> str:
    """Return the remedy for a root without patients, which may lie in folders of it."""
    parts = sorted({path.parent.name for path in root.glob("*/patient*") if path.is_dir()})
    if not parts:
        return "Set data.root to the folder above them."
    places = " or ".join(str(root / part) for part in parts)
    return f"Set data.root to {places}."


def _stated_numbers(info: dict[str, str]) -> StatedNumbers:
    """Return height and weight in the text by key of `Info.cfg`, as far as they are known."""
    numbers = StatedNumbers()
    for key, name in (("Height", "height_cm"), ("Weight", "weight_kg")):
        numbers.add(name, partial(parse_number, info.get(key), key, name))
    return numbers
