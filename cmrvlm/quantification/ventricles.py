"""Volumes of the ventricles over the cycle, ejection fraction, rates and mass, from short-axis masks.

Volumes are discs: voxels counted in each slice, times the volume of that slice's voxel. Slices count as they are
labelled: a basal slice in which the mask shows a ventricle belongs to it, the apex ends with the last labelled slice,
and papillary muscles are what the mask says they are. Nothing is interpolated and nothing is guessed: what cannot be
computed is absent, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cmrvlm.labels import NOT_ANNOTATED, STRUCTURES
from cmrvlm.measurements import FEWEST_SLICES
from cmrvlm.study import Series

MYOCARDIAL_DENSITY_G_PER_ML = 1.05  # Schulz-Menger et al., JCMR 2020;22:19
CAVITIES = ("lv", "rv")
RATES = ("lv_peak_ejection_rate_ml_per_s", "lv_peak_filling_rate_ml_per_s")
WALL = tuple(STRUCTURES[name] for name in ("myo", "scar", "no_reflow"))  # scar is myocardium too
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Quantities:
    """What follows from the masks of a series.

    Attributes:
        values: Name with unit to value.
        not_computable: Name to the reason why there is none.
        phases: Frame of `ed` and of `es`.
        curves_ml: Cavity to its volume in each frame (T,), NaN where the frame is not annotated.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    not_computable: Mapping[str, str] = field(default_factory=dict)
    phases: Mapping[str, int] = field(default_factory=dict)
    curves_ml: Mapping[str, FloatArray] = field(default_factory=dict)


def quantify(series: Series, height_cm: float | None = None, weight_kg: float | None = None) -> Quantities:
    """All that a short-axis series' masks say of the ventricles.

    ED and ES are those of the series where they are known, else the frames with the largest and the smallest left
    ventricle.

    Args:
        series: With masks.
        height_cm: Of the patient, for values by body surface.
        weight_kg: Of the patient.
    """
    assert series.mask is not None
    curves = {name: volume_curve_ml(series, (STRUCTURES[name],)) for name in CAVITIES}
    phases = dict(series.phases) or phases_of(curves["lv"])
    values: dict[str, float] = {}
    missing: dict[str, str] = {}
    for name in CAVITIES:
        own, reasons = _of_cavity(series, name, curves[name], phases)
        values |= own
        missing |= reasons
    mass, reason = _mass_g(series, phases)
    values |= {"lv_mass_g": mass} if mass is not None else {}
    missing |= {"lv_mass_g": reason} if mass is None else {}
    rates, reason = _rates(series, curves["lv"])
    values |= rates
    missing |= {name: reason for name in RATES if name not in rates}
    values |= by_body_surface(values, height_cm, weight_kg)
    return Quantities(values, missing, phases, curves)


def volume_curve_ml(series: Series, structures: tuple[int, ...]) -> FloatArray:
    """(T,) volume of structures in each frame, NaN in frames that are not annotated, or not in every slice."""
    assert series.mask is not None
    counts = np.isin(series.mask, structures).sum(axis=(2, 3), dtype=np.int64)  # (Z, T)
    known = ~_unannotated(series).any(axis=0) & (series.mask != NOT_ANNOTATED).any(axis=(0, 2, 3))
    return np.where(known, counts.T @ series.slice_volumes_ml, np.nan)


def _unannotated(series: Series) -> NDArray[np.bool_]:
    """(Z, T) slices that are annotated in another frame and not in this one; what they hold here is not known."""
    assert series.mask is not None
    annotated = (series.mask != NOT_ANNOTATED).any(axis=(2, 3))
    return np.asarray(annotated.any(axis=1, keepdims=True) & ~annotated)


def phases_of(curve_ml: FloatArray) -> dict[str, int]:
    """Frames of the largest and the smallest volume; empty when fewer than two frames are known or it never changes."""
    known = np.flatnonzero(~np.isnan(curve_ml))
    if len(known) < 2 or np.nanmax(curve_ml) == np.nanmin(curve_ml):
        return {}
    return {"ed": int(np.nanargmax(curve_ml)), "es": int(np.nanargmin(curve_ml))}


def _of_cavity(
    series: Series, cavity: str, curve_ml: FloatArray, phases: Mapping[str, int]
) -> tuple[dict[str, float], dict[str, str]]:
    """EDV, ESV, stroke volume and EF, as far as they can be computed, and for each of the others why not."""
    values: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for phase in ("ed", "es"):
        name, frame = f"{cavity}{phase}v_ml", phases.get(phase)
        problem = (_too_few(series) or f"no frame is known to be {phase}" if frame is None
                   else why_no_volume(series, (STRUCTURES[cavity],), frame))  # fmt: skip
        if problem is not None:
            reasons[name] = problem
        elif frame is not None:
            values[name] = float(curve_ml[frame])
    if reasons:
        return values, reasons | dict.fromkeys((f"{cavity}sv_ml", f"{cavity}ef_percent"), next(iter(reasons.values())))
    diastole, systole = values[f"{cavity}edv_ml"], values[f"{cavity}esv_ml"]
    return values | {f"{cavity}sv_ml": diastole - systole,
                     f"{cavity}ef_percent": 100 * (diastole - systole) / diastole}, {}  # fmt: skip


