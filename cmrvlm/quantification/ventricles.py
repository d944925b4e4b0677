"""Volumes of the ventricles over the cycle, ejection fraction, rates and mass, from short-axis masks.

Volumes are discs: voxels counted in each slice, times the volume of that slice's voxel. Slices count as they are
labelled: a basal slice in which the mask shows a ventricle belongs to it, the apex ends with the last labelled slice,
and papillary muscles are what the mask says they are. A slice that is a little further from the next one than others
are counts for the way between them; where one is missing, or a structure runs into what is not annotated, there is no
volume. Nothing is interpolated and nothing is guessed: what cannot be computed is absent, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median_low

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cmrvlm.study.measurements import FEWEST_SLICES
from cmrvlm.study.structures import STRUCTURE_VALUES
from cmrvlm.study.study import Series
from cmrvlm.study.vocabulary import NOT_ANNOTATED, STRUCTURES

MYOCARDIAL_DENSITY_G_PER_ML = 1.05  # Schulz-Menger et al., JCMR 2020;22:19
CAVITIES = ("lv", "rv")
RATES = ("peak_ejection_rate_ml_per_s", "peak_filling_rate_ml_per_s")
_SLICE_MISSING = 1.75  # times the usual distance: twice as far is a lost slice, half as far again an uneven stack
_ITSELF = np.pad(np.ones((1, 1), dtype=bool), 1)
NEIGHBOURS = np.stack(
    [_ITSELF, np.ones((3, 3), dtype=bool), _ITSELF]
)  # of a voxel, in its slice and across it
WALL = STRUCTURE_VALUES["myo"]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Quantities:
    """What follows from the masks of a series.

    Attributes:
        values: Name with unit to value.
        not_computable: Name to the reason why there is none.
        phases: Frame of `ed` and of `es`.
        curves_ml: Cavity to its volume in each frame (T,), NaN where it cannot be counted.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    not_computable: Mapping[str, str] = field(default_factory=dict)
    phases: Mapping[str, int] = field(default_factory=dict)
    curves_ml: Mapping[str, FloatArray] = field(default_factory=dict)


def quantify(
    series: Series,
    height_cm: float | None = None,
    weight_kg: float | None = None,
    *,
    find_phases: bool = True,
) -> Quantities:
    """All that a short-axis series' masks say of the ventricles.

    ED and ES are those of the series where they are known, else the frames with the largest and the smallest left
    ventricle as far as it is shown; if its volume cannot be counted there, there is none.

    Args:
        series: With masks.
        height_cm: Of the patient, for values by body surface.
        weight_kg: Of the patient.
        find_phases: False where the frames with masks are not spread over the cycle: the largest and the smallest of
            them are not ED and ES then, which only the series can tell.
    """
    assert series.mask is not None
    problems = {
        name: list(_why_no_volumes(series, (STRUCTURES[name],), range(series.image.shape[1])))
        for name in CAVITIES
    }
    areas = {name: volume_curve_ml(series, (STRUCTURES[name],)) for name in CAVITIES}
    curves = {
        name: np.where([one is None for one in problems[name]], areas[name], np.nan)
        for name in CAVITIES
    }
    phases = dict(series.phases) or (phases_of(areas["lv"]) if find_phases else {})
    values: dict[str, float] = {}
    missing: dict[str, str] = {}
    for name in CAVITIES:
        for own, reasons in (
            _of_cavity(series, name, curves[name], problems[name], phases),
            _rates(series, name, curves[name], problems[name]),
        ):
            values |= own
            missing |= reasons
    mass, reason = _mass_g(series, phases)
    values |= {"lv_mass_g": mass} if mass is not None else {}
    missing |= {"lv_mass_g": reason} if mass is None else {}
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


def phases_of_masks(series: Series) -> dict[str, int]:
    """`phases_of` the left ventricle as a series' masks show it, whatever the series says of its phases."""
    return phases_of(volume_curve_ml(series, (STRUCTURES["lv"],)))


def _of_cavity(
    series: Series,
    cavity: str,
    curve_ml: FloatArray,
    problems: Sequence[str | None],
    phases: Mapping[str, int],
) -> tuple[dict[str, float], dict[str, str]]:
    """EDV, ESV, stroke volume and EF, as far as they can be computed, and for each of the others why not."""
    values: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for phase in ("ed", "es"):
        name, frame = f"{cavity}{phase}v_ml", phases.get(phase)
        problem = (
            _too_few(series) or f"no frame is known to be {phase}"
            if frame is None
            else problems[frame]
        )
        if problem is not None:
            reasons[name] = problem
        elif frame is not None:
            values[name] = float(curve_ml[frame])
    if reasons:
        return values, reasons | dict.fromkeys(
            (f"{cavity}sv_ml", f"{cavity}ef_percent"), next(iter(reasons.values()))
        )
    diastole, systole = values[f"{cavity}edv_ml"], values[f"{cavity}esv_ml"]
    if systole > diastole:
        larger = "the volume at es is larger than at ed"
        return values, dict.fromkeys((f"{cavity}sv_ml", f"{cavity}ef_percent"), larger)
    return values | {
        f"{cavity}sv_ml": diastole - systole,
        f"{cavity}ef_percent": 100 * (diastole - systole) / diastole,
    }, {}


