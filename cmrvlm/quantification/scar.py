"""Scar on late enhancement: mass and share of the wall, from masks."""

from __future__ import annotations

from cmrvlm.quantification.ventricles import MYOCARDIAL_DENSITY_G_PER_ML, Quantities
from cmrvlm.quantification.volumes import SCAR, WALL, volume_curve_ml, why_no_volume
from cmrvlm.study.study import Series

SCAR_VALUES = ("scar_mass_g", "scar_share_percent")


def quantify_scar(series: Series) -> Quantities:
    """Compute the mass of the scar, no-reflow included, and its share of the left ventricular wall.

    Args:
        series: Late enhancement with masks in which scar was looked for: a wall without scar has a
            share of 0.
    """
    problem = why_no_volume(series, WALL, 0)
    if problem is not None:
        return Quantities(not_computable=dict.fromkeys(SCAR_VALUES, problem))
    scar_ml = float(volume_curve_ml(series, SCAR)[0])
    wall_ml = float(volume_curve_ml(series, WALL)[0])
    values = {
        "scar_mass_g": scar_ml * MYOCARDIAL_DENSITY_G_PER_ML,
        "scar_share_percent": 100 * scar_ml / wall_ml,
    }
    return Quantities(values)