def why_no_volume(series: Series, structures: tuple[int, ...], frame: int) -> str | None:
    """Why a structure's volume in a frame cannot be counted; None when it can."""
    return next(_why_no_volumes(series, structures, [frame]))


def _why_no_volumes(series: Series, structures: tuple[int, ...], frames: Iterable[int]) -> Iterator[str | None]:
    """`why_no_volume` of each frame; what is the same for all of them is looked up once."""
    assert series.mask is not None
    few, unannotated = _too_few(series), _unannotated(series)
    shown = int(np.isin(series.mask, structures).any(axis=(1, 2, 3)).sum())  # slices; at end-systole they may be fewer
    for frame in frames:
        yield few or _problem_of(series.mask[:, frame], structures, unannotated[:, frame], shown)


def _problem_of(
    mask: NDArray[np.uint8], structures: tuple[int, ...], lost: NDArray[np.bool_], shown: int
) -> str | None:
    """Why a structure's volume in a frame's mask (Z, H, W) cannot be counted.

    Args:
        mask: Of the frame.
        structures: Values of the structure.
        lost: (Z,) slices that are annotated in other frames alone.
        shown: Slices that show the structure in any frame.
    """
    if lost.any():
        return f"slice {int(lost.argmax())} is not annotated in this frame"
    there = np.flatnonzero(np.isin(mask, structures).any(axis=(1, 2)))
    if not len(there):
        return "the structure is in no slice"
    if shown < FEWEST_SLICES:
        return f"the structure is in {shown} of the slices, at least {FEWEST_SLICES} are needed"
    within = mask[there[0] : there[-1] + 1]
    unknown = (within == NOT_ANNOTATED).all(axis=(1, 2))
    absent = ~np.isin(within, structures).any(axis=(1, 2))
    for found, what in ((unknown, "is not annotated"), (absent, "lacks it")):
        if found.any():
            return f"slice {int(there[0] + found.argmax())} between others {what}"
    return None


def _too_few(series: Series) -> str | None:
    count = series.image.shape[0]
    return f"{count} slices, at least {FEWEST_SLICES} are needed" if count < FEWEST_SLICES else None


def _mass_g(series: Series, phases: Mapping[str, int]) -> tuple[float | None, str]:
    """Mass of the left ventricular wall at end-diastole, scar with it."""
    if "ed" not in phases:
        return None, _too_few(series) or "no frame is known to be ed"
    problem = why_no_volume(series, WALL, phases["ed"])
    if problem is not None:
        return None, problem
    return float(volume_curve_ml(series, WALL)[phases["ed"]]) * MYOCARDIAL_DENSITY_G_PER_ML, ""


def _rates(series: Series, curve_ml: FloatArray) -> tuple[dict[str, float], str]:
    """Peak rates, or why there are none: they need times, and a volume in every frame."""
    times = series.frame_times_ms
    if times is None or len(times) < 3:
        return {}, "the times of at least three frames are needed"
    if not (np.diff(times) > 0).all():
        return {}, "the frame times do not ascend"
    for frame, problem in enumerate(_why_no_volumes(series, (STRUCTURES["lv"],), range(len(times)))):
        if problem is not None:
            return {}, f"frame {frame}: {problem}"
    return rates_ml_per_s(curve_ml, times), "the volume does not change so between the frames"


def rates_ml_per_s(curve_ml: FloatArray, times_ms: tuple[float, ...]) -> dict[str, float]:
    """Peak ejection and peak filling rate of the left ventricle: the steepest fall and rise of its volume.

    Slopes are those of each frame between its neighbours. From the last frame to the first there is none: a cine that
    was gated prospectively ends before the cycle does.

    Args:
        curve_ml: (T,) volume in every frame.
        times_ms: Their times, ascending, at least three.

    Returns:
        Without a rate of a volume that never falls, or never rises.
    """
    slopes = np.gradient(curve_ml, np.asarray(times_ms) / 1000)[1:-1]
    rates = zip(RATES, (float(-slopes.min()), float(slopes.max())), strict=True)
    return {name: rate for name, rate in rates if rate > 0}


def body_surface_m2(height_cm: float, weight_kg: float) -> float:
    """Body surface (Mosteller, N Engl J Med 1987;317:1098)."""
    return float(np.sqrt(height_cm * weight_kg / 3600))


def by_body_surface(values: Mapping[str, float], height_cm: float | None, weight_kg: float | None) -> dict[str, float]:
    """Volumes and mass by body surface, `lvedv_ml` as `lvedv_ml_per_m2`; empty without height or weight."""
    if not height_cm or not weight_kg:
        return {}
    surface = body_surface_m2(height_cm, weight_kg)
    return {f"{name}_per_m2": value / surface for name, value in values.items() if name.endswith(("v_ml", "_g"))}
