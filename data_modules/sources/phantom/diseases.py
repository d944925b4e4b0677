"""Sixteen diseases as distributions over geometry, motion and tissue of the analytic heart."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from data_modules.sources.phantom.anatomy import REGION_ANGLES, Heart, Patch

Rng = np.random.Generator

# Half width of a patch that covers the whole circumference.
EVERYWHERE = 4.0


def normal_heart(rng: Rng, size: float) -> Heart:
    """Draw a healthy heart.

    Args:
        rng: Source of randomness.
        size: Cube root of body surface area relative to 1.9 m2.
    """
    return Heart(
        length_mm=rng.normal(83, 3.0) * size,
        radius_mm=rng.normal(27.5, 1.1) * size,
        wall_mm=rng.normal(7.5, 0.5) * size,
        contraction=rng.normal(0.325, 0.012),
        descent_mm=rng.normal(13.5, 1.0) * size,
        rv_half_width_mm=rng.normal(36, 1.0) * size,
        rv_half_height_mm=rng.normal(43, 1.2) * size,
        rv_center_mm=-30.0 * size,
        rv_contraction=rng.normal(0.29, 0.012),
        la_radius_mm=rng.normal(17.5, 1.0) * size,
        ra_radius_mm=rng.normal(18.5, 1.0) * size,
    )


def _draw_region(rng: Rng, names: tuple[str, ...]) -> tuple[str, float]:
    """Draw one of some regions of the wall, and return its name and angle in radians."""
    name = names[int(rng.integers(len(names)))]
    return name, float(REGION_ANGLES[name])


def _sometimes(rng: Rng, probability: float, low: float, high: float) -> float:
    """Draw a value between `low` and `high` with a probability, and return 0 otherwise."""
    if rng.random() >= probability:
        return 0.0
    return float(rng.uniform(low, high))


def _scale_rv(heart: Heart, factor: float) -> None:
    """Enlarge the right ventricle, which moves away from the left one by half as much."""
    heart.rv_half_width_mm *= factor
    heart.rv_half_height_mm *= factor
    heart.rv_center_mm *= 0.5 + 0.5 * factor


def _dcm(heart: Heart, rng: Rng) -> None:
    """Give a healthy heart dilated cardiomyopathy."""
    heart.radius_mm *= rng.uniform(1.22, 1.45)
    heart.length_mm *= rng.uniform(1.04, 1.12)
    heart.wall_mm *= rng.uniform(0.75, 0.9)
    heart.contraction *= rng.uniform(0.22, 0.45)
    heart.descent_mm *= rng.uniform(0.3, 0.55)
    heart.la_radius_mm *= rng.uniform(1.1, 1.35)
    heart.rv_contraction *= rng.uniform(0.6, 0.95)
    heart.motion = "global_hypokinesia"
    if rng.random() < 0.6:
        heart.scars = [Patch(np.pi, rng.uniform(0.5, 0.8), (0.0, 0.6), (0.35, 0.7))]
        heart.lge_pattern, heart.lge_region = "mid_wall", "septal"
    heart.mitral_jet = _sometimes(rng, 0.4, 0.6, 1.0)


def _hcm(heart: Heart, rng: Rng) -> None:
    """Give a healthy heart hypertrophic cardiomyopathy."""
    heart.radius_mm *= rng.uniform(0.86, 0.98)
    heart.wall_mm *= rng.uniform(1.0, 1.25)
    heart.septal_bulge = rng.uniform(1.0, 1.7)
    heart.contraction *= rng.uniform(1.1, 1.3)
    heart.la_radius_mm *= rng.uniform(1.05, 1.3)
    if rng.random() < 0.75:
        heart.scars = [
            Patch(2.3, 0.3, (0.0, 0.6), (0.25, 0.75)),
            Patch(-2.3, 0.3, (0.0, 0.6), (0.25, 0.75)),
        ]
        heart.lge_pattern, heart.lge_region = "patchy", "septal"


def _myoc(heart: Heart, rng: Rng) -> None:
    """Give a healthy heart myocarditis."""
    heart.contraction *= rng.uniform(0.75, 1.0)
    region, angle = _draw_region(rng, ("lateral", "inferior"))
    heart.scars = [Patch(angle, rng.uniform(0.6, 1.0), (0.05, 0.85), (0.55, 1.0))]
    heart.lge_pattern, heart.lge_region = "subepicardial", region
    heart.effusion_mm = _sometimes(rng, 0.4, 3, 6)


def _mi(heart: Heart, rng: Rng) -> None:
    """Give a healthy heart a myocardial infarction."""
    region, angle = _draw_region(rng, ("anterior", "inferior", "lateral", "septal"))
    heart.radius_mm *= rng.uniform(1.03, 1.25)
    heart.contraction *= rng.uniform(0.75, 0.95)
    heart.descent_mm *= rng.uniform(0.6, 0.9)
    width = rng.uniform(0.6, 1.0)
    s_range = (rng.uniform(0.0, 0.3), 1.2)
    transmural = rng.random() < 0.5
    scar_depth = 0.5
    heart.lge_pattern = "subendocardial"
    if transmural:
        scar_depth = 1.0
        heart.lge_pattern = "transmural"
    heart.scars = [Patch(angle, width, s_range, (0.0, scar_depth))]
    heart.lge_region = region

    aneurysm = transmural and rng.random() < 0.4
    # In an aneurysm more than all contraction is lost: the wall moves outwards.
    lost_contraction = 1.35 if aneurysm else rng.uniform(0.85, 1.0)
    heart.motion_patches = [(Patch(angle, width, s_range), lost_contraction)]
    heart.thin_patches = [(Patch(angle, width, s_range), rng.uniform(0.3, 0.5))]
    heart.no_reflow = transmural and rng.random() < 0.5
    heart.motion = "regional_akinesia"
    if aneurysm and rng.random() < 0.6:
        heart.thrombus_mm = rng.uniform(6, 10)


def _hhd(heart: Heart, rng: Rng) -> None:
    """Give a healthy heart hypertensive heart disease."""
    heart.wall_mm *= rng.uniform(1.5, 1.8)
    heart.radius_mm *= rng.uniform(0.97, 1.06)
    heart.contraction *= rng.uniform(0.95, 1.08)
    heart.la_radius_mm *= rng.uniform(1.15, 1.35)
    heart.aortic_jet = _sometimes(rng, 0.25, 0.6, 1.0)


def _nor(heart: Heart, rng: Rng) -> None:
    """Leave the heart healthy."""
    heart.effusion_mm = 0.0


def _ca(heart: Heart, rng: Rng) -> None:
    """Give a healthy heart cardiac amyloidosis."""
    heart.wall_mm *= rng.uniform(1.7, 2.2)
    heart.radius_mm *= rng.uniform(0.84, 0.95)
    heart.contraction *= rng.uniform(0.5, 0.75)
    heart.descent_mm *= rng.uniform(0.3, 0.5)
    heart.rv_wall_mm = rng.uniform(6, 8)
    heart.la_radius_mm *= rng.uniform(1.25, 1.45)
    heart.ra_radius_mm *= rng.uniform(1.2, 1.4)
    heart.scars = [Patch(0.0, EVERYWHERE, (-0.2, 1.2), (0.0, 0.55))]
    heart.lge_pattern, heart.lge_region = "diffuse", ""
    heart.dark_blood = True
    heart.motion = "global_hypokinesia"
    heart.effusion_mm = _sometimes(rng, 0.6, 4, 8)
    heart.pleural_mm = _sometimes(rng, 0.5, 12, 25)


def _csd(heart: Heart, rng: Rng) -> None:
    """Give a healthy heart a conduction system disease."""
    heart.dyssynchrony = rng.uniform(0.16, 0.24)
    heart.contraction *= rng.uniform(0.7, 0.9)
    heart.radius_mm *= rng.uniform(1.03, 1.15)
    heart.motion = "dyssynchrony"


def _lvnc(heart: Heart, rng: Rng) -> None:
    """Give a healthy heart left ventricular non-compaction."""
    heart.trabeculation = rng.uniform(0.35, 0.5)
    heart.radius_mm *= rng.uniform(1.15, 1.3)
    heart.wall_mm *= rng.uniform(0.7, 0.85)
    heart.contraction *= rng.uniform(0.5, 0.8)
    heart.motion = "global_hypokinesia"


def _ttc(heart: Heart, rng: Rng) -> None:
    """Give a healthy heart takotsubo cardiomyopathy."""
    heart.contraction *= rng.uniform(1.05, 1.25)
    heart.motion_patches = [
        (Patch(0.0, EVERYWHERE, (rng.uniform(0.35, 0.45), 1.3)), rng.uniform(0.95, 1.15))
    ]
    heart.radius_mm *= rng.uniform(1.0, 1.1)
    heart.motion = "apical_ballooning"
    heart.mitral_jet = _sometimes(rng, 0.3, 0.6, 1.0)


def _acm(heart: Heart, rng: Rng) -> None:
    """Give a healthy heart arrhythmogenic cardiomyopathy."""
    _scale_rv(heart, rng.uniform(1.2, 1.38))
    heart.rv_contraction *= rng.uniform(0.2, 0.5)
    heart.rv_fat = 1.0
    heart.rv_scar = rng.random() < 0.8
    heart.ra_radius_mm *= rng.uniform(1.0, 1.2)
    if rng.random() < 0.4:
        heart.scars = [Patch(-0.7, 0.5, (0.2, 0.8), (0.6, 1.0))]
        heart.lge_pattern, heart.lge_region = "subepicardial", "lateral"


def _peri(heart: Heart, rng: Rng) -> None:
    """Give a healthy heart pericarditis."""
    heart.pericardium_mm = rng.uniform(4, 6)
    heart.effusion_mm = _sometimes(rng, 0.7, 5, 12)
    heart.pleural_mm = _sometimes(rng, 0.3, 12, 20)


def _ph(heart: Heart, rng: Rng) -> None:
    """Give a healthy heart pulmonary hypertension."""
    _scale_rv(heart, rng.uniform(1.15, 1.32))
    heart.rv_wall_mm = rng.uniform(6, 9)
    heart.rv_contraction *= rng.uniform(0.45, 0.75)
    heart.septal_flattening = rng.uniform(0.3, 0.5)
    heart.ra_radius_mm *= rng.uniform(1.2, 1.4)
    heart.tricuspid_jet = _sometimes(rng, 0.8, 0.7, 1.0)
    if rng.random() < 0.7:
        heart.scars = [
            Patch(2.2, 0.2, (0.0, 0.5), (0.3, 1.0)),
            Patch(-2.2, 0.2, (0.0, 0.5), (0.3, 1.0)),
        ]
        heart.lge_pattern, heart.lge_region = "insertion_point", "septal"


def _vhd(heart: Heart, rng: Rng) -> None:
    """Give a healthy heart a valvular heart disease."""
    heart.radius_mm *= rng.uniform(1.12, 1.28)
    heart.contraction *= rng.uniform(0.95, 1.1)
    heart.la_radius_mm *= rng.uniform(1.1, 1.5)
    if rng.random() < 0.6:
        heart.mitral_jet = 1.0
        heart.la_radius_mm *= 1.1
    else:
        heart.aortic_jet = 1.0


def _chd(heart: Heart, rng: Rng) -> None:
    """Give a healthy heart a congenital heart disease, a septal defect."""
    heart.septal_defect_mm = rng.uniform(10, 18)
    _scale_rv(heart, rng.uniform(1.15, 1.3))
    heart.rv_contraction *= rng.uniform(1.0, 1.2)
    heart.ra_radius_mm *= rng.uniform(1.3, 1.5)
    heart.radius_mm *= rng.uniform(0.9, 1.0)


def _tum(heart: Heart, rng: Rng) -> None:
    """Give a healthy heart a cardiac tumour."""
    heart.mass_mm = rng.uniform(9, 14)
    centers_mm = ((12.0, 0.0, -22.0), (-34.0, 0.0, -20.0), (30.0, 8.0, 25.0), (-52.0, 6.0, 20.0))
    heart.mass_center_mm = centers_mm[int(rng.integers(len(centers_mm)))]
    heart.effusion_mm = _sometimes(rng, 0.4, 4, 9)


SAMPLERS: dict[str, Callable[[Heart, Rng], None]] = {
    "DCM": _dcm,
    "HCM": _hcm,
    "MYOC": _myoc,
    "MI": _mi,
    "HHD": _hhd,
    "NOR": _nor,
    "CA": _ca,
    "CSD": _csd,
    "LVNC": _lvnc,
    "TTC": _ttc,
    "ACM": _acm,
    "PERI": _peri,
    "PH": _ph,
    "VHD": _vhd,
    "CHD": _chd,
    "TUM": _tum,
}


def sample_heart(disease: str, rng: Rng, size: float) -> Heart:
    """Draw a heart with a disease.

    Args:
        disease: Code of `cmrvlm.study.vocabulary.DISEASES`.
        rng: Source of randomness.
        size: Cube root of body surface area relative to 1.9 m2.
    """
    heart = normal_heart(rng, size)
    SAMPLERS[disease](heart, rng)
    # The right ventricle lies against the left one: a larger left ventricle pushes it aside.
    heart.rv_center_mm -= 0.9 * (heart.radius_mm + heart.wall_mm - 35.0 * size)
    return heart
