"""Format the tables of a comparison: all metrics with paired differences, and a summary."""

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
    """Return lines of a table of every metric, and of one for each baseline with the differences.

    Args:
        models: Models in the order of the columns.
        content: Results of a data set.
    """
    count = content["training"]["test_studies"]
    lines = [
        f"| {count} studies held out | {' | '.join(models)} |",
        "|---|" + "---:|" * len(models),
    ]
    for metric in content[models[0]]:
        cells = [_shown(content[model][metric], count, 3) for model in models]
        lines.append(f"| {metric} | {' | '.join(cells)} |")
    for other in content:
        if not other.startswith("ours_less_"):
            continue
        lines += [
            "",
            f"| {other.replace('_', ' ')} | difference | 95 % interval | n |",
            "|---|---:|---:|---:|",
        ]
        for metric, row in content[other].items():
            if row["value"] is None:
                continue
            lines.append(
                f"| {metric} | {row['value']:+.3f} | {row['low']:+.3f} to {row['high']:+.3f} "
                f"| {row['n']} |"
            )
    return lines


def summary(models: Sequence[str], content: Content) -> list[str]:
    """Return lines of the short table, with paired differences from DynUNet 2D if it was trained.

    Args:
        models: Models in the order of the columns.
        content: Results of a data set.
    """
    count = content["training"]["test_studies"]
    known = content[models[0]]
    pairs = content.get("ours_less_dynunet_2d", {})
    columns = [_NAMES[model] for model in models]
    if pairs:
        columns.append("ours less DynUNet 2D")
    lines = [f"| {count} held out | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]

    def row(title: str, cells: Sequence[str], metric: str, digits: int) -> None:
        """Add a line with a cell for each model, and the difference if there is any."""
        all_cells = list(cells)
        if pairs:
            all_cells.append(_in_pairs(pairs.get(metric), digits))
        lines.append(f"| {title} | {' | '.join(all_cells)} |")

    for metric, title in _OF_STRUCTURES.items():
        for structure, name in _STRUCTURES.items():
            key = metric.format(structure)
            if key not in known:
                continue
            digits = 3
            if key.endswith("mm"):
                digits = 1
            cells = [_shown(content[model][key], count, digits) for model in models]
            row(title.format(name), cells, key, digits)
    for measurement, title in _AGREEMENT.items():
        base, unit = measurement.rsplit("_", 1)
        if f"{base}_bias_{unit}" in known:
            cells = [_agreement(content[model], base, unit, count) for model in models]
            row(title, cells, f"{base}_bias_{unit}", 1)
    for metric, title in _ERRORS.items():
        if metric in known:
            cells = [_shown(content[model][metric], count, 1) for model in models]
            row(title, cells, metric, 1)
    return lines


def _in_pairs(row: Mapping[str, Any] | None, digits: int) -> str:
    """Format a difference with its interval; empty where there is none."""
    if row is None or row["value"] is None:
        return ""
    value, low, high = (f"{row[name]:+.{digits}f}" for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _shown(row: Mapping[str, Any], count: int, digits: int) -> str:
    """Format a value, with the number of studies that it is over where those are not all."""
    if row["value"] is None:
        return "undefined"
    text = f"{row['value']:.{digits}f}"
    if row["n"] != count:
        text += f" (n {row['n']})"
    return text


def _agreement(rows: Content, base: str, unit: str, count: int) -> str:
    """Format a bias and its limits, which a single study does not have."""
    bias = rows[f"{base}_bias_{unit}"]
    low = rows[f"{base}_lower_limit_{unit}"]
    high = rows[f"{base}_upper_limit_{unit}"]
    if bias["value"] is None:
        return "undefined"
    limits = "no limits"
    if low["value"] is not None:
        limits = f"{low['value']:.1f} to {high['value']:.1f}"
    text = f"{bias['value']:+.1f} ({limits})"
    if bias["n"] != count:
        text += f", n {bias['n']}"
    return text
