"""Volumes, ejection fraction, rates and mass of the ventricles from short-axis masks.

How volumes are counted says `cmrvlm.quantification.volumes`. A value that cannot be computed is
absent, and the reason is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cmrvlm.quantification.outliers import notes_on_stroke_volumes, outliers_of_masks
from cmrvlm.quantification.volumes import (
    WALL,
    phases_of,
    too_few_slices,
    volume_curve_ml,
    why_no_volume,
    why_no_volumes,
    without_frames,
)
from cmrvlm.study.study import Series
from cmrvlm.study.vocabulary import PHASES, STRUCTURES

# Schulz-Menger et al., JCMR 2020;22:19
MYOCARDIAL_DENSITY_G_PER_ML = 1.05
CAVITIES = ("lv", "rv")
RATES = ("peak_ejection_rate_ml_per_s", "peak_filling_rate_ml_per_s")
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Quantities:
    """Quantities that follow from the masks of a series.

    Attributes:
        values: Name with unit to value.
        not_computable: Name to the reason why there is no value.
        phases: Frame of `ed` and of `es`.
        curves_ml: Cavity to its volume in each frame (T,), NaN where it cannot be counted.
        notes: Sentences about frames and numbers that do not fit the others.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    not_computable: Mapping[str, str] = field(default_factory=dict)
    phases: Mapping[str, int] = field(default_factory=dict)
    curves_ml: Mapping[str, FloatArray] = field(default_factory=dict)
    notes: Sequence[str] = ()


def quantify(
    series: Series,
    height_cm: float | None = None,
    weight_kg: float | None = None,
    *,
    find_phases: bool = True,
) -> Quantities:
    """Compute volumes, ejection fractions, rates and mass of the ventricles from masks.

    ED and ES are those of the series where they are known, else the frames with the largest and the
    smallest left ventricle, but none that does not fit the others; if its volume cannot be counted
    in these frames, there is none.

    Args:
        series: Short-axis cine with masks.
        height_cm: Height of the patient, for values indexed to body surface area.
        weight_kg: Weight of the patient.
        find_phases: Whether to find ED and ES among the frames with masks. False where these frames
            are not spread over the cycle, so that the largest and the smallest volume need not be
            those of ED and ES.
    """
    frames = range(series.image.shape[1])
    problems: dict[str, list[str | None]] = {}
    counted: dict[str, FloatArray] = {}
    curves: dict[str, FloatArray] = {}
    for cavity in CAVITIES:
        structure = (STRUCTURES[cavity],)
        problems[cavity] = list(why_no_volumes(series, structure, frames))
        counted[cavity] = volume_curve_ml(series, structure)
        computable = [problem is None for problem in problems[cavity]]
        curves[cavity] = np.where(computable, counted[cavity], np.nan)

    outliers = outliers_of_masks(series, (STRUCTURES["lv"],), counted["lv"])
    phases = dict(series.phases)
    if not phases and find_phases:
        phases = phases_of(without_frames(counted["lv"], outliers))

    values: dict[str, float] = {}
    missing: dict[str, str] = {}
    for cavity in CAVITIES:
        for more_values, more_missing in (
            _volumes_and_ef(series, cavity, curves[cavity], problems[cavity], phases),
            _rates(series, cavity, curves[cavity], problems[cavity]),
        ):
            values |= more_values
            missing |= more_missing

    mass_problem = _why_no_mass(series, phases)
    if mass_problem is None:
        wall_ml = float(volume_curve_ml(series, WALL)[phases["ed"]])
        values["lv_mass_g"] = wall_ml * MYOCARDIAL_DENSITY_G_PER_ML
    else:
        missing["lv_mass_g"] = mass_problem
    values |= indexed_to_body_surface(values, height_cm, weight_kg)
    notes = [*outliers.values(), *notes_on_stroke_volumes(values)]
    return Quantities(values, missing, phases, curves, notes)


