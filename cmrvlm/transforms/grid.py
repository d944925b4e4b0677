"""Every series onto a stated grid: base-first slices, spacing in mm, a field of view about the heart."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.orientation import flip_slices, runs_to_apex
from cmrvlm.study.study import FloatArray, Series, Study
from cmrvlm.transforms.geometry import resample_image, resample_mask, target_grid
from cmrvlm.transforms.step import Step

Center = Literal["image", "heart"]


class BaseToApex(Step):
    """Short-axis stacks with the basal slice first, decided by geometry, never by index alone.

    Where the affine cannot decide, the order is left as it is.
    """

    stacks = ("sax", "lge")

    def __call__(self, study: Study) -> Study:
        """Reverse the stacks that run from the apex to the base."""
        series = {
            name: flip_slices(one)
            if name in self.stacks and runs_to_apex(one.affine) is False
            else one
            for name, one in study.series.items()
        }
        return study.with_series(series)


class ToGrid(Step):
    """Resample and crop or pad each series in one interpolation.

    Args:
        spacing_mm: Spacing along (Z, H, W); None keeps the series' own.
        size: Voxels along (Z, H, W); None keeps the extent.
        center: `image`, or `heart`: where the cine moves most, found without any mask.
    """

    def __init__(
        self,
        spacing_mm: tuple[float | None, float, float] = (None, 2.0, 2.0),
        size: tuple[int | None, int | None, int | None] = (None, 96, 96),
        center: Center = "image",
    ) -> None:
        self.spacing_mm = (spacing_mm[0], spacing_mm[1], spacing_mm[2])
        self.size = (size[0], size[1], size[2])
        self.center = center

    def __call__(self, study: Study) -> Study:
        """The study on the new grids; masks move with their images."""
        cine = study.series.get("sax")
        heart_ras = (
            _world(cine, heart_center_voxel(cine.image))
            if self.center == "heart" and cine
            else None
        )
        return study.with_series(
            {name: self._move(one, heart_ras) for name, one in study.series.items()}
        )

    def _move(self, series: Series, heart_ras: NDArray[np.float64] | None) -> Series:
        shape = (series.image.shape[0], series.image.shape[2], series.image.shape[3])
        own = series.spacing_mm
        spacing = (
            self.spacing_mm[0] or own[0],
            self.spacing_mm[1] or own[1],
            self.spacing_mm[2] or own[2],
        )
        middle = tuple((n - 1) / 2 for n in shape)
        if self.center == "heart" and series.image.shape[1] > 1:
            _, h, w = heart_center_voxel(series.image)
            middle = (middle[0], h, w)
        elif heart_ras is not None:
            w, h, _ = (np.linalg.inv(series.affine) @ heart_ras)[:3]
            middle = (middle[0], float(h), float(w))
        affine, target = target_grid(
            series.affine, shape, spacing, self.size, (middle[0], middle[1], middle[2])
        )
        if series.slice_places_mm is not None and (target[0] != shape[0] or spacing[0] != own[0]):
            raise CmrvlmError(
                "slices that are not equally far apart cannot be resampled along the stack",
                field="transform.preprocessing.steps.grid.spacing_mm",
                remedy="Keep the stack as it is: spacing_mm=[null,…] and size=[null,…].",
            )
        return replace(
            series,
            image=resample_image(series.image, series.affine, affine, target),
            affine=affine,
            mask=None
            if series.mask is None
            else resample_mask(series.mask, series.affine, affine, target),
            levels=series.levels if target[0] == shape[0] else (),
        )


def heart_center_voxel(image: FloatArray) -> tuple[float, float, float]:
    """Index (z, h, w) about which a cine (Z, T, H, W) moves: centroid of its strongest temporal deviations.

    Only the upper 2 % of the temporal standard deviation counts, so that flow and noise at the border do not pull.
    """
    deviation = np.asarray(image, dtype=np.float32).std(axis=1)  # (Z, H, W)
    strong = np.where(deviation >= np.quantile(deviation, 0.98), deviation, 0.0)
    total = float(strong.sum())
    if total == 0:
        z, h, w = ((n - 1) / 2 for n in deviation.shape)
        return z, h, w
    z, h, w = (
        float((strong.sum(axis=others) * np.arange(n)).sum() / total)
        for n, others in zip(deviation.shape, ((1, 2), (0, 2), (0, 1)), strict=True)
    )
    return z, h, w


def _world(series: Series, voxel: tuple[float, float, float]) -> NDArray[np.float64]:
    z, h, w = voxel
    return np.asarray(series.affine @ np.array([w, h, z, 1.0]))
