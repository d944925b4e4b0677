"""Build the tables of an evaluation, for the screen and as Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from cmrvlm.config.terminal import one_line
from cmrvlm.evaluation.results import OVERALL, Tree
from cmrvlm.tasks.base import Task

# Prefixes of metrics of single classes, which would flood the main table.
PER_CLASS = ("auroc_", "auprc_")
# Underscores inside words are none.
_MARKUP = re.compile(r"[\\`*\[\]<>|&$~#!]")
Row = tuple[str, ...]
# Head, rows and title of a table.
Titled = tuple[Row, list[Row], str]


def shown(row: Mapping[str, Any] | None, *, interval: bool = False) -> str:
    """Format a value with three digits.

    Args:
        row: A metric's value and interval; None when it was not scored.
        interval: Add the 95 % interval, if there is any.

    Returns:
        The text; `undefined` without a value, empty without a row.
    """
    if row is None:
        return ""
    if row["value"] is None:
        return "undefined"
    text = f"{row['value']:.3f}"
    if interval and row["low"] is not None:
        return f"{text} ({row['low']:.3f} to {row['high']:.3f})"
    return text


def _cell(tree: Tree, task: str, metric: str) -> dict[str, Any] | None:
    """Return a metric of a task, None when it was not scored."""
    metrics = tree.get(task, {})
    return metrics.get(metric)


def score_rows(tree: Tree, probes: Mapping[str, Tree]) -> tuple[Row, list[Row]]:
    """Return head and rows of the main table: each metric with its interval, beside the probes.

    Metrics of single classes are left out.
    """
    head = ("task", "metric", "value (95 %)", *probes, "n", "undefined")
    rows: list[Row] = []
    for task, metrics in tree.items():
        for metric, row in metrics.items():
            if metric.startswith(PER_CLASS):
                continue
            value = shown(row, interval=True)
            probe_values = [shown(_cell(probe, task, metric)) for probe in probes.values()]
            rows.append(
                (
                    task,
                    metric,
                    value,
                    *probe_values,
                    str(row["n"]),
                    str(row["undefined"]),
                )
            )
    return head, rows


def probe_rows(probes: Mapping[str, Tree]) -> tuple[Row, list[Row]]:
    """Return head and rows of the share of answers that each probe leaves unchanged, by task."""
    head = ("answers unchanged", *probes)
    trees = list(probes.values())
    rows: list[Row] = []
    tasks: list[str] = []
    if trees:
        tasks = [task for task in trees[0] if task != OVERALL]
    for task in tasks:
        shares = [shown(_cell(tree, task, "unchanged_share")) for tree in trees]
        rows.append((task, *shares))
    # The metric over all questions is the only one there; its name depends on the probe.
    overall_shares: list[str] = []
    for tree in trees:
        metrics = tree.get(OVERALL, {})
        row = next(iter(metrics.values()), None)
        overall_shares.append(shown(row))
    rows.append(("all questions (mirage rate)", *overall_shares))
    return head, rows


def subset_rows(
    tree: Tree, subsets: Mapping[str, Tree], primary: Mapping[str, str]
) -> tuple[Row, list[Row]]:
    """Return head and rows of each task's main metric by the sequences shown.

    Beside each value stands its difference from the value with all sequences.

    Args:
        tree: Scores with everything shown.
        subsets: Subset to scores.
        primary: Task to metric.
    """
    head = ("task", "metric", "all", *subsets)
    rows: list[Row] = []
    for task, metric in primary.items():
        full_row = _cell(tree, task, metric)
        if full_row is None:
            continue
        cells: list[str] = []
        for subset in subsets.values():
            row = _cell(subset, task, metric)
            cells.append(_with_difference(row))
        rows.append((task, metric, shown(full_row), *cells))
    return head, rows


def _with_difference(row: Mapping[str, Any] | None) -> str:
    """Format a value with its difference from the full set, if there is any."""
    text = shown(row)
    if row is None:
        return text
    difference = row.get("difference")
    if not difference:
        return text
    return f"{text} ({difference['value']:+.3f})"


def gate_rows(gate: Mapping[str, Mapping[str, Any]]) -> tuple[Row, list[Row]]:
    """Return head and rows of the share of images that are turned away.

    Args:
        gate: Images to the share of them, see `cmrvlm.evaluation.turned_away`.
    """
    head = ("images", "turned away (95 %)", "number", "n", "undefined")
    rows: list[Row] = []
    for images, row in gate.items():
        counts = [str(row[name]) for name in ("turned_away", "n", "undefined")]
        rows.append((images, shown(row, interval=True), *counts))
    return head, rows


def titled_tables(
    tree: Tree,
    probes: Mapping[str, Tree],
    subsets: Mapping[str, Tree],
    tasks: Mapping[str, Task],
    title: str,
) -> list[Titled]:
    """Return head, rows and title of the main table, and of those of probes and subsets if any.

    Args:
        tree: Scores with everything shown.
        probes: Probe to scores.
        subsets: Subset to scores.
        tasks: Tasks that were asked.
        title: Title of the main table.
    """
    head, rows = score_rows(tree, probes)
    result = [(head, rows, title)]
    if probes:
        head, rows = probe_rows(probes)
        result.append((head, rows, "Answers that probes leave unchanged"))
    if subsets:
        metric_of = {name: task.subset_metric or task.primary for name, task in tasks.items()}
        head, rows = subset_rows(tree, subsets, metric_of)
        result.append((head, rows, "Sequences shown (difference from all)"))
    return result


def rich_table(head: Row, rows: Sequence[Row], title: str) -> Table:
    """Build a table for the screen; names of tasks, runs and parts are no markup."""
    table = Table(*(escape(name) for name in head), title=escape(title))
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    return table


def markdown(head: Row, rows: Sequence[Row], title: str) -> str:
    """Format a table as Markdown, for `metrics.md`; one without rows is its title alone."""
    if not rows:
        return f"## {title}\n"
    lines = [
        f"## {_plain(title)}",
        "",
        _markdown_row(head),
        "|" + "---|" * len(head),
    ]
    for row in rows:
        lines.append(_markdown_row(row))
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Return a text with a backslash before what is markup in Markdown, in one line."""
    return _MARKUP.sub(r"\\\g<0>", one_line(text))


def _markdown_row(cells: Row) -> str:
    """Format the cells of a table's row as Markdown."""
    content = " | ".join(map(_plain, cells))
    return f"| {content} |"