def _volumes_and_ef(
    series: Series,
    cavity: str,
    curve_ml: FloatArray,
    problems: Sequence[str | None],
    phases: Mapping[str, int],
) -> tuple[dict[str, float], dict[str, str]]:
    """Compute EDV, ESV, stroke volume and EF of a cavity.

    Args:
        series: Series with masks.
        cavity: `lv` or `rv`.
        curve_ml: (T,) volumes.
        problems: For each frame why its volume cannot be counted, else None.
        phases: Frame of `ed` and of `es`, as far as they are known.

    Returns:
        Values by name, and for each of the others the reason why it is missing.
    """
    values: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for phase in PHASES:
        name = f"{cavity}{phase}v_ml"
        if phase not in phases:
            reasons[name] = _why_no_phase(series, phase)
            continue
        problem = problems[phases[phase]]
        if problem is None:
            values[name] = float(curve_ml[phases[phase]])
        else:
            reasons[name] = problem

    differences = (f"{cavity}sv_ml", f"{cavity}ef_percent")
    if reasons:
        first_reason = next(iter(reasons.values()))
        return values, reasons | dict.fromkeys(differences, first_reason)
    diastolic_ml = values[f"{cavity}edv_ml"]
    systolic_ml = values[f"{cavity}esv_ml"]
    if systolic_ml > diastolic_ml:
        return values, dict.fromkeys(differences, "the volume at es is larger than at ed")

    values[f"{cavity}sv_ml"] = diastolic_ml - systolic_ml
    values[f"{cavity}ef_percent"] = 100 * (diastolic_ml - systolic_ml) / diastolic_ml
    return values, {}


def _why_no_phase(series: Series, phase: str) -> str:
    """Return why no frame is known to be at a phase."""
    return too_few_slices(series) or f"no frame is known to be {phase}"


def _why_no_mass(series: Series, phases: Mapping[str, int]) -> str | None:
    """Return why the mass of the wall at end-diastole cannot be counted, else None."""
    if "ed" not in phases:
        return _why_no_phase(series, "ed")
    return why_no_volume(series, WALL, phases["ed"])


def _rates(
    series: Series, cavity: str, curve_ml: FloatArray, problems: Sequence[str | None]
) -> tuple[dict[str, float], dict[str, str]]:
    """Compute the peak rates of a cavity, which need frame times and a volume in every frame.

    Args:
        series: Series with masks.
        cavity: `lv` or `rv`.
        curve_ml: (T,) volumes.
        problems: For each frame why its volume cannot be counted, else None.

    Returns:
        Values by name, and for each of the others the reason why it is missing.
    """
    rates: dict[str, float] = {}
    times = series.frame_times_ms
    first_problem = next(
        (f"frame {frame}: {text}" for frame, text in enumerate(problems) if text is not None), None
    )
    if times is None or len(times) < 3:
        reason = "the times of at least three frames are needed"
    elif not (np.diff(times) > 0).all():
        reason = "the frame times do not ascend"
    elif first_problem is not None:
        reason = first_problem
    else:
        reason = "the volume does not change so between the frames"
        rates = rates_ml_per_s(curve_ml, times)
    values = {f"{cavity}_{name}": rate for name, rate in rates.items()}
    return values, {f"{cavity}_{name}": reason for name in RATES if name not in rates}


def rates_ml_per_s(curve_ml: FloatArray, times_ms: tuple[float, ...]) -> dict[str, float]:
    """Compute peak ejection and filling rate: the steepest fall and rise of the volume.

    The slope at a frame is that between its neighbours. There is no slope from the last frame to
    the first: a cine that was gated prospectively ends before the cycle does.

    Args:
        curve_ml: (T,) volume in every frame.
        times_ms: T times of the frames, ascending, at least three.

    Returns:
        Name in `RATES` to rate, without that of a volume that never falls or never rises.
    """
    slopes = np.gradient(curve_ml, np.asarray(times_ms) / 1000)[1:-1]
    rates = dict(zip(RATES, (float(-slopes.min()), float(slopes.max())), strict=True))
    return {name: rate for name, rate in rates.items() if rate > 0}


def body_surface_area_m2(height_cm: float, weight_kg: float) -> float:
    """Compute the body surface area in m2 (Mosteller, N Engl J Med 1987;317:1098)."""
    return float(np.sqrt(height_cm * weight_kg / 3600))


def indexed_to_body_surface(
    values: Mapping[str, float], height_cm: float | None, weight_kg: float | None
) -> dict[str, float]:
    """Return volumes and mass divided by body surface area, such as `lvedv_ml_per_m2`.

    Args:
        values: Name with unit to value; volumes end in `v_ml`, the mass in `_g`.
        height_cm: Height of the patient.
        weight_kg: Weight of the patient.

    Returns:
        Name to value; empty without height or weight.
    """
    if not height_cm or not weight_kg:
        return {}
    area_m2 = body_surface_area_m2(height_cm, weight_kg)
    return {
        f"{name}_per_m2": value / area_m2
        for name, value in values.items()
        if name.endswith(("v_ml", "_g"))
    }
