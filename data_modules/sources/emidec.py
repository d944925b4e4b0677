"""`data=emidec`: late enhancement with scar masks (Lalande et al., Data 2020;5(4):89)."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.file_names import without_clutter
from cmrvlm.study.plain_text import checked_names
from cmrvlm.study.reading_settings import ReadingSettings
from cmrvlm.study.series_files import read_image
from cmrvlm.study.study import Series, Study, StudyLabels
from data_modules.sources.base import Source
from data_modules.sources.masks import (
    order_base_to_apex,
    read_mask_of,
    remap_labels,
    with_findings_of_masks,
)
from data_modules.sources.stated_numbers import StatedNumbers
from data_modules.tables.numbers import parse_number
from data_modules.tables.text_files import read_text

log = logging.getLogger(__name__)

# The myocardium of the ground truth is 2, 3 and 4 together, the scar 3 and 4.
LABEL_MAP = {0: "background", 1: "lv", 2: "myo", 3: "scar", 4: "no_reflow"}
GROUPS = {"normal": "NOR", "pathological": "MI"}
# Number by its key in the clinical text.
_MEASUREMENTS = {"FEVG": "lvef_percent"}
_DEMOGRAPHICS = {"Age": "age_years"}
_LINE = re.compile(r"^\s*([^:\n]+?)\s*:\s*(.+?)\s*$", re.MULTILINE)


class EmidecSource(Source):
    """Cases of EMIDEC.

    A case is `<case>/Images/<case>.nii.gz` and `<case>/Contours/<case>.nii.gz`, with a clinical
    text `<case>.txt` in the folder above.

    Args:
        root: Folder with the cases.
        spacing_mm: Distance of slices, rows and columns in mm, for files whose header states none.
    """

    def __init__(self, root: str, spacing_mm: Sequence[float] | None = None) -> None:
        self.root = Path(root)
        self.spacing_mm = spacing_mm
        self._settings = ReadingSettings("z", spacing_mm)
        folders = without_clutter(self.root.glob("*"))
        names = [path.name for path in folders if (path / "Images").is_dir()]
        self._ids = checked_names(names, self.root)
        if not self._ids:
            raise CmrvlmError(
                "no case with a folder Images here",
                file=self.root,
                field="data.root",
                remedy="Set data.root to the folder that holds Case_N001 and the others.",
            )
        unlabelled = [study_id for study_id in self._ids if not self._is_labelled(study_id)]
        if unlabelled:
            log.info("EMIDEC: %d of %d cases have no contours", len(unlabelled), len(self._ids))

    def _is_labelled(self, study_id: str) -> bool:
        """Return whether a case has contours; those of the challenge's test part have none."""
        return (self.root / study_id / "Contours").is_dir()

    def study_ids(self) -> list[str]:
        """Return the names of the case folders."""
        return list(self._ids)

    def strata(self) -> list[str]:
        """Return whether each case is normal or pathological, as its name says."""
        return [_group_of(study_id) or "unknown" for study_id in self._ids]

    def files(self, study_id: str) -> list[Path]:
        """Return the files of the image, the contours and the clinical text."""
        files = without_clutter((self.root / study_id).rglob("*.nii*"))
        text = self._text_file(study_id)
        if text:
            files.append(text)
        return files

    def notes(self, study_id: str) -> list[str]:
        """Return the numbers of the clinical text that cannot be right and count as unknown."""
        return _stated_numbers(self._read_text(study_id), _MEASUREMENTS | _DEMOGRAPHICS).notes

    def _text_file(self, study_id: str) -> Path | None:
        """Return the file of the clinical text, or None."""
        # The published files are named with a space or with an underscore.
        names = (f"{study_id}.txt", f"{study_id.replace('_', ' ')}.txt")
        paths = [self.root / name for name in names]
        return next((path for path in paths if path.is_file()), None)

    def load(self, study_id: str) -> Study:
        """Load the LGE stack and the clinical text; with a mask, the basal slice comes first."""
        path = self.root / study_id / "Images" / f"{study_id}.nii.gz"
        image, affine = read_image(path, "lge", self._settings)
        series = Series(image=image.astype(np.float32), affine=affine)
        if self._is_labelled(study_id):
            mask_path = self.root / study_id / "Contours" / f"{study_id}.nii.gz"
            values = read_mask_of(series, mask_path, "lge", self._settings)
            mask = remap_labels(values, LABEL_MAP, mask_path)
            series = replace(series, mask=mask, drawn=("scar", "no_reflow"))
            series = order_base_to_apex(series)

        text = self._read_text(study_id)
        group = _group_of(study_id)
        labels = StudyLabels(
            diseases=frozenset({GROUPS[group]}) if group else None,
            measurements=_stated_numbers(text, _MEASUREMENTS).values,
            demographics={**_stated_numbers(text, _DEMOGRAPHICS).values, **_sex(text)},
        )
        series_of = {"lge": series}
        return Study(study_id, study_id, series_of, with_findings_of_masks(labels, series_of))

    def _read_text(self, study_id: str) -> dict[str, str]:
        """Read the clinical text, and return value by key; empty where there is none."""
        path = self._text_file(study_id)
        if path is None:
            return {}
        # French typography puts a non-breaking space before the colon.
        return dict(_LINE.findall(read_text(path).replace("\xa0", " ")))


def _group_of(study_id: str) -> str | None:
    """Return `normal` or `pathological` as the name of a case says, or None."""
    match = re.search(r"Case_([NP])\d|sample(Neg|Pos)", study_id)
    if match is None:
        return None
    letter = (match[1] or match[2])[0]
    return {"N": "normal", "P": "pathological"}[letter]


def _stated_numbers(text: Mapping[str, str], names: Mapping[str, str]) -> StatedNumbers:
    """Return the numbers of the clinical text, as far as they are known.

    Args:
        text: Value by key.
        names: Name of the number by key.
    """
    numbers = StatedNumbers()
    for key, name in names.items():
        read = partial(parse_number, text.get(key), key, name, decimal_comma=True)
        numbers.add(name, read)
    return numbers


def _sex(text: dict[str, str]) -> dict[str, str]:
    """Return the sex that the clinical text states, or nothing."""
    sex = text.get("Sex", "").lower()
    return {"sex": sex} if sex in ("m", "f") else {}
