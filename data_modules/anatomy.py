"""What masks of the heart have in common, whichever data set they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cmrvlm.errors import CmrvlmError
from cmrvlm.labels import LEVELS, NOT_ANNOTATED, STRUCTURES
from cmrvlm.study import Series
from cmrvlm.study_io import read_nifti
from cmrvlm.transforms.grid import flip_slices

_LEAST_ENCLOSED = 0.5  # of the cavity's border; at the base the outflow tract is open


def canonical(values: NDArray[np.generic], label_map: Mapping[int, str], path: Path) -> NDArray[np.uint8]:
    """Values of a data set's masks as canonical ones.

    Args:
        values: Mask of any shape.
        label_map: Value to structure, all values that may occur.
        path: The file, for the error.

    Raises:
        CmrvlmError: Another value occurs.
    """
    found = np.unique(values)
    unknown = [value.item() for value in found if value not in label_map]
    if unknown:
        known = ", ".join(f"{value} {name}" for value, name in label_map.items())
        raise CmrvlmError(f"unknown label values {unknown}", file=path, field="mask", remedy=f"Known here: {known}.")
    result = np.zeros(values.shape, dtype=np.uint8)
    for value in found:
        result[values == value] = STRUCTURES[label_map[int(value)]]
    return result


def read_mask(path: Path, shape: tuple[int, ...], affine: NDArray[np.float64]) -> NDArray[np.generic]:
    """Values (Z, T, H, W) of a mask file, as they stand there, that lie on the grid of their image.

    Args:
        path: The file.
        shape: Of the image.
        affine: Of the image.

    Raises:
        CmrvlmError: Shape or affine is another, by more than 1e-3.
    """
    values, own = read_nifti(path)
    if values.shape != shape or np.abs(own - affine).max() > 1e-3:
        raise CmrvlmError(f"mask and image do not lie on one grid: {values.shape} and {shape}, affines "
                          f"{own.round(3).tolist()} and {affine.round(3).tolist()}", file=path, field="mask",
                          remedy="Write the mask on the grid of its image.")  # fmt: skip
    return values


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
        if volume.get("ed", 0.0) > 0 and "es" in volume:
            measured[f"{side}ef_percent"] = 100 * (volume["ed"] - volume["es"]) / volume["ed"]
    return measured


def base_first(series: Series) -> Series:
    """Basal slice first, decided by the mask: the ventricles are wider at the base; levels are thirds of the wall."""
    assert series.mask is not None
    frame = series.phases.get("ed", 0)
    mask = series.mask[:, frame]
    area = ((mask > 0) & (mask != NOT_ANNOTATED)).sum(axis=(1, 2))
    half = len(area) // 2
    if area[:half].sum() < area[len(area) - half :].sum():
        series = flip_slices(series)
        assert series.mask is not None
        mask = series.mask[:, frame]
    wall = np.flatnonzero((mask == STRUCTURES["myo"]).any(axis=(1, 2)))
    levels: list[str | None] = [None] * len(mask)
    for index in wall:
        share = (index - wall[0]) / max(1, len(wall))
        levels[int(index)] = LEVELS[min(2, int(share * 3))]
    return replace(series, levels=tuple(levels))


def enclosed_share(mask: NDArray[np.uint8], structure: str) -> float | None:
    """Share of a cavity's border that touches the myocardium, scar included; None without a cavity.

    Counted in the planes (H, W) of a mask of any shape. The myocardium encloses the left ventricular cavity and touches
    the right one on one side only: where the right one is enclosed better, the labels are mixed up.
    """
    planes = mask.reshape(-1, *mask.shape[-2:])
    wall = np.isin(planes, [STRUCTURES[name] for name in ("myo", "scar", "no_reflow")])
    cavity = planes == STRUCTURES[structure]
    cross = ndimage.generate_binary_structure(2, 1)[None]
    border = ndimage.binary_dilation(cavity, cross) & ~cavity
    return float((border & wall).sum() / border.sum()) if border.any() else None


def mixed_up(mask: NDArray[np.uint8]) -> str | None:
    """What is wrong with the labels of a short-axis mask, None when nothing is."""
    left, right = enclosed_share(mask, "lv"), enclosed_share(mask, "rv")
    if left is None or not (mask == STRUCTURES["myo"]).any():
        return None
    if right is not None and right > left:
        return f"the myocardium encloses the right cavity ({right:.0%}) better than the left one ({left:.0%})"
    if left < _LEAST_ENCLOSED:
        return f"the myocardium encloses {left:.0%} of the left cavity"
    return None
