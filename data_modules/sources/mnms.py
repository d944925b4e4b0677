"""`data=mnms`: the M&Ms challenge.

Campello et al., IEEE TMI 2021, doi 10.1109/TMI.2021.3090082.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.file_names import without_clutter
from cmrvlm.study.reading_settings import ReadingSettings
from cmrvlm.study.series_files import read_slices
from cmrvlm.study.study import Series, Study, StudyLabels
from cmrvlm.study.vocabulary import NOT_ANNOTATED
from data_modules.sources.base import Source
from data_modules.sources.masks import (
    measure_labelled_phases,
    order_base_to_apex,
    read_mask_of,
    remap_labels,
)
from data_modules.sources.rows_by_id import rows_by_id
from data_modules.sources.stated_numbers import StatedNumbers
from data_modules.tables.read_table import read_table
from data_modules.tables.rows import Row, fold

log = logging.getLogger(__name__)

# The other way round than ACDC.
LABEL_MAP = {0: "background", 1: "lv", 2: "myo", 3: "rv"}
# Pathologies that are one of the sixteen classes; the others are unknown, not normal.
PATHOLOGIES = {
    "NOR": "NOR",
    "DCM": "DCM",
    "HCM": "HCM",
    "HHD": "HHD",
    "ARV": "ACM",
    "LVNC": "LVNC",
    "IHD": "MI",
}


class MnmsSource(Source):
    """Studies of M&Ms: `<part>/<code>/<code>_sa.nii.gz` with all frames and masks in two of them.

    Frame numbers in its table count from 0.

    Args:
        root: Folder with the table `*dataset_information*.csv`, its name in any spelling, and the
            folders of the parts.
        spacing_mm: Distance of slices, rows and columns in mm, for files whose header states none.
    """

    def __init__(self, root: str, spacing_mm: Sequence[float] | None = None) -> None:
        self.root = Path(root)
        self.spacing_mm = spacing_mm
        self._settings = ReadingSettings("z", spacing_mm)
        tables = [
            path
            for path in without_clutter(self.root.glob("*"))
            if path.suffix.lower() == ".csv" and "datasetinformation" in fold(path.name)
        ]
        if len(tables) != 1:
            raise CmrvlmError(
                f"{len(tables)} tables *dataset_information*.csv here",
                file=self.root,
                field="data.root",
                remedy="Set data.root to the unpacked challenge.",
            )
        self.table = tables[0]
        table = read_table(self.table, needed=("External code", "ED", "ES"))
        rows = rows_by_id(table, "External code")
        images = without_clutter(self.root.rglob("*_sa.nii.gz"))
        folders = {path.name.split("_sa")[0]: path.parent for path in images}
        self._rows = {code: rows[code] for code in sorted(rows) if code in folders}
        self._folders = {code: folders[code] for code in self._rows}
        unlabelled = [code for code in self._rows if not self._mask_path(code).is_file()]
        if unlabelled:
            log.info("M&Ms: %d of %d studies have no masks", len(unlabelled), len(self._rows))
        if not self._rows:
            raise CmrvlmError(
                "no study of the table is here",
                file=self.root,
                field="data.root",
                remedy="Set data.root to the unpacked challenge.",
            )

    def study_ids(self) -> list[str]:
        """Return the external codes that have an image."""
        return list(self._rows)

    def strata(self) -> list[str]:
        """Return pathology and vendor of each study."""
        return [
            f"{row.get('Pathology', 'unknown')}/{row.get('Vendor', '')}"
            for row in self._rows.values()
        ]

    def _mask_path(self, study_id: str) -> Path:
        """Return the file of a study's masks, which studies of the unlabelled part do not have."""
        return self._folders[study_id] / f"{study_id}_sa_gt.nii.gz"

    def files(self, study_id: str) -> list[Path]:
        """Return the files of image and masks."""
        return without_clutter(self._folders[study_id].glob("*.nii.gz"))

    def table_row(self, study_id: str) -> Row:
        """Return the study's row of the table."""
        return self._rows[study_id]

    def notes(self, study_id: str) -> list[str]:
        """Return the numbers of a study's row that cannot be right and count as unknown."""
        return _stated_numbers(self._rows[study_id]).notes

    def load(self, study_id: str) -> Study:
        """Load all frames, with the masks of ED and ES where the study has them.

        Raises:
            CmrvlmError: A stated frame has no mask, or the left ventricle is not larger at ED than
                at ES.
        """
        row, folder = self._rows[study_id], self._folders[study_id]
        stored = read_slices(folder / f"{study_id}_sa.nii.gz", "sax", self._settings)
        series = Series(
            image=stored.image.astype(np.float32),
            affine=stored.affine,
            frame_times_ms=stored.frame_times_ms,
        )
        mask_path = self._mask_path(study_id)
        labels = _labels(row)
        if not mask_path.is_file():
            return Study(study_id, study_id, {"sax": series}, labels)
        values = read_mask_of(series, mask_path, "sax", self._settings)
        mask = remap_labels(values, LABEL_MAP, mask_path)  # (Z, T, H, W)
        phases = {phase: self._frame(row, phase.upper(), mask, mask_path) for phase in ("ed", "es")}
        # Frames without contours are stored as background.
        annotated = np.isin(np.arange(mask.shape[1]), list(phases.values()))
        mask[:, ~annotated] = NOT_ANNOTATED

        series = order_base_to_apex(replace(series, mask=mask, phases=phases))
        measurements = measure_labelled_phases(
            series, self.table, "Frames count from 0; check ED and ES."
        )
        labels = replace(labels, measurements=measurements)
        return Study(study_id, study_id, {"sax": series}, labels)

    def _frame(self, row: Row, column: str, mask: NDArray[np.uint8], mask_path: Path) -> int:
        """Return the frame that a column of the table states, counted from 0.

        Args:
            row: The study's row.
            column: `ED` or `ES`.
            mask: The study's mask `(Z, T, H, W)`.
            mask_path: Its file, for the error message.

        Raises:
            CmrvlmError: It is not a frame of the mask, or that frame is empty.
        """
        frame = row.read_number(column)
        if frame is None or frame != int(frame) or not 0 <= frame < mask.shape[1]:
            raise row.error(
                column,
                f"'{row.get(column, '')}' is no frame of {mask.shape[1]}",
                "Frames count from 0.",
            )
        if not mask[:, int(frame)].any():
            raise CmrvlmError(
                f"frame {frame:g} has no mask",
                file=mask_path,
                field=column,
                remedy="Frames count from 0.",
            )
        return int(frame)


def _labels(row: Row) -> StudyLabels:
    """Return disease and demographics as far as a row states them."""
    pathology = row.get("Pathology", "")
    return StudyLabels(
        diseases=frozenset({PATHOLOGIES[pathology]}) if pathology in PATHOLOGIES else None,
        demographics=_demographics(row),
    )


def _stated_numbers(row: Row) -> StatedNumbers:
    """Return age, height and weight of a row, as far as they are known."""
    numbers = StatedNumbers()
    for column, name in (("Age", "age_years"), ("Height", "height_cm"), ("Weight", "weight_kg")):
        numbers.add(name, partial(row.read_number, column, name))
    return numbers


def _demographics(row: Row) -> dict[str, float | str]:
    """Return age, sex, height and weight of a row, as far as they are known."""
    demographics: dict[str, float | str] = {**_stated_numbers(row).values}
    if row.get("Sex", "").lower() in ("m", "f"):
        demographics["sex"] = row["Sex"].lower()
    return demographics
