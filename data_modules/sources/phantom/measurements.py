"""Measurements of the analytic heart by quadrature over its formulas, not by counting voxels."""

from __future__ import annotations

import numpy as np

from cmrvlm.quantification.ventricles import MYOCARDIAL_DENSITY_G_PER_ML
from cmrvlm.study.normal_ranges import outside_normal
from cmrvlm.study.vocabulary import FINDINGS
from data_modules.sources.phantom.anatomy import Array, Heart

# Gauss-Legendre nodes and weights on [-1, 1], for integrals along the long axis.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(40)
_ANGLES = np.linspace(-np.pi, np.pi, 96, endpoint=False, dtype=np.float32).reshape(1, 1, 1, -1)


def _heights(low: Array, high: Array) -> tuple[Array, Array]:
    """Return the heights at which a slice's area is taken, and the weights of these slices.

    Args:
        low: Lower ends `(1, T, 1, 1)` in mm.
        high: Upper ends `(1, T, 1, 1)` in mm.

    Returns:
        Heights and weights, both `(S, T, 1, 1)` in mm.
    """
    nodes = _NODES.astype(np.float32).reshape(-1, 1, 1, 1)
    weights = _WEIGHTS.astype(np.float32).reshape(-1, 1, 1, 1)
    half = (high - low) / 2
    return np.asarray((high + low) / 2 + half * nodes), np.asarray(weights * half)


def _as_time_axis(times: Array) -> Array:
    """Reshape times `(T,)` to `(1, T, 1, 1)`."""
    return np.asarray(times, dtype=np.float32).reshape(1, -1, 1, 1)


def lv_volume_ml(heart: Heart, times: Array) -> Array:
    """Compute the left ventricular cavity volume.

    Args:
        heart: The subject.
        times: Times `(T,)` as shares of the R-R interval.

    Returns:
        Volumes `(T,)` in ml.
    """
    tau = _as_time_axis(times)
    z, weight = _heights(heart.base_mm(tau), np.full_like(tau, heart.length_mm))
    radius = heart.endo_radius_mm(_ANGLES, z, tau)
    # In polar coordinates the area of a slice is pi times the mean of the squared radius.
    area = np.pi * np.mean(radius**2, axis=-1, keepdims=True)  # (S, T, 1, 1) in mm2
    return np.asarray(np.sum(area * weight, axis=(0, 2, 3)) / 1000)


def myocardial_volume_ml(heart: Heart) -> float:
    """Compute the end-diastolic volume of the left ventricular wall in ml, apical cap included."""
    tau = np.zeros((1, 1, 1, 1), dtype=np.float32)
    z, weight = _heights(tau, np.full_like(tau, heart.length_mm + heart.wall_mm))
    endo = heart.endo_radius_mm(_ANGLES, z, tau)
    epi = heart.epi_radius_mm(_ANGLES, z, tau, endo)
    area = np.pi * np.mean(epi**2 - endo**2, axis=-1, keepdims=True)
    return float(np.sum(area * weight) / 1000)


def rv_volume_ml(heart: Heart, times: Array, grid_mm: float = 1.5) -> Array:
    """Compute the right ventricular cavity volume, that is the outline less the left ventricle.

    Args:
        heart: The subject.
        times: Times `(T,)` as shares of the R-R interval.
        grid_mm: Distance of the points that are counted in each slice.

    Returns:
        Volumes `(T,)` in ml.
    """
    tau = _as_time_axis(times)
    base = heart.base_mm(tau)
    z, weight = _heights(base, base + 0.92 * (heart.length_mm - base))
    septal_end = heart.rv_half_width_mm - heart.rv_center_mm + 2
    x = np.arange(-septal_end, 20, grid_mm, dtype=np.float32).reshape(1, 1, 1, -1)
    half = heart.rv_half_height_mm + 2
    y = np.arange(-half, half, grid_mm, dtype=np.float32).reshape(1, 1, -1, 1)
    theta = np.arctan2(y, x)
    epi = heart.epi_radius_mm(theta, z, tau, heart.endo_radius_mm(theta, z, tau))
    inside = (heart.rv_distance_mm(x, y, z, tau) > 0) & (np.sqrt(x**2 + y**2) >= epi)
    area = inside.sum(axis=(2, 3), keepdims=True) * grid_mm**2
    return np.asarray(np.sum(area * weight, axis=(0, 2, 3)) / 1000)