def why_no_volume(series: Series, structures: tuple[int, ...], frame: int) -> str | None:
    """Why a structure's volume in a frame cannot be counted; None when it can."""
    return next(_why_no_volumes(series, structures, [frame]))


def _why_no_volumes(
    series: Series, structures: tuple[int, ...], frames: Iterable[int]
) -> Iterator[str | None]:
    """`why_no_volume` of each frame; what is the same for all of them is looked up once."""
    assert series.mask is not None
    few, unannotated = _too_few(series), _unannotated(series)
    shown = np.flatnonzero(
        np.isin(series.mask, structures).any(axis=(1, 2, 3))
    )  # at end-systole they may be fewer
    lost = _slice_missing(series, shown) if len(shown) >= FEWEST_SLICES else None
    for frame in frames:
        yield (
            few
            or _problem_of(series.mask[:, frame], structures, unannotated[:, frame], len(shown))
            or lost
        )


def _slice_missing(series: Series, shown: NDArray[np.intp]) -> str | None:
    """Why a stack is not whole where a structure is shown, the slices next to its ends among them; None if it is."""
    if series.slice_places_mm is None:
        return None
    gaps = np.diff(series.slice_places_mm)
    first, last = max(0, int(shown[0]) - 1), int(shown[-1])
    wide = np.flatnonzero(gaps[first : last + 1] > _SLICE_MISSING * median_low(gaps.tolist()))
    if not len(wide):
        return None
    at = first + int(wide[0])
    return f"a slice is missing: {gaps[at]:.1f} mm lie between slices {at} and {at + 1}"


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
    unknown = mask == NOT_ANNOTATED
    within = slice(there[0], there[-1] + 1)
    absent = ~np.isin(mask[within], structures).any(axis=(1, 2))
    for found, what in (
        (unknown[within].all(axis=(1, 2)), "is not annotated"),
        (absent, "lacks it"),
    ):
        if found.any():
            return f"slice {int(there[0] + found.argmax())} between others {what}"
    for beside in (there[0] - 1, there[-1] + 1):
        if 0 <= beside < len(mask) and unknown[beside].all():
            return f"slice {int(beside)} beside the structure is not annotated"
    if unknown.any():
        beyond = (ndimage.binary_dilation(np.isin(mask, structures), NEIGHBOURS) & unknown).any(
            axis=(1, 2)
        )
        if beyond.any():
            return f"in slice {int(beyond.argmax())} the structure runs into what is not annotated"
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


def _rates(
    series: Series, cavity: str, curve_ml: FloatArray, problems: Sequence[str | None]
) -> tuple[dict[str, float], dict[str, str]]:
    """Peak rates, and why there are none: they need times, and a volume in every frame."""
    times, found, reason = (
        series.frame_times_ms,
        dict[str, float](),
        "the volume does not change so between the frames",
    )
    lost = next(
        (f"frame {frame}: {one}" for frame, one in enumerate(problems) if one is not None), None
    )
    if times is None or len(times) < 3:
        reason = "the times of at least three frames are needed"
    elif not (np.diff(times) > 0).all():
        reason = "the frame times do not ascend"
    elif lost is not None:
        reason = lost
    else:
        found = {f"{cavity}_{name}": rate for name, rate in rates_ml_per_s(curve_ml, times).items()}
    names = [f"{cavity}_{name}" for name in RATES]
    return found, {name: reason for name in names if name not in found}


def rates_ml_per_s(curve_ml: FloatArray, times_ms: tuple[float, ...]) -> dict[str, float]:
    """Peak ejection and peak filling rate of a ventricle: the steepest fall and rise of its volume.

    Slopes are those of each frame between its neighbours. From the last frame to the first there is none: a cine that
    was gated prospectively ends before the cycle does.

    Args:
        curve_ml: (T,) volume in every frame.
        times_ms: Their times, ascending, at least three.

    Returns:
        Name of `RATES` to rate; without that of a volume that never falls, or never rises.
    """
    slopes = np.gradient(curve_ml, np.asarray(times_ms) / 1000)[1:-1]
    rates = zip(RATES, (float(-slopes.min()), float(slopes.max())), strict=True)
    return {name: rate for name, rate in rates if rate > 0}


def body_surface_m2(height_cm: float, weight_kg: float) -> float:
    """Body surface (Mosteller, N Engl J Med 1987;317:1098)."""
    return float(np.sqrt(height_cm * weight_kg / 3600))


def by_body_surface(
    values: Mapping[str, float], height_cm: float | None, weight_kg: float | None
) -> dict[str, float]:
    """Volumes and mass by body surface, `lvedv_ml` as `lvedv_ml_per_m2`; empty without height or weight."""
    if not height_cm or not weight_kg:
        return {}
    surface = body_surface_m2(height_cm, weight_kg)
    return {
        f"{name}_per_m2": value / surface
        for name, value in values.items()
        if name.endswith(("v_ml", "_g"))
    }
