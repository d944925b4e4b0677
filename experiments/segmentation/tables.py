"""Tables of a comparison: all metrics with their differences in pairs, and what the README shows of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_NAMES = {
    "ours": "ours",
    "ours_full_mix": "ours, full mix",
    "dynunet_2d": "DynUNet 2D",
    "dynunet_3d": "DynUNet 3D",
    "dynunet_2d_sgd": "DynUNet 2D, SGD",
}
_STRUCTURES = {
    "lv": "LV",
    "myo": "myocardium",
    "rv": "RV",
    "scar": "scar",
    "no_reflow": "no-reflow",
}
_OF_STRUCTURES = {
    "{}_ed_dice": "{} Dice at ED",
    "{}_es_dice": "{} Dice at ES",
    "{}_dice": "{} Dice",
    "{}_hd95_mm": "{} HD95, mm",
    "{}_presence_sensitivity": "{}, sensitivity",
    "{}_presence_specificity": "{}, specificity",
}
_AGREEMENT = {
    "lvedv_ml": "LVEDV, bias and limits, ml",
    "lvesv_ml": "LVESV, ml",
    "lvef_points": "LVEF, points",
    "rvedv_ml": "RVEDV, ml",
    "rvesv_ml": "RVESV, ml",
    "rvef_points": "RVEF, points",
    "lv_mass_g": "LV mass, g",
    "scar_share_points": "scar share, bias and limits, points",
}
_ERRORS = {
    "lvef_mae_points": "LVEF, mean absolute error, points",
    "scar_share_mae_points": "scar share, mean absolute error, points",
}
Content = Mapping[str, Any]


def all_metrics(models: Sequence[str], content: Content) -> list[str]:
    """Lines of a table of every metric, and of one for each baseline with the differences in pairs."""
    count = content["training"]["test_studies"]
    lines = [
        f"| {count} studies held out | {' | '.join(models)} |",
        "|---|" + "---:|" * len(models),
    ]
    for metric in content[models[0]]:
        lines.append(
            f"| {metric} | {' | '.join(_shown(content[model][metric], count, 3) for model in models)} |"
        )
    for other in (key for key in content if key.startswith("ours_less_")):
        found = {metric: one for metric, one in content[other].items() if one["value"] is not None}
        lines += [
            "",
            f"| {other.replace('_', ' ')} | difference | 95 % interval | n |",
            "|---|---:|---:|---:|",
        ]
        lines += [
            f"| {metric} | {one['value']:+.3f} | {one['low']:+.3f} to {one['high']:+.3f} | {one['n']} |"
            for metric, one in found.items()
        ]
    return lines


def summary(models: Sequence[str], content: Content) -> list[str]:
    """Lines of the README's table, with the differences from DynUNet 2D in pairs where it was trained."""
    count, known = content["training"]["test_studies"], content[models[0]]
    pairs = content.get("ours_less_dynunet_2d", {})
    columns = [_NAMES[one] for one in models] + ["ours less DynUNet 2D"] * bool(pairs)
    lines = [f"| {count} held out | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]

    def row(title: str, cells: Sequence[str], metric: str, digits: int) -> None:
        last = [_in_pairs(pairs.get(metric), digits)] * bool(pairs)
        lines.append(f"| {title} | {' | '.join([*cells, *last])} |")

    for metric, title in _OF_STRUCTURES.items():
        for structure, name in _STRUCTURES.items():
            if (key := metric.format(structure)) in known:
                digits = 1 if key.endswith("mm") else 3
                row(
                    title.format(name),
                    [_shown(content[model][key], count, digits) for model in models],
                    key,
                    digits,
                )
    for measurement, title in _AGREEMENT.items():
        base, unit = measurement.rsplit("_", 1)
        if f"{base}_bias_{unit}" in known:
            row(
                title,
                [_agreement(content[model], base, unit, count) for model in models],
                f"{base}_bias_{unit}",
                1,
            )
    for metric, title in _ERRORS.items():
        if metric in known:
            row(title, [_shown(content[model][metric], count, 1) for model in models], metric, 1)
    return lines


def _in_pairs(row: Mapping[str, Any] | None, digits: int) -> str:
    """A difference with its interval; empty where there is none."""
    if row is None or row["value"] is None:
        return ""
    value, low, high = (f"{row[name]:+.{digits}f}" for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _shown(row: Mapping[str, Any], count: int, digits: int) -> str:
    """A value, with the number of studies that it is over where those are not all."""
    if row["value"] is None:
        return "undefined"
    return f"{row['value']:.{digits}f}" + ("" if row["n"] == count else f" (n {row['n']})")


def _agreement(rows: Content, base: str, unit: str, count: int) -> str:
    """Bias, and its limits, which one study alone does not have."""
    bias, low, high = (
        rows[f"{base}_{kind}_{unit}"] for kind in ("bias", "lower_limit", "upper_limit")
    )
    if bias["value"] is None:
        return "undefined"
    known = "" if bias["n"] == count else f", n {bias['n']}"
    limits = "no limits" if low["value"] is None else f"{low['value']:.1f} to {high['value']:.1f}"
    return f"{bias['value']:+.1f} ({limits}){known}"
