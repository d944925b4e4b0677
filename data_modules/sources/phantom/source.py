"""`data=phantom`: beating-heart phantoms with known truth. They are synthetic and say so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cmrvlm.study.orientation import BASE_TO_APEX_RAS, SEPTUM_TO_LATERAL_RAS, study_to_layout
from cmrvlm.study.study import Series, Study, StudyLabels
from cmrvlm.study.vocabulary import DISEASES, LEVELS
from data_modules.sources.base import Source
from data_modules.sources.phantom.anatomy import Array, Heart
from data_modules.sources.phantom.diseases import sample_heart
from data_modules.sources.phantom.follow_up import follow_up
from data_modules.sources.phantom.measurements import findings, lv_volume_ml, measure
from data_modules.sources.phantom.render import Plane, Scanner, render

LGE_TIME = 0.8  # LGE is taken in diastasis


class PhantomSource(Source):
    """Synthetic studies; the same seed and index give the same study on any machine.

    Diseases go round by index, so every 16 consecutive studies hold each disease once.

    Args:
        count: Number of studies.
        seed: First part of every study's random state; the index is the second.
        size: Pixels along H and W.
        slices: Slices of the short-axis stacks.
        frames: Frames of the cines.
        spacing_mm: Range of the pixel size.
        missing: Sequence name to the share of studies that lack it.
        scanner: Noise, shading and contrast of the scanner.
        heart_size: Range of a factor on the size of every heart; another population than the default's.
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
        self.count, self.seed, self.size, self.slices, self.frames = (
            count,
            seed,
            size,
            slices,
            frames,
        )
        self.spacing_mm = (float(spacing_mm[0]), float(spacing_mm[1]))
        self.missing = dict(missing or {})
        self.scanner = scanner or Scanner()
        self.heart_size = (float(heart_size[0]), float(heart_size[1]))

    def study_ids(self) -> list[str]:
        """Ids of all studies, `phantom-<seed>-<index>`."""
        return [f"phantom-{self.seed}-{index:05d}" for index in range(self.count)]

    def strata(self) -> list[str]:
        """Disease of each study, for stratified splits."""
        codes = list(DISEASES)
        return [codes[index % len(codes)] for index in range(self.count)]

    def load(self, study_id: str) -> Study:
        """Make the study with `study_id`."""
        index = self.index_of(study_id)
        rng = np.random.default_rng([self.seed, index])
        disease = list(DISEASES)[index % len(DISEASES)]
        person, bsa_m2 = _person(rng)
        # Generators of their own for what came later, so that the same index stays the same study.
        factor = np.random.default_rng([self.seed, index, 2]).uniform(*self.heart_size)
        heart = sample_heart(disease, rng, (bsa_m2 / 1.9) ** (1 / 3) * factor)
        # Gating is not exact: the first frame is up to a tenth of the cycle away from end-diastole.
        tau = (np.arange(self.frames) / self.frames + rng.uniform(-0.1, 0.1)).astype(np.float32)
        volumes = lv_volume_ml(heart, tau)
        phases = {"ed": int(np.argmax(volumes)), "es": int(np.argmin(volumes))}
        values = measure(heart, float(tau[phases["ed"]]), float(tau[phases["es"]]), bsa_m2)
        labels = StudyLabels(
            diseases=frozenset({disease}),
            findings=findings(heart, values, str(person["sex"])),
            measurements=values,
            patterns={
                "lge_pattern": heart.lge_pattern,
                "lge_region": heart.lge_region,
                "motion_pattern": heart.motion,
                "other_pattern": heart.other_pattern,
            },
            demographics=person,
            follow_up=follow_up(heart, values, np.random.default_rng([self.seed, index, 1])),
        )
        series = self._series(heart, tau, phases, rng)
        boxes = {
            name: _box_mm(series["sax"], value)
            for name, value in (("lv", 1), ("myo", 2), ("rv", 3))
        }
        labels = replace(labels, boxes_mm=boxes)
        kept = {
            name: one for name, one in series.items() if rng.random() >= self.missing.get(name, 0.0)
        }
        study = Study(study_id, study_id, kept or {"sax": series["sax"]}, labels, synthetic=True)
        return study_to_layout(study)

    def _series(
        self, heart: Heart, tau: Array, phases: dict[str, int], rng: np.random.Generator
    ) -> dict[str, Series]:
        pixel_mm = rng.uniform(*self.spacing_mm)
        angle = rng.normal(0.0, 0.2)
        axes = _heart_axes(rng)
        gap_mm = (heart.length_mm + heart.wall_mm) / (self.slices - 1.2)
        heights = rng.uniform(-0.65, -0.35) * gap_mm + gap_mm * np.arange(self.slices)
        center = rng.normal(0, 5, 2) + np.array(
            [-14.0, -4.0]
        )  # the image centre in heart coordinates
        rr_ms = rng.uniform(700, 1100)
        times = tau.reshape(1, -1, 1, 1)
        late = np.full((1, 1, 1, 1), LGE_TIME, dtype=np.float32)
        made = {}
        for name, at in (("sax", times), ("lge", late)):
            shifts = rng.normal(0, 1.2, (self.slices, 2))  # mm between breath holds
            plane, affine = _short_axis(self.size, pixel_mm, angle, center, heights, shifts, axes)
            image, mask = render(
                heart, plane, at, self.scanner, rng, lge=name == "lge", atria=False
            )
            levels = _levels(mask[:, phases["ed"] if name == "sax" else 0], heights, heart)
            made[name] = Series(
                image=image,
                affine=affine,
                frame_times_ms=self._times_ms(tau, rr_ms) if name == "sax" else None,
                mask=mask,
                phases=phases if name == "sax" else {},
                levels=levels,
                drawn=("scar", "no_reflow") if name == "lge" else (),
            )
        plane, affine = _four_chamber(self.size, pixel_mm, angle * 0.5, heart, axes, rng)
        image, mask = render(heart, plane, times, self.scanner, rng, lge=False, atria=True)
        made["lax_4ch"] = Series(
            image=image,
            affine=affine,
            frame_times_ms=self._times_ms(tau, rr_ms),
            mask=mask,
            phases=phases,
        )
        return {name: made[name] for name in ("sax", "lax_4ch", "lge")}

    def _times_ms(self, tau: Array, rr_ms: float) -> tuple[float, ...]:
        return tuple(float(t) for t in (tau - tau[0]) * rr_ms)