def measure(heart: Heart, tau_ed: float, tau_es: float, bsa_m2: float) -> dict[str, float]:
    """Compute the measurements of `cmrvlm.study.normal_ranges` of a heart.

    Args:
        heart: The subject.
        tau_ed: Time of the end-diastolic frame as a share of R-R.
        tau_es: Time of the end-systolic frame as a share of R-R.
        bsa_m2: Body surface area, for indexed values.

    Returns:
        Value by name of the measurement.
    """
    times = np.array([tau_ed, tau_es], dtype=np.float32)
    lvedv, lvesv = (float(volume) for volume in lv_volume_ml(heart, times))
    rvedv, rvesv = (float(volume) for volume in rv_volume_ml(heart, times))
    mass_g = myocardial_volume_ml(heart) * MYOCARDIAL_DENSITY_G_PER_ML

    ed = np.zeros((1, 1, 1, 1), dtype=np.float32)
    quarter = ed + 0.25 * heart.length_mm
    heights = np.linspace(0, 0.8, 9, dtype=np.float32).reshape(-1, 1, 1, 1) * heart.length_mm
    return {
        "lvedv_ml": lvedv,
        "lvesv_ml": lvesv,
        "lvef_percent": 100 * (lvedv - lvesv) / lvedv,
        "lvedv_ml_per_m2": lvedv / bsa_m2,
        "lv_mass_g": mass_g,
        "rvedv_ml": rvedv,
        "rvesv_ml": rvesv,
        "rvef_percent": 100 * (rvedv - rvesv) / rvedv,
        "rvedv_ml_per_m2": rvedv / bsa_m2,
        "lvedd_mm": float(2 * heart.endo_radius_mm(_ANGLES, quarter, ed).mean()),
        "rvedd_mm": _rv_diameter_mm(heart),
        "la_diameter_mm": 2 * 1.12 * heart.la_radius_mm,
        "ra_diameter_mm": 2 * 1.12 * heart.ra_radius_mm,
        "wall_thickness_mm": float(heart.wall_thickness_mm(_ANGLES, heights).max()),
    }


def _rv_diameter_mm(heart: Heart) -> float:
    """Compute the end-diastolic diameter of the right ventricle below the valve plane."""
    ed = np.zeros((1, 1, 1, 1), dtype=np.float32)
    septal = np.full_like(ed, np.pi)
    height = ed + 0.15 * heart.length_mm
    # The taper of `Heart.rv_distance_mm` at this height.
    taper = float(np.sqrt(1 - (0.15 / 0.92) ** 2))
    outer = heart.rv_half_width_mm * taper - heart.rv_center_mm * (0.35 + 0.65 * taper)
    endo = heart.endo_radius_mm(septal, height, ed)
    inner = float(heart.epi_radius_mm(septal, height, ed, endo).item())
    return outer - inner


def derive_findings(heart: Heart, values: dict[str, float], sex: str) -> dict[str, bool]:
    """Derive all 23 findings of the heart.

    Measured ones follow from the normal ranges, the others from the parameters of the heart.

    Args:
        heart: The subject.
        values: Its measurements.
        sex: `m` or `f`.

    Returns:
        Whether it is abnormal, by finding.
    """
    measured = {
        "lvedd": "lvedd_mm",
        "la_diameter": "la_diameter_mm",
        "rvedd": "rvedd_mm",
        "ra_diameter": "ra_diameter_mm",
        "wall_thickness": "wall_thickness_mm",
        "lvef": "lvef_percent",
        "lvedv": "lvedv_ml",
        "lvesv": "lvesv_ml",
        "rvef": "rvef_percent",
        "rvedv": "rvedv_ml",
        "rvesv": "rvesv_ml",
    }
    abnormal = {code: outside_normal(name, values[name], sex) for code, name in measured.items()}
    abnormal |= {
        "wall_motion": heart.motion != "normal",
        "aneurysm": any(loss > 1.2 for _, loss in heart.motion_patches)
        and heart.motion == "regional_akinesia",
        "mitral_regurgitation": heart.mitral_jet > 0,
        "tricuspid_regurgitation": heart.tricuspid_jet > 0,
        "aortic_regurgitation": heart.aortic_jet > 0,
        "lv_lge": bool(heart.scars),
        "rv_lge": heart.rv_scar,
        "pericardial_enhancement": heart.pericardium_mm > 0,
        "fatty_infiltration": heart.rv_fat > 0,
        "thrombus": heart.thrombus_mm > 0,
        "pericardial_effusion": heart.effusion_mm > 0,
        "pleural_effusion": heart.pleural_mm > 0,
    }
    return {code: bool(abnormal[code]) for code in FINDINGS}
