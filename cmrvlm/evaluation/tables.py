"""Tables of an evaluation, on screen and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from cmrvlm.evaluation.results import OVERALL, Tree

PER_CLASS = ("auroc_", "auprc_")
Row = tuple[str, ...]


def shown(row: Mapping[str, Any] | None, *, interval: bool = False) -> str:
    """A value with three digits, with its interval if wanted; `undefined` where there is none."""
    if row is None:
        return ""
    if row["value"] is None:
        return "undefined"
    text = f"{row['value']:.3f}"
    return (
        f"{text} ({row['low']:.3f} to {row['high']:.3f})"
        if interval and row["low"] is not None
        else text
    )


def score_rows(tree: Tree, probes: Mapping[str, Tree]) -> tuple[Row, list[Row]]:
    """Head and rows of the main table: each metric with its interval, beside the probes; no single classes."""
    head = ("task", "metric", "value (95 %)", *probes, "n", "undefined")
    rows = [
        (
            task,
            name,
            shown(row, interval=True),
            *(shown(probe.get(task, {}).get(name)) for probe in probes.values()),
            str(row["n"]),
            str(row["undefined"]),
        )
        for task, metrics in tree.items()
        for name, row in metrics.items()
        if not name.startswith(PER_CLASS)
    ]
    return head, rows


def probe_rows(probes: Mapping[str, Tree]) -> tuple[Row, list[Row]]:
    """Head and rows of the share of answers that each probe leaves unchanged, by task."""
    names = list(probes)
    tasks = [task for task in next(iter(probes.values()), {}) if task != OVERALL]
    rows = [
        (task, *(shown(probes[name].get(task, {}).get("unchanged_share")) for name in names))
        for task in tasks
    ]
    overall = [next(iter(probes[name].get(OVERALL, {}).values()), None) for name in names]
    return ("answers unchanged", *names), [
        *rows,
        ("all questions (mirage rate)", *(shown(one) for one in overall)),
    ]


def subset_rows(
    tree: Tree, subsets: Mapping[str, Tree], primary: Mapping[str, str]
) -> tuple[Row, list[Row]]:
    """Head and rows of each task's main metrics by the sequences shown, with the difference from all of them.

    Args:
        tree: Scores with everything shown.
        subsets: Subset to scores.
        primary: Task to metric.
    """
    rows = []
    for task, metric in primary.items():
        base = tree.get(task, {}).get(metric)
        if base is None:
            continue
        cells = []
        for one in subsets.values():
            row = one.get(task, {}).get(metric)
            gap = (row or {}).get("difference")
            cells.append(shown(row) + (f" ({gap['value']:+.3f})" if gap else ""))
        rows.append((task, metric, shown(base), *cells))
    return ("task", "metric", "all", *subsets), rows


def rich_table(head: Row, rows: Sequence[Row], title: str) -> Table:
    """For the screen."""
    table = Table(*head, title=title)
    for row in rows:
        table.add_row(*row)
    return table


def markdown(head: Row, rows: Sequence[Row], title: str) -> str:
    """For `metrics.md`."""
    lines = [f"## {title}", "", f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"
