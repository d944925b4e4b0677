"""`data=phantom`: beating-heart phantoms with known truth, marked as synthetic."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmrvlm.study.orientation import BASE_TO_APEX_RAS, SEPTUM_TO_LATERAL_RAS, study_to_layout
from cmrvlm.study.study import Series, Study, StudyLabels
from cmrvlm.study.vocabulary import DISEASES, LEVELS, STRUCTURES
from data_modules.sources.base import Source
from data_modules.sources.phantom.anatomy import Array, Heart
from data_modules.sources.phantom.diseases import sample_heart
from data_modules.sources.phantom.follow_up import sample_follow_up
from data_modules.sources.phantom.measurements import derive_findings, lv_volume_ml, measure
from data_modules.sources.phantom.render import Scanner, render
from data_modules.sources.phantom.surfaces import Plane

FloatArray = NDArray[np.floating[Any]]

# LGE is taken in diastasis; share of the R-R interval.
LGE_TIME = 0.8
SLICE_THICKNESS_MM = 6.0


class PhantomSource(Source):
    """Synthetic studies, the same on any machine for the same seed and index.

    Diseases go round by index, so every 16 consecutive studies hold each disease once.

    Args:
        count: Number of studies.
        seed: First part of every study's random state; the index is the second.
        size: Pixels along H and W.
        slices: Slices of the short-axis stacks.
        frames: Frames of the cines.
        spacing_mm: Range of the pixel size in mm.
        missing: Share of studies that lack a sequence, by sequence.
        scanner: Noise, shading and contrast of the scanner.
        heart_size: Range of a factor on the size of every heart, for another population.
    """

    def __init__(
        self,
        count: int,
        seed: int = 0,
        size: int = 96,
        slices: int = 8,
        frames: int = 10,
        spacing_mm: tuple[float, float] = (1.85, 2.15),
        missing: dict[str, float] | None = None,
        scanner: Scanner | None = None,
        heart_size: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        self.count = count
        self.seed = seed
        self.size = size
        self.slices = slices
        self.frames = frames
        self.spacing_mm = (float(spacing_mm[0]), float(spacing_mm[1]))
        self.missing = dict(missing or {})
        self.scanner = scanner or Scanner()
        self.heart_size = (float(heart_size[0]), float(heart_size[1]))

    def study_ids(self) -> list[str]:
        """Return the ids of all studies, `phantom-<seed>-<index>`."""
        return [f"phantom-{self.seed}-{index:05d}" for index in range(self.count)]

    def strata(self) -> list[str]:
        """Return the disease of each study, for stratified splits."""
        return [self._disease(index) for index in range(self.count)]

    def _disease(self, index: int) -> str:
        """Return the code of the disease of a study."""
        return list(DISEASES)[index % len(DISEASES)]

    def load(self, study_id: str) -> Study:
        """Make a study.

        Raises:
            CmrvlmError: There is no such study.
        """
        index = self.index_of(study_id)
        disease = self._disease(index)
        rng = np.random.default_rng([self.seed, index])
        # What was added later draws from generators of its own, so that an index stays its study.
        size_rng = np.random.default_rng([self.seed, index, 2])
        follow_up_rng = np.random.default_rng([self.seed, index, 1])

        person, bsa_m2 = _sample_person(rng)
        size = (bsa_m2 / 1.9) ** (1 / 3) * size_rng.uniform(*self.heart_size)
        heart = sample_heart(disease, rng, size)
        # Gating is not exact: the first frame is up to a tenth of the cycle off end-diastole.
        tau = (np.arange(self.frames) / self.frames + rng.uniform(-0.1, 0.1)).astype(np.float32)
        volumes = lv_volume_ml(heart, tau)
        phases = {"ed": int(np.argmax(volumes)), "es": int(np.argmin(volumes))}
        values = measure(heart, float(tau[phases["ed"]]), float(tau[phases["es"]]), bsa_m2)
        series = self._render_series(heart, tau, phases, rng)
        labels = StudyLabels(
            diseases=frozenset({disease}),
            findings=derive_findings(heart, values, str(person["sex"])),
            measurements=values,
            patterns={
                "lge_pattern": heart.lge_pattern,
                "lge_region": heart.lge_region,
                "motion_pattern": heart.motion,
                "other_pattern": heart.other_pattern,
            },
            demographics=person,
            follow_up=sample_follow_up(heart, values, follow_up_rng),
            boxes_mm={name: _box_mm(series["sax"], name) for name in ("lv", "myo", "rv")},
        )

        kept = {
            name: drawn
            for name, drawn in series.items()
            if rng.random() >= self.missing.get(name, 0.0)
        }
        if not kept:
            kept = {"sax": series["sax"]}
        study = Study(study_id, study_id, kept, labels, synthetic=True)
        return study_to_layout(study)

    def _render_series(
        self, heart: Heart, tau: Array, phases: dict[str, int], rng: np.random.Generator
    ) -> dict[str, Series]:
        """Render all three sequences of a heart.

        Args:
            heart: The subject.
            tau: Times `(T,)` of the cine frames as shares of the R-R interval.
            phases: Index of the ED and ES frames.
            rng: Source of randomness.
        """
        pixel_mm = rng.uniform(*self.spacing_mm)
        angle = rng.normal(0.0, 0.2)
        axes = _heart_axes(rng)
        gap_mm = (heart.length_mm + heart.wall_mm) / (self.slices - 1.2)
        heights = rng.uniform(-0.65, -0.35) * gap_mm + gap_mm * np.arange(self.slices)
        # The centre of the image in the heart frame: both ventricles are in view.
        center = rng.normal(0, 5, 2) + np.array([-14.0, -4.0])
        rr_ms = rng.uniform(700, 1100)
        frame_times_ms = tuple(float(time) for time in (tau - tau[0]) * rr_ms)
        cine_tau = tau.reshape(1, -1, 1, 1)
        late_tau = np.full((1, 1, 1, 1), LGE_TIME, dtype=np.float32)

        # Slices move between breath holds.
        shifts = rng.normal(0, 1.2, (self.slices, 2))
        plane, affine = _short_axis(self.size, pixel_mm, angle, center, heights, shifts, axes)
        image, mask = render(heart, plane, cine_tau, self.scanner, rng, lge=False, atria=False)
        sax = Series(
            image=image,
            affine=affine,
            frame_times_ms=frame_times_ms,
            mask=mask,
            phases=phases,
            levels=_levels(mask[:, phases["ed"]], heights, heart),
        )

        shifts = rng.normal(0, 1.2, (self.slices, 2))
        plane, affine = _short_axis(self.size, pixel_mm, angle, center, heights, shifts, axes)
        image, mask = render(heart, plane, late_tau, self.scanner, rng, lge=True, atria=False)
        lge = Series(
            image=image,
            affine=affine,
            mask=mask,
            levels=_levels(mask[:, 0], heights, heart),
            drawn=("scar", "no_reflow"),
        )

        plane, affine = _four_chamber(self.size, pixel_mm, angle * 0.5, heart, axes, rng)
        image, mask = render(heart, plane, cine_tau, self.scanner, rng, lge=False, atria=True)
        lax_4ch = Series(
            image=image, affine=affine, frame_times_ms=frame_times_ms, mask=mask, phases=phases
        )
        return {"sax": sax, "lax_4ch": lax_4ch, "lge": lge}


def _sample_person(rng: np.random.Generator) -> tuple[dict[str, float | str], float]:
    """Draw a person, and return the demographics and the body surface area in m2."""
    sex, mean_height_cm, mean_weight_kg = "f", 164, 67
    if rng.random() < 0.5:
        sex, mean_height_cm, mean_weight_kg = "m", 176, 80
    height_cm = rng.normal(mean_height_cm, 6)
    weight_kg = rng.normal(mean_weight_kg, 9)
    # Mosteller, NEJM 1987.
    bsa_m2 = float(np.sqrt(height_cm * weight_kg / 3600))
    person: dict[str, float | str] = {
        "age_years": float(rng.integers(20, 85)),
        "sex": sex,
        "height_cm": round(float(height_cm), 1),
        "weight_kg": round(float(weight_kg), 1),
    }
    return person, bsa_m2


def _heart_axes(rng: np.random.Generator) -> FloatArray:
    """Draw the axes of the heart: columns x, y, z of a matrix `(3, 3)` in RAS."""
    z = BASE_TO_APEX_RAS + rng.normal(0, 0.06, 3)
    z = z / np.linalg.norm(z)
    x = SEPTUM_TO_LATERAL_RAS + rng.normal(0, 0.06, 3)
    x = x - z * (x @ z)
    x = x / np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], axis=1)


def _pixel_positions(
    size: int, pixel_mm: float, angle: float, center: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Compute the positions of the pixels of a rotated image in its plane.

    Args:
        size: Pixels along H and W.
        pixel_mm: Size of a pixel.
        angle: Rotation in radians.
        center: Centre `(2,)` of the image in mm.

    Returns:
        Positions `(H, W, 2)` in mm, and the directions `(2,)` of a column and a row step.
    """
    column = np.array([np.cos(angle), np.sin(angle)])
    row = np.array([np.sin(angle), -np.cos(angle)])
    steps = (np.arange(size) - (size - 1) / 2) * pixel_mm
    positions = center + steps[:, None, None] * row + steps[None, :, None] * column
    return positions, column, row


