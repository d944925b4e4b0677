"""`data=mnms2`: M&Ms-2, both axes at ED and ES (Martín-Isla et al., JBHI 2023, doi 10.1109/JBHI.2023.3267857)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.files import read_image
from cmrvlm.study.study import Series, Study, StudyLabels
from data_modules.sources.base import Source
from data_modules.sources.masks import (
    measure_labelled_phases,
    order_base_to_apex,
    read_mask,
    remap_labels,
)
from data_modules.sources.tables import Row, read_table

LABEL_MAP = {0: "background", 1: "lv", 2: "myo", 3: "rv"}
# Diseases that are one of the sixteen classes; the others are unknown, not normal.
DISEASES = {"NOR": "NOR", "LV": "DCM", "HCM": "HCM", "ARR": "ACM", "FALL": "CHD", "CIA": "CHD"}
_VIEWS = {"sax": "SA", "lax_4ch": "LA"}


class Mnms2Source(Source):
    """Studies of M&Ms-2: `dataset/<code>/<code>_{SA,LA}_{ED,ES}.nii.gz` and masks beside them.

    Args:
        root: Folder with `dataset_information.csv` and `dataset`.
    """

    def __init__(self, root: str) -> None:
        self.root = Path(root)
        self.table = self.root / "dataset_information.csv"
        rows = {
            row["SUBJECT_CODE"].zfill(3): row
            for row in read_table(self.table)
            if "SUBJECT_CODE" in row
        }
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
        return self.root / "dataset" / code

    def study_ids(self) -> list[str]:
        """Subject codes that have a folder."""
        return list(self._rows)

    def strata(self) -> list[str]:
        """Disease and vendor."""
        return [
            f"{row.get('DISEASE', 'unknown')}/{row.get('VENDOR', '')}"
            for row in self._rows.values()
        ]

    def files(self, study_id: str) -> list[Path]:
        """Images, masks and the table."""
        return [self.table, *sorted(self._folder(study_id).glob("*.nii.gz"))]

    def load(self, study_id: str) -> Study:
        """Read ED and ES of both axes with their masks.

        Raises:
            CmrvlmError: A file is missing, or the left ventricle is no larger at ED than at ES.
        """
        series = {
            name: self._series(study_id, name, view)
            for name, view in _VIEWS.items()
            if (self._folder(study_id) / f"{study_id}_{view}_ED.nii.gz").is_file()
        }
        if not series:
            raise CmrvlmError("no image of either axis is here", file=self._folder(study_id))
        measured: dict[str, float] = {}
        if "sax" in series:
            series["sax"] = order_base_to_apex(series["sax"])
            measured = measure_labelled_phases(
                series["sax"], self._folder(study_id), "Check the files of ED and ES."
            )
        code = self._rows[study_id].get("DISEASE", "")
        labels = StudyLabels(
            diseases=frozenset({DISEASES[code]}) if code in DISEASES else None,
            measurements=measured,
        )
        return Study(study_id, study_id, series, labels)

    def _series(self, study_id: str, sequence: str, view: str) -> Series:
        images: list[NDArray[np.float32]] = []
        masks: list[NDArray[np.uint8]] = []
        affine = np.eye(4)
        for phase in ("ED", "ES"):
            image, affine = read_image(
                self._folder(study_id) / f"{study_id}_{view}_{phase}.nii.gz", sequence
            )
            path = self._folder(study_id) / f"{study_id}_{view}_{phase}_gt.nii.gz"
            images.append(image.astype(np.float32))
            masks.append(
                remap_labels(read_mask(path, image.shape, affine, sequence), LABEL_MAP, path)
            )
        image, mask = np.concatenate(images, axis=1), np.concatenate(masks, axis=1)  # (Z, 2, H, W)
        return Series(image, affine, None, mask, {"ed": 0, "es": 1})
