"""`data=myops2020`: aligned bSSFP, T2 and late enhancement with scar and oedema (Li et al., MedIA 2023)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.files import read_image
from cmrvlm.study.study import Series, Study, StudyLabels
from data_modules.sources.base import Source
from data_modules.sources.masks import order_base_to_apex, read_mask, remap_labels

# Oedema (1220) is myocardium without late enhancement; the project has no structure of its own for it.
LABEL_MAP = {0: "background", 200: "myo", 500: "lv", 600: "rv", 1220: "myo", 2221: "scar"}


class Myops2020Source(Source):
    """Late enhancement of MyoPS 2020: `<name>_DE.nii.gz`, with masks `<name>_gd.nii.gz` where they are public.

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
        """Names of the studies."""
        return list(self._images)

    def _mask(self, study_id: str) -> Path | None:
        return next(iter(sorted(self.root.rglob(f"{study_id}_gd.nii.gz"))), None)

    def files(self, study_id: str) -> list[Path]:
        """Image and mask."""
        mask = self._mask(study_id)
        return [self._images[study_id], *([mask] if mask else [])]

    def load(self, study_id: str) -> Study:
        """Read the LGE stack; base first where a mask tells it."""
        image, affine = read_image(self._images[study_id], "lge")
        path = self._mask(study_id)
        if path is None:
            return Study(study_id, study_id, {"lge": Series(image.astype(np.float32), affine)})
        values = read_mask(path, image.shape, affine, "lge")
        mask = remap_labels(values, LABEL_MAP, path)
        labels = StudyLabels(findings={"lv_lge": bool((values == 2221).any())})
        series = order_base_to_apex(
            Series(image.astype(np.float32), affine, None, mask, drawn=("scar",))
        )
        return Study(study_id, study_id, {"lge": series}, labels)
