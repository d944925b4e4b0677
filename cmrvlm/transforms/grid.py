"""Steps that bring series onto a stated grid: slice order, spacing and field of view."""

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
Triple = tuple[float, float, float]


class BaseToApex(Step):
    """Order the slices of short-axis stacks from base to apex, decided by their affines.

    Stacks whose affine cannot decide stay as they are.
    """

    stacks = ("sax", "lge")

    def __call__(self, study: Study) -> Study:
        """Return the study with the stacks reversed that run from apex to base."""
        ordered = dict(study.series)
        for name, series in study.series.items():
            if name in self.stacks and runs_to_apex(series.affine) is False:
                ordered[name] = flip_slices(series)
        return study.with_series(ordered)


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
        """Return the study on the new grids; masks move with their images."""
        heart_world_mm = None
        cine = study.series.get("sax")
        if self.center == "heart" and cine is not None:
            heart_world_mm = _world_position(cine, heart_center_voxel(cine.image))
        resampled = {
            name: self._resample(series, heart_world_mm) for name, series in study.series.items()
        }
        return study.with_series(resampled)

    def _resample(self, series: Series, heart_world_mm: NDArray[np.float64] | None) -> Series:
        """Return the series on its new grid.

        Args:
            series: Series on its own grid.
            heart_world_mm: (4,) homogeneous position of the heart in the short-axis cine, or None.
        """
        slices, _, height, width = series.image.shape
        spacing_z, spacing_h, spacing_w = series.spacing_mm
        spacing = (
            self.spacing_mm[0] or spacing_z,
            self.spacing_mm[1] or spacing_h,
            self.spacing_mm[2] or spacing_w,
        )
        center = self._center_voxel(series, heart_world_mm)
        affine, target_shape = target_grid(
            series.affine, (slices, height, width), spacing, self.size, center
        )

        same_slices = target_shape[0] == slices
        same_distance = spacing[0] == spacing_z
        uneven = series.slice_places_mm is not None
        if uneven and not (same_slices and same_distance):
            raise CmrvlmError(
                "slices that are not equally far apart cannot be resampled along the stack",
                field="transform.preprocessing.steps.grid.spacing_mm",
                remedy="Keep the stack as it is: spacing_mm=[null,…] and size=[null,…].",
            )
        mask = series.mask
        if mask is not None:
            mask = resample_mask(mask, series.affine, affine, target_shape)
        levels = series.levels
        if not same_slices:
            levels = ()
        return replace(
            series,
            image=resample_image(series.image, series.affine, affine, target_shape),
            affine=affine,
            mask=mask,
            levels=levels,
        )

    def _center_voxel(self, series: Series, heart_world_mm: NDArray[np.float64] | None) -> Triple:
        """Return the voxel index (z, h, w) of a series that its new grid is centred on.

        Args:
            series: Series on its own grid.
            heart_world_mm: (4,) homogeneous position of the heart in the short-axis cine, or None.
        """
        slices, frames, height, width = series.image.shape
        z = (slices - 1) / 2
        if self.center == "heart" and frames > 1:
            _, h, w = heart_center_voxel(series.image)
            return z, h, w
        if heart_world_mm is not None:
            # A still image shows no motion: the heart is where the cine has it.
            heart_voxel = np.linalg.inv(series.affine) @ heart_world_mm
            w, h, *_ = heart_voxel.tolist()
            return z, h, w
        return z, (height - 1) / 2, (width - 1) / 2


def heart_center_voxel(image: FloatArray) -> Triple:
    """Locate the heart of a cine as the centroid of its strongest temporal deviations.

    Only the upper 2 % of the temporal standard deviation count, so that flow and noise at the
    border do not pull.

    Args:
        image: (Z, T, H, W).

    Returns:
        Voxel index (z, h, w); the middle of an image in which nothing moves.
    """
    deviation = np.asarray(image, dtype=np.float32).std(axis=1)  # (Z, H, W)
    threshold = np.quantile(deviation, 0.98)
    strong = np.where(deviation >= threshold, deviation, 0.0)
    total = float(strong.sum())
    if total == 0:
        slices, height, width = deviation.shape
        return (slices - 1) / 2, (height - 1) / 2, (width - 1) / 2
    centroid = []
    for other_axes in ((1, 2), (0, 2), (0, 1)):
        profile = strong.sum(axis=other_axes)
        moment = (profile * np.arange(len(profile))).sum()
        centroid.append(float(moment / total))
    z, h, w = centroid
    return z, h, w


def _world_position(series: Series, voxel: Triple) -> NDArray[np.float64]:
    """Return the homogeneous world position (4,) in mm of a voxel index (z, h, w)."""
    z, h, w = voxel
    return np.asarray(series.affine @ np.array([w, h, z, 1.0]))
