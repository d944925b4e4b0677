"""`data=myops2020`: late enhancement with scar and oedema (Li et al., MedIA 2023)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.series_files import read_image
from cmrvlm.study.study import Series, Study, StudyLabels
from cmrvlm.study.vocabulary import STRUCTURES
from data_modules.sources.base import Source
from data_modules.sources.masks import order_base_to_apex, read_mask, remap_labels

# Oedema (1220) is myocardium without late enhancement, and no structure of this project.
LABEL_MAP = {0: "background", 200: "myo", 500: "lv", 600: "rv", 1220: "myo", 2221: "scar"}


class Myops2020Source(Source):
    """Late enhancement of MyoPS 2020.

    Images are `<name>_DE.nii.gz`, masks `<name>_gd.nii.gz` where they are public.

    Args:
        root: Folder of the challenge, or any folder above its files.
    """

    def __init__(self, root: str) -> None:
        self.root = Path(root)
        self._images = {
            path.name.split("_DE")[0]: path for path in sorted(self.root.rglob("*_DE.nii.gz"))
        }
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
        return next(iter(sorted(self.root.rglob(f"{study_id}_gd.nii.gz"))), None)

    def files(self, study_id: str) -> list[Path]:
        """Return the files of image and mask."""
        files = [self._images[study_id]]
        mask_path = self._mask_path(study_id)
        if mask_path:
            files.append(mask_path)
        return files

    def load(self, study_id: str) -> Study:
        """Load the LGE stack; with a mask, the basal slice comes first."""
        image, affine = read_image(self._images[study_id], "lge")
        mask_path = self._mask_path(study_id)
        if mask_path is None:
            series = Series(image=image.astype(np.float32), affine=affine)
            return Study(study_id, study_id, {"lge": series})

        values = read_mask(mask_path, image.shape, affine, "lge")
        mask = remap_labels(values, LABEL_MAP, mask_path)
        series = Series(image=image.astype(np.float32), affine=affine, mask=mask, drawn=("scar",))
        labels = StudyLabels(findings={"lv_lge": bool((mask == STRUCTURES["scar"]).any())})
        return Study(study_id, study_id, {"lge": order_base_to_apex(series)}, labels)