def _short_axis(
    size: int,
    pixel_mm: float,
    angle: float,
    center: FloatArray,
    heights: FloatArray,
    shifts: FloatArray,
    axes: FloatArray,
) -> tuple[Plane, NDArray[np.float64]]:
    """Place a short-axis stack in the heart frame.

    Args:
        size: Pixels along H and W.
        pixel_mm: Size of a pixel.
        angle: Rotation in radians.
        center: Centre `(2,)` of the images, x and y in mm.
        heights: Z of the slices `(Z,)` in mm.
        shifts: Shifts `(Z, 2)` of the slices in mm by breath holds.
        axes: Axes of the heart `(3, 3)` in RAS.

    Returns:
        Pixel positions, and affine `(4, 4)`, which does not know of the shifts.
    """
    positions, column, row = _pixel_positions(size, pixel_mm, angle, center)
    shifted = positions[None] + shifts[:, None, None, :]  # (Z, H, W, 2)
    x, y = (shifted[:, None, :, :, axis].astype(np.float32) for axis in (0, 1))
    z = heights.astype(np.float32).reshape(-1, 1, 1, 1)
    affine = np.eye(4)
    affine[:3, 0] = axes @ np.array([*column, 0]) * pixel_mm
    affine[:3, 1] = axes @ np.array([*row, 0]) * pixel_mm
    affine[:3, 2] = axes[:, 2] * (heights[1] - heights[0])
    affine[:3, 3] = axes @ np.array([*positions[0, 0], heights[0]])
    return Plane(x, y, z, pixel_mm), affine


