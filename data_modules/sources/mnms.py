"""`data=mnms`: the M&Ms challenge (Campello et al., IEEE TMI 2021, doi 10.1109/TMI.2021.3090082)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.files import read_image
from cmrvlm.study.study import Series, Study, StudyLabels
from cmrvlm.study.vocabulary import NOT_ANNOTATED
from data_modules.sources.base import Source
from data_modules.sources.masks import (
    measure_labelled_phases,
    order_base_to_apex,
    read_mask,
    remap_labels,
)
from data_modules.sources.tables import Row, read_table

LABEL_MAP = {0: "background", 1: "lv", 2: "myo", 3: "rv"}  # the other way round than ACDC
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
        root: Folder with the table `*dataset_information*.csv` and the folders of the challenge's parts.
    """

    def __init__(self, root: str) -> None:
        self.root = Path(root)
        tables = sorted(self.root.glob("*ataset_information*.csv"))
        if len(tables) != 1:
            raise CmrvlmError(
                f"{len(tables)} tables *dataset_information*.csv here",
                file=self.root,
                field="data.root",
                remedy="Set data.root to the unpacked challenge.",
            )
        self.table = tables[0]
        rows = {
            row["External code"]: row for row in read_table(self.table) if "External code" in row
        }
        found = {path.name.split("_sa")[0]: path.parent for path in self.root.rglob("*_sa.nii.gz")}
        self._rows = {code: rows[code] for code in sorted(rows) if code in found}
        self._folders = {code: found[code] for code in self._rows}
        if not self._rows:
            raise CmrvlmError(
                "no study of the table is here",
                file=self.root,
                field="data.root",
                remedy="Set data.root to the unpacked challenge.",
            )

    def study_ids(self) -> list[str]:
        """External codes that have an image."""
        return list(self._rows)

    def strata(self) -> list[str]:
        """Pathology and vendor."""
        return [
            f"{row.get('Pathology', 'unknown')}/{row.get('Vendor', '')}"
            for row in self._rows.values()
        ]

    def files(self, study_id: str) -> list[Path]:
        """Image, masks and the table."""
        return [self.table, *sorted(self._folders[study_id].glob("*.nii.gz"))]

    def load(self, study_id: str) -> Study:
        """Read all frames with the masks of ED and ES.

        Raises:
            CmrvlmError: A stated frame has no mask, or the left ventricle is no larger at ED than at ES.
        """
        row, folder = self._rows[study_id], self._folders[study_id]
        image, affine = read_image(folder / f"{study_id}_sa.nii.gz", "sax")
        path = folder / f"{study_id}_sa_gt.nii.gz"
        mask = remap_labels(read_mask(path, image.shape, affine, "sax"), LABEL_MAP, path)
        phases = {phase: self._frame(row, phase.upper(), mask, path) for phase in ("ed", "es")}
        mask[:, [frame for frame in range(mask.shape[1]) if frame not in phases.values()]] = (
            NOT_ANNOTATED
        )
        series = order_base_to_apex(Series(image.astype(np.float32), affine, None, mask, phases))
        measured = measure_labelled_phases(
            series, self.table, "Frames count from 0; check ED and ES."
        )
        pathology = row.get("Pathology", "")
        labels = StudyLabels(
            diseases=frozenset({PATHOLOGIES[pathology]}) if pathology in PATHOLOGIES else None,
            measurements=measured,
            demographics=demographics(row),
        )
        return Study(study_id, study_id, {"sax": series}, labels)

    def _frame(self, row: Row, column: str, mask: np.ndarray, path: Path) -> int:
        text = row.get(column, "")
        if not text.isdigit() or int(text) >= mask.shape[1]:
            raise CmrvlmError(
                f"'{text}' is no frame of {mask.shape[1]}",
                file=self.table,
                field=column,
                remedy="Frames count from 0.",
            )
        if not mask[:, int(text)].any():
            raise CmrvlmError(
                f"frame {text} has no mask", file=path, field=column, remedy="Frames count from 0."
            )
        return int(text)


def demographics(row: Row) -> dict[str, float | str]:
    """Age, sex, height and weight as the challenge writes them; what is no number is unknown."""
    found: dict[str, float | str] = {}
    for column, name in (("Age", "age_years"), ("Height", "height_cm"), ("Weight", "weight_kg")):
        text = row.get(column, "")
        if text.replace(".", "", 1).isdigit():
            found[name] = float(text)
    if row.get("Sex", "").lower() in ("m", "f"):
        found["sex"] = row["Sex"].lower()
    return found
