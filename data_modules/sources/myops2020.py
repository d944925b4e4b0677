"""`data=myops2020`: late enhancement with scar and oedema (Li et al., MedIA 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.file_names import without_clutter
from cmrvlm.study.plain_text import checked_names
from cmrvlm.study.reading_settings import ReadingSettings
from cmrvlm.study.series_files import read_image
from cmrvlm.study.study import Series, Study, StudyLabels
from data_modules.sources.base import Source
from data_modules.sources.mask_checks import enclosed_fraction, find_label_error
from data_modules.sources.masks import (
    order_base_to_apex,
    read_mask,
    remap_labels,
    with_findings_of_masks,
)

# Oedema (1220) is myocardium without late enhancement, and no structure of this project.
LABEL_MAP = {0: "background", 200: "myo", 500: "lv", 600: "rv", 1220: "myo", 2221: "scar"}
# Repacked copies count the values up, either in the order of the challenge's values or in that of
# CineMA. They differ in which of 1 and 3 is the myocardium.
COUNTED_MAPS = (
    {0: "background", 1: "myo", 2: "lv", 3: "rv", 4: "myo", 5: "scar"},
    {0: "background", 1: "rv", 2: "lv", 3: "myo", 4: "myo", 5: "scar"},
)


class Myops2020Source(Source):
    """Late enhancement of MyoPS 2020.

    Images are `<name>_DE.nii.gz`, masks `<name>_gd.nii.gz` where they are public.

    Args:
        root: Folder of the challenge, or any folder above its files.
        spacing_mm: Distance of slices, rows and columns in mm, for files whose header states none.
    """

    def __init__(self, root: str, spacing_mm: Sequence[float] | None = None) -> None:
        self.root = Path(root)
        self.spacing_mm = spacing_mm
        self._settings = ReadingSettings("z", spacing_mm)
        images = without_clutter(self.root.rglob("*_DE.nii.gz"))
        self._images = {path.name.split("_DE")[0]: path for path in images}
        checked_names(list(self._images), self.root)
        if not self._images:
            raise CmrvlmError(
                "no *_DE.nii.gz here",
                file=self.root,
                field="data.root",
                remedy="Set data.root to the unpacked challenge.",
            )

    def study_ids(self) -> list[str]:
        """Return the names of the studies."""
        return list(self._images)

    def _mask_path(self, study_id: str) -> Path | None:
        """Return the file of a study's mask, or None where it is not public."""
        return next(iter(without_clutter(self.root.rglob(f"{study_id}_gd.nii.gz"))), None)

    def files(self, study_id: str) -> list[Path]:
        """Return the files of image and mask."""
        files = [self._images[study_id]]
        mask_path = self._mask_path(study_id)
        if mask_path:
            files.append(mask_path)
        return files

    def load(self, study_id: str) -> Study:
        """Load the LGE stack; with a mask, the basal slice comes first."""
        image, affine = read_image(self._images[study_id], "lge", self._settings)
        mask_path = self._mask_path(study_id)
        if mask_path is None:
            series = Series(image=image.astype(np.float32), affine=affine)
            return Study(study_id, study_id, {"lge": series})

        values = read_mask(mask_path, image.shape, affine, "lge", self._settings)
        mask = _canonical(values, mask_path)
        # Where nobody drew a heart, nobody looked for a scar.
        drawn = ("scar",) if mask.any() else ()
        series = Series(image=image.astype(np.float32), affine=affine, mask=mask, drawn=drawn)
        series_of = {"lge": order_base_to_apex(series)}
        labels = with_findings_of_masks(StudyLabels(), series_of)
        return Study(study_id, study_id, series_of, labels)


def _canonical(values: NDArray[np.generic], path: Path) -> NDArray[np.uint8]:
    """Return a mask of the challenge, or of a copy with values 0 to 5, with canonical values.

    Of the two orders that copies have, that one counts in which the myocardium encloses the left
    ventricle.

    Args:
        values: (Z, T, H, W) values of the file.
        path: The file.

    Raises:
        CmrvlmError: There are other values, or both orders or neither make a heart.
    """
    if int(values.max()) > max(COUNTED_MAPS[0]) or not values.any():
        return remap_labels(values, LABEL_MAP, path)
    masks = [remap_labels(values, label_map, path) for label_map in COUNTED_MAPS]
    # Without a wall around a cavity no order is wrong.
    hearts = [
        mask for mask in masks if enclosed_fraction(mask, "lv") and find_label_error(mask) is None
    ]
    if len(hearts) != 1:
        raise CmrvlmError(
            "it is not certain whether 1 or 3 is the myocardium",
            file=path,
            field="mask",
            remedy="Use the challenge's own values 200, 500, 600, 1220 and 2221.",
        )
    return hearts[0]