def _four_chamber(
    size: int,
    pixel_mm: float,
    angle: float,
    heart: Heart,
    axes: FloatArray,
    rng: np.random.Generator,
) -> tuple[Plane, NDArray[np.float64]]:
    """Place a four-chamber image in the heart frame: apex up, lateral wall right.

    Args:
        size: Pixels along H and W.
        pixel_mm: Size of a pixel.
        angle: Rotation in radians.
        heart: The subject.
        axes: Axes of the heart `(3, 3)` in RAS.
        rng: Source of randomness.

    Returns:
        Pixel positions in the plane through the long axis and both ventricles, and affine `(4, 4)`.
    """
    # Centre of the image, x and z.
    center = np.array([-14.0, heart.length_mm * 0.25]) + rng.normal(0, 4, 2)
    positions, column, row = _pixel_positions(size, pixel_mm, angle, center)
    x, z = (positions[None, None, :, :, axis].astype(np.float32) for axis in (0, 1))
    y = np.full((1, 1, 1, 1), rng.normal(0, 1.5), dtype=np.float32)
    affine = np.eye(4)
    affine[:3, 0] = axes @ np.array([column[0], 0, column[1]]) * pixel_mm
    affine[:3, 1] = axes @ np.array([row[0], 0, row[1]]) * pixel_mm
    affine[:3, 2] = axes[:, 1] * SLICE_THICKNESS_MM
    affine[:3, 3] = axes @ np.array([positions[0, 0, 0], float(y.item()), positions[0, 0, 1]])
    return Plane(x, y, z, pixel_mm), affine


def _levels(mask: NDArray[np.uint8], heights: FloatArray, heart: Heart) -> tuple[str | None, ...]:
    """Return the level of each slice by thirds of the long axis.

    Args:
        mask: Mask `(Z, H, W)` at end-diastole.
        heights: Z of the slices `(Z,)` in mm.
        heart: The subject.

    Returns:
        `basal`, `mid` or `apical`, or None for slices that do not show the left ventricle.
    """
    shows_lv = ((mask > 0) & (mask != STRUCTURES["rv"])).any(axis=(1, 2))
    thirds = np.clip((heights / heart.length_mm * 3).astype(int), 0, 2)
    levels: list[str | None] = []
    for third, shown, height in zip(thirds, shows_lv, heights, strict=True):
        named = shown and height <= heart.length_mm
        levels.append(LEVELS[third] if named else None)
    return tuple(levels)


def _box_mm(series: Series, structure: str) -> tuple[float, ...]:
    """Return the two corners, six numbers in world mm, of a structure's voxels at end-diastole."""
    assert series.mask is not None
    mask = series.mask[:, series.phases["ed"]]  # (Z, H, W)
    voxels = np.argwhere(mask == STRUCTURES[structure])[:, ::-1]  # (N, 3) as (w, h, z)
    points = voxels @ series.affine[:3, :3].T + series.affine[:3, 3]
    corners = (*points.min(axis=0), *points.max(axis=0))
    return tuple(float(coordinate) for coordinate in corners)
