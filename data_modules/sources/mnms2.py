"""`data=mnms2`: M&Ms-2, both axes at ED and ES.

Martín-Isla et al., JBHI 2023, doi 10.1109/JBHI.2023.3267857.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.file_names import without_clutter
from cmrvlm.study.reading_settings import ReadingSettings
from cmrvlm.study.series_files import read_image
from cmrvlm.study.study import Series, Study, StudyLabels
from data_modules.sources.base import Source
from data_modules.sources.masks import (
    check_frames,
    measure_labelled_phases,
    order_base_to_apex,
    read_mask,
    remap_labels,
)
from data_modules.sources.rows_by_id import rows_by_id
from data_modules.tables.read_table import read_table
from data_modules.tables.rows import Row

LABEL_MAP = {0: "background", 1: "lv", 2: "myo", 3: "rv"}
# Diseases that are one of the sixteen classes; the others are unknown, not normal.
DISEASE_CODES = {"NOR": "NOR", "LV": "DCM", "HCM": "HCM", "ARR": "ACM", "FALL": "CHD", "CIA": "CHD"}
_VIEWS = {"sax": "SA", "lax_4ch": "LA"}


class Mnms2Source(Source):
    """Studies of M&Ms-2: `dataset/<code>/<code>_{SA,LA}_{ED,ES}.nii.gz` and masks beside them.

    Args:
        root: Folder with `dataset_information.csv` and `dataset`.
        spacing_mm: Distance of slices, rows and columns in mm, for files whose header states none.
    """

    def __init__(self, root: str, spacing_mm: Sequence[float] | None = None) -> None:
        self.root = Path(root)
        self.spacing_mm = spacing_mm
        self._settings = ReadingSettings("z", spacing_mm)
        self.table = self.root / "dataset_information.csv"
        # Spreadsheets drop the leading zeros that the folders have.
        table = read_table(self.table, needed=("SUBJECT_CODE",))
        rows = rows_by_id(table, "SUBJECT_CODE", width=3)
        self._rows: dict[str, Row] = {
            code: rows[code] for code in sorted(rows) if self._folder(code).is_dir()
        }
        if not self._rows:
            raise CmrvlmError(
                "no study of the table is here",
                file=self.root,
                field="data.root",
                remedy="Set data.root to the folder that holds dataset/001 and the others.",
            )

    def _folder(self, code: str) -> Path:
        """Return the folder of a study."""
        return self.root / "dataset" / code

    def study_ids(self) -> list[str]:
        """Return the subject codes that have a folder."""
        return list(self._rows)

    def strata(self) -> list[str]:
        """Return disease and vendor of each study."""
        return [
            f"{row.get('DISEASE', 'unknown')}/{row.get('VENDOR', '')}"
            for row in self._rows.values()
        ]

    def files(self, study_id: str) -> list[Path]:
        """Return the files of images and masks."""
        return without_clutter(self._folder(study_id).glob("*.nii.gz"))

    def table_row(self, study_id: str) -> Row:
        """Return the study's row of the table."""
        return self._rows[study_id]

    def load(self, study_id: str) -> Study:
        """Load ED and ES of both axes with their masks.

        Raises:
            CmrvlmError: A file is missing, or the left ventricle is not larger at ED than at ES.
        """
        folder = self._folder(study_id)
        series = {
            sequence: self._load_series(study_id, sequence, view)
            for sequence, view in _VIEWS.items()
            if (folder / f"{study_id}_{view}_ED.nii.gz").is_file()
        }
        if not series:
            raise CmrvlmError("no image of either axis is here", file=folder)

        measurements: dict[str, float] = {}
        if "sax" in series:
            series["sax"] = order_base_to_apex(series["sax"])
            measurements = measure_labelled_phases(
                series["sax"], folder, "Check the files of ED and ES."
            )
        code = self._rows[study_id].get("DISEASE", "")
        labels = StudyLabels(
            diseases=frozenset({DISEASE_CODES[code]}) if code in DISEASE_CODES else None,
            measurements=measurements,
        )
        return Study(study_id, study_id, series, labels)

    def _load_series(self, study_id: str, sequence: str, view: str) -> Series:
        """Load the images and masks of one axis.

        Args:
            study_id: The study.
            sequence: `sax` or `lax_4ch`.
            view: `SA` or `LA`, as in the names of the files.

        Returns:
            Series with two frames, ED and ES.
        """
        images: list[NDArray[np.float32]] = []
        masks: list[NDArray[np.uint8]] = []
        affine = np.eye(4)
        for phase in ("ED", "ES"):
            stem = f"{study_id}_{view}_{phase}"
            path = self._folder(study_id) / f"{stem}.nii.gz"
            image, frame_affine = read_image(path, sequence, self._settings)
            if images:
                check_frames(path, image.shape, frame_affine, images[0].shape, affine)
            affine = frame_affine
            mask_path = self._folder(study_id) / f"{stem}_gt.nii.gz"
            values = read_mask(mask_path, image.shape, affine, sequence, self._settings)
            images.append(image.astype(np.float32))
            masks.append(remap_labels(values, LABEL_MAP, mask_path))
        return Series(
            image=np.concatenate(images, axis=1),  # (Z, 2, H, W)
            affine=affine,
            mask=np.concatenate(masks, axis=1),
            phases={"ed": 0, "es": 1},
        )