def _person(rng: np.random.Generator) -> tuple[dict[str, float | str], float]:
    sex = "m" if rng.random() < 0.5 else "f"
    height = rng.normal(176 if sex == "m" else 164, 6)
    weight = rng.normal(80 if sex == "m" else 67, 9)
    bsa_m2 = float(np.sqrt(height * weight / 3600))  # Mosteller, NEJM 1987
    person: dict[str, float | str] = {
        "age_years": float(rng.integers(20, 85)),
        "sex": sex,
        "height_cm": round(float(height), 1),
        "weight_kg": round(float(weight), 1),
    }
    return person, bsa_m2


def _heart_axes(rng: np.random.Generator) -> np.ndarray:
    """Columns: the heart's x, y, z axes in RAS, turned a little at random."""
    z = BASE_TO_APEX_RAS + rng.normal(0, 0.06, 3)
    z = z / np.linalg.norm(z)
    x = SEPTUM_TO_LATERAL_RAS + rng.normal(0, 0.06, 3)
    x = x - z * (x @ z)
    x = x / np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], axis=1)


def _short_axis(
    size: int,
    pixel_mm: float,
    angle: float,
    center: np.ndarray,
    heights: np.ndarray,
    shifts: np.ndarray,
    axes: np.ndarray,
) -> tuple[Plane, np.ndarray]:
    """Pixel positions of a short-axis stack in the heart frame, and its affine (without the breath-hold shifts)."""
    column = np.array([np.cos(angle), np.sin(angle)])
    row = np.array([np.sin(angle), -np.cos(angle)])
    steps = (np.arange(size) - (size - 1) / 2) * pixel_mm
    flat = center + steps[:, None, None] * row + steps[None, :, None] * column  # (H, W, 2)
    moved = flat[None] + shifts[:, None, None, :]  # (Z, H, W, 2)
    x, y = (moved[:, None, :, :, axis].astype(np.float32) for axis in (0, 1))
    z = heights.astype(np.float32).reshape(-1, 1, 1, 1)
    affine = np.eye(4)
    affine[:3, 0] = axes @ np.array([*column, 0]) * pixel_mm
    affine[:3, 1] = axes @ np.array([*row, 0]) * pixel_mm
    affine[:3, 2] = axes[:, 2] * (heights[1] - heights[0])
    affine[:3, 3] = axes @ np.array([*flat[0, 0], heights[0]])
    return Plane(x, y, z, pixel_mm), affine


def _four_chamber(
    size: int,
    pixel_mm: float,
    angle: float,
    heart: Heart,
    axes: np.ndarray,
    rng: np.random.Generator,
) -> tuple[Plane, np.ndarray]:
    """Pixel positions of the plane through the long axis and both ventricles: apex up, lateral wall right."""
    center = np.array([-14.0, heart.length_mm * 0.25]) + rng.normal(0, 4, 2)  # (x, z)
    column = np.array([np.cos(angle), np.sin(angle)])
    row = np.array([np.sin(angle), -np.cos(angle)])
    steps = (np.arange(size) - (size - 1) / 2) * pixel_mm
    flat = center + steps[:, None, None] * row + steps[None, :, None] * column
    x, z = (flat[None, None, :, :, axis].astype(np.float32) for axis in (0, 1))
    y = np.full((1, 1, 1, 1), rng.normal(0, 1.5), dtype=np.float32)
    affine = np.eye(4)
    affine[:3, 0] = axes @ np.array([column[0], 0, column[1]]) * pixel_mm
    affine[:3, 1] = axes @ np.array([row[0], 0, row[1]]) * pixel_mm
    affine[:3, 2] = axes[:, 1] * 6.0  # slice thickness
    affine[:3, 3] = axes @ np.array([flat[0, 0, 0], float(y.item()), flat[0, 0, 1]])
    return Plane(x, y, z, pixel_mm), affine


def _levels(mask_ed: np.ndarray, heights: np.ndarray, heart: Heart) -> tuple[str | None, ...]:
    """Thirds of the long axis for slices that show the left ventricle at end-diastole, None for the others."""
    shows = (mask_ed > 0) & (mask_ed != 3)
    thirds = np.clip((heights / heart.length_mm * 3).astype(int), 0, 2)
    return tuple(
        LEVELS[third] if seen and height <= heart.length_mm else None
        for third, seen, height in zip(thirds, shows.any(axis=(1, 2)), heights, strict=True)
    )


def _box_mm(series: Series, value: int) -> tuple[float, ...]:
    """Corners in world mm of the voxels that hold `value` at end-diastole."""
    assert series.mask is not None
    voxels = np.argwhere(series.mask[:, series.phases["ed"]] == value)[:, ::-1]  # (w, h, z)
    points = voxels @ series.affine[:3, :3].T + series.affine[:3, 3]
    return tuple(float(v) for v in (*points.min(axis=0), *points.max(axis=0)))
