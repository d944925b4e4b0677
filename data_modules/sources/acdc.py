"""`data=acdc`: the challenge's own layout (Bernard et al., IEEE TMI 2018, doi 10.1109/TMI.2018.2837502)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cmrvlm.errors import CmrvlmError
from cmrvlm.labels import LEVELS, NOT_ANNOTATED, STRUCTURES
from cmrvlm.study import Series, Study, StudyLabels
from cmrvlm.study_io import read_nifti
from cmrvlm.transforms.grid import flip_slices
from data_modules.sources.base import Source

LABEL_MAP = {0: STRUCTURES["background"], 1: STRUCTURES["rv"], 2: STRUCTURES["myo"], 3: STRUCTURES["lv"]}
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
                "there is no such folder", file=self.root, remedy="Set data.root to ACDC's training folder."
            )
        self._ids = sorted(p.name for p in self.root.iterdir() if p.is_dir() and p.name.startswith("patient"))
        if not self._ids:
            raise CmrvlmError(
                "no patientNNN folders here", file=self.root, remedy="Set data.root to the folder above them."
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
                "there is no Info.cfg", file=path, remedy="Restore the file; it names the ED and ES frames."
            )
        pairs = (line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
        return {key.strip(): value.strip() for key, value in pairs}

    def load(self, study_id: str) -> Study:
        """Read ED and ES with their masks, and all frames where the 4D file is there."""
        info = self.info(study_id)
        series = _base_first(self._series(study_id, self._frames(study_id, info)))
        measured = measure_masks(series)
        if measured["lvesv_ml"] >= measured["lvedv_ml"]:
            problem = "the left ventricle is not larger at ED than at ES"
            path = self.root / study_id / "Info.cfg"
            raise CmrvlmError(problem, file=path, field="ED", remedy="Frames count from 1; check ED and ES.")
        group = info.get("Group", "")
        people = {"height_cm": "Height", "weight_kg": "Weight"}
        labels = StudyLabels(
            diseases=frozenset({GROUPS[group]}) if group in GROUPS else None,
            measurements=measured,
            demographics={name: float(info[key]) for name, key in people.items() if key in info},
        )
        return Study(study_id, study_id, {"sax": series}, labels)

    def _frames(self, study_id: str, info: dict[str, str]) -> dict[str, int]:
        frames = {}
        for phase, key in (("ed", "ED"), ("es", "ES")):
            if not info.get(key, "").isdigit():
                raise CmrvlmError("the frame number is missing", file=self.root / study_id / "Info.cfg", field=key,
                                  remedy="Write the number of the frame, counted from 1.")  # fmt: skip
            frames[phase] = int(info[key])
        return frames

    def _series(self, study_id: str, frames: dict[str, int]) -> Series:
        folder = self.root / study_id
        images, masks, affine = {}, {}, None
        for frame in sorted(set(frames.values())):
            path = folder / f"{study_id}_frame{frame:02d}.nii.gz"
            images[frame], affine = read_nifti(path)
            truth = folder / f"{study_id}_frame{frame:02d}_gt.nii.gz"
            values, mask_affine = read_nifti(truth)
            if values.shape != images[frame].shape or np.abs(mask_affine - affine).max() > 1e-3:
                raise CmrvlmError(
                    f"mask and image do not lie on one grid: {values.shape}, {images[frame].shape}", file=truth
                )
            masks[frame] = _canonical(values, truth)
            if not masks[frame].any():
                raise CmrvlmError(
                    f"frame {frame} has no mask", file=truth, remedy="Frames count from 1; check Info.cfg."
                )
        assert affine is not None
        whole = folder / f"{study_id}_4d.nii.gz"
        if whole.is_file():
            image, affine = read_nifti(whole)
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


def _canonical(values: np.ndarray, path: Path) -> np.ndarray:
    unknown = sorted(set(np.unique(values).tolist()) - set(LABEL_MAP))
    if unknown:
        raise CmrvlmError(f"unknown label values {unknown}", file=path, field="mask", remedy="ACDC has 0, 1, 2 and 3.")
    table = np.array([LABEL_MAP[value] for value in range(4)], dtype=np.uint8)
    return table[values.astype(np.int64)]


def measure_masks(series: Series) -> dict[str, float]:
    """Volumes in ml and ejection fractions in % from ED and ES masks: voxels counted, times the affine's volume."""
    assert series.mask is not None
    measured: dict[str, float] = {}
    for side in ("lv", "rv"):
        volume = {}
        for phase, frame in series.phases.items():
            count = int((series.mask[:, frame] == STRUCTURES[side]).sum(dtype=np.int64))
            volume[phase] = count * series.voxel_volume_ml
            measured[f"{side}{phase}v_ml"] = volume[phase]
        if volume["ed"] > 0:
            measured[f"{side}ef_percent"] = 100 * (volume["ed"] - volume["es"]) / volume["ed"]
    return measured


def _base_first(series: Series) -> Series:
    """Basal slice first, decided by the mask: the ventricles are wider at the base; levels are thirds of the wall."""
    assert series.mask is not None
    mask = series.mask[:, series.phases["ed"]]
    area = (mask > 0).sum(axis=(1, 2))
    half = len(area) // 2
    if area[:half].sum() < area[len(area) - half :].sum():
        series = flip_slices(series)
        assert series.mask is not None
        mask = series.mask[:, series.phases["ed"]]
    wall = np.flatnonzero((mask == STRUCTURES["myo"]).any(axis=(1, 2)))
    levels: list[str | None] = [None] * len(mask)
    for index in wall:
        share = (index - wall[0]) / max(1, len(wall))
        levels[int(index)] = LEVELS[min(2, int(share * 3))]
    return Series(series.image, series.affine, series.frame_times_ms, series.mask, series.phases, tuple(levels))
