"""`data=emidec`: late enhancement with scar masks (Lalande et al., Data 2020;5(4):89)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.files import read_image
from cmrvlm.study.study import Series, Study, StudyLabels
from data_modules.sources.base import Source
from data_modules.sources.masks import order_base_to_apex, read_mask, remap_labels
from data_modules.sources.tables import read_text

# The myocardium of the ground truth is 2, 3 and 4 together, the scar 3 and 4.
LABEL_MAP = {0: "background", 1: "lv", 2: "myo", 3: "scar", 4: "no_reflow"}
_LINE = re.compile(r"^\s*([^:\n]+?)\s*:\s*(.+?)\s*$", re.MULTILINE)


class EmidecSource(Source):
    """Cases of EMIDEC: `<case>/Images/<case>.nii.gz`, its contours, and `<case>.txt` with what is known of the patient.

    Args:
        root: Folder with the cases.
    """

    def __init__(self, root: str) -> None:
        self.root = Path(root)
        self._ids = sorted(path.name for path in self.root.glob("*") if (path / "Images").is_dir())
        if not self._ids:
            raise CmrvlmError(
                "no case with a folder Images here",
                file=self.root,
                field="data.root",
                remedy="Set data.root to the folder that holds Case_N001 and the others.",
            )

    def study_ids(self) -> list[str]:
        """Names of the case folders."""
        return list(self._ids)

    def strata(self) -> list[str]:
        """Normal or pathological, by the name."""
        return [_group(study) or "unknown" for study in self._ids]

    def files(self, study_id: str) -> list[Path]:
        """Image, contours and text."""
        folder, text = self.root / study_id, self._text(study_id)
        return [*sorted(path for path in folder.rglob("*.nii*")), *([text] if text else [])]

    def _text(self, study_id: str) -> Path | None:
        names = (f"{study_id}.txt", f"{study_id.replace('_', ' ')}.txt")
        return next((self.root / name for name in names if (self.root / name).is_file()), None)

    def load(self, study_id: str) -> Study:
        """Read the LGE stack with its mask, base first, and the clinical text."""
        image, affine = read_image(self.root / study_id / "Images" / f"{study_id}.nii.gz", "lge")
        path = self.root / study_id / "Contours" / f"{study_id}.nii.gz"
        mask = remap_labels(read_mask(path, image.shape, affine, "lge"), LABEL_MAP, path)
        series = order_base_to_apex(
            Series(image.astype(np.float32), affine, None, mask, drawn=("scar", "no_reflow"))
        )
        scarred = bool((mask >= 4).any())
        group = _group(study_id)
        text = self._text(study_id)
        told = dict(_LINE.findall(read_text(text).replace("\xa0", " "))) if text else {}
        labels = StudyLabels(
            diseases=None
            if group is None
            else frozenset({"MI" if group == "pathological" else "NOR"}),
            findings={"lv_lge": scarred},
            measurements=_numbers(told, {"FEVG": "lvef_percent"}),
            demographics={**_numbers(told, {"Age": "age_years"}), **_sex(told)},
        )
        return Study(study_id, study_id, {"lge": series}, labels)


def _group(study_id: str) -> str | None:
    found = re.search(r"Case_([NP])\d|sample(Neg|Pos)", study_id)
    if found is None:
        return None
    return "pathological" if "P" in found[0].replace("Case", "").replace("sample", "") else "normal"


def _numbers(told: dict[str, str], names: dict[str, str]) -> dict[str, float]:
    found = {}
    for key, name in names.items():
        value = re.fullmatch(r"\d+(\.\d+)?", told.get(key, ""))
        if value:
            found[name] = float(value[0])
    return found


def _sex(told: dict[str, str]) -> dict[str, str]:
    sex = told.get("Sex", "").lower()
    return {"sex": sex} if sex in ("m", "f") else {}
