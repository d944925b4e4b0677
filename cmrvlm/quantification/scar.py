"""Scar on late enhancement: mass, share of the wall, and transmurality by AHA segment, from masks that show it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cmrvlm.quantification.segments import SCAR, transmurality_percent
from cmrvlm.quantification.ventricles import (
    MYOCARDIAL_DENSITY_G_PER_ML,
    WALL,
    Quantities,
    volume_curve_ml,
    why_no_volume,
)
from cmrvlm.study import Series

SCAR_VALUES = ("scar_mass_g", "scar_share_percent")


def quantify_scar(series: Series) -> Quantities:
    """Mass of the scar, no-reflow with it, and its share of the left ventricular wall.

    Args:
        series: Late enhancement with masks in which scar was looked for: a wall without scar has a share of 0.
    """
    problem = why_no_volume(series, WALL, 0)
    if problem is not None:
        return Quantities(not_computable=dict.fromkeys(SCAR_VALUES, problem))
    scar_ml, wall_ml = (float(volume_curve_ml(series, structures)[0]) for structures in (SCAR, WALL))
    return Quantities({"scar_mass_g": scar_ml * MYOCARDIAL_DENSITY_G_PER_ML,
                       "scar_share_percent": 100 * scar_ml / wall_ml})  # fmt: skip


def scar_by_segment(series: Series, septum: NDArray[np.float64] | None = None) -> tuple[dict[int, float], str | None]:
    """Segment to the share of its wall that is scar, in percent; and why there is none when it is empty.

    Segments are counted from the right ventricle. Where the mask does not show it, another series of the study can.

    Args:
        series: Late enhancement with masks.
        septum: World direction from the left ventricle to the right one by another series.
    """
    found = transmurality_percent(series, septum=septum)
    return found, None if found else "the mask shows no slice with a closed wall beside a right ventricle"
