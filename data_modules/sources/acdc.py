"""`data=acdc`: the challenge's own layout (Bernard et al., IEEE TMI 2018, doi 10.1109/TMI.2018.2837502)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.files import read_image
from cmrvlm.study.measurements import known_numbers
from cmrvlm.study.study import Series, Study, StudyLabels
from cmrvlm.study.vocabulary import NOT_ANNOTATED
from data_modules.sources.base import Source
from data_modules.sources.masks import (
    measure_labelled_phases,
    order_base_to_apex,
    read_mask,
    remap_labels,
)

LABEL_MAP = {0: "background", 1: "rv", 2: "myo", 3: "lv"}
# "Abnormal right ventricle" is no single one of the sixteen classes: its disease is unknown, not normal.
GROUPS = {"DCM": "DCM", "HCM": "HCM", "MINF": "MI", "NOR": "NOR"}


class AcdcSource(Source):
    """Patients of ACDC, with or without the 4D files. Frame numbers in its names and in `Info.cfg` count from 1.

    Args:
        root: Folder with `patientNNN` folders.
    """

    def __init__(self, root: str) -> None:
        self.root = Path(root)
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
                remedy="Set data.root to the folder above them.",
            )

    def study_ids(self) -> list[str]:
        """Names of the patient folders."""
        return list(self._ids)

    def strata(self) -> list[str]:
        """The challenge's five groups."""
        return [self.info(study).get("Group", "unknown") for study in self._ids]

    def files(self, study_id: str) -> list[Path]:
        """Everything in the patient's folder."""
        return sorted(p for p in (self.root / study_id).iterdir() if p.is_file())

    def info(self, study_id: str) -> dict[str, str]:
        """`Info.cfg` as text; keys that are not there are simply absent."""
        path = self.root / study_id / "Info.cfg"
        if not path.is_file():
            raise CmrvlmError(
                "there is no Info.cfg",
                file=path,
                remedy="Restore the file; it names the ED and ES frames.",
            )
        pairs = (line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
        return {key.strip(): value.strip() for key, value in pairs}

    def load(self, study_id: str) -> Study:
        """Read ED and ES with their masks, and all frames where the 4D file is there."""
        info = self.info(study_id)
        series = order_base_to_apex(self._series(study_id, self._frames(study_id, info)))
        path = self.root / study_id / "Info.cfg"
        measured = measure_labelled_phases(series, path, "Frames count from 1; check ED and ES.")
        group = info.get("Group", "")
        people = {"height_cm": "Height", "weight_kg": "Weight"}
        labels = StudyLabels(
            diseases=frozenset({GROUPS[group]}) if group in GROUPS else None,
            measurements=measured,
            demographics={
                **known_numbers(
                    {name: float(info[key]) for name, key in people.items() if key in info}
                )
            },
        )
        return Study(study_id, study_id, {"sax": series}, labels)

    def _frames(self, study_id: str, info: dict[str, str]) -> dict[str, int]:
        frames = {}
        for phase, key in (("ed", "ED"), ("es", "ES")):
            if not info.get(key, "").isdigit():
                raise CmrvlmError(
                    "the frame number is missing",
                    file=self.root / study_id / "Info.cfg",
                    field=key,
                    remedy="Write the number of the frame, counted from 1.",
                )
            frames[phase] = int(info[key])
        return frames

    def _series(self, study_id: str, frames: dict[str, int]) -> Series:
        folder = self.root / study_id
        images, masks, affine = {}, {}, None
        for frame in sorted(set(frames.values())):
            path = folder / f"{study_id}_frame{frame:02d}.nii.gz"
            images[frame], affine = read_image(path, "sax")
            truth = folder / f"{study_id}_frame{frame:02d}_gt.nii.gz"
            masks[frame] = remap_labels(
                read_mask(truth, images[frame].shape, affine, "sax"), LABEL_MAP, truth
            )
            if not masks[frame].any():
                raise CmrvlmError(
                    f"frame {frame} has no mask",
                    file=truth,
                    remedy="Frames count from 1; check Info.cfg.",
                )
        assert affine is not None
        whole = folder / f"{study_id}_4d.nii.gz"
        if whole.is_file():
            image, affine = read_image(whole, "sax")
            mask = np.full(image.shape, NOT_ANNOTATED, dtype=np.uint8)
            for frame, values in masks.items():
                mask[:, frame - 1] = values[:, 0]
            phases = {phase: frame - 1 for phase, frame in frames.items()}
        else:
            order = sorted(images)
            image = np.concatenate([images[frame] for frame in order], axis=1)
            mask = np.concatenate([masks[frame] for frame in order], axis=1)
            phases = {phase: order.index(frame) for phase, frame in frames.items()}
        return Series(image.astype(np.float32), affine, None, mask, phases)
