"""Write the rows of all parts as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.gpu.bench import Row

# Part to the columns of its table, with their headings.
_COLUMNS: dict[str, dict[str, str]] = {
    "limits": {
        "name": "card",
        "tflop_per_s": "TFLOP/s",
        "gb_per_s": "GB/s",
    },
    "agreement": {
        "loss_difference": "losses",
        "gradient_median": "gradients, median",
        "gradient_difference": "worst gradient",
        "same_answers": "same answers",
        "answers": "of",
        "same_voxels": "same voxels",
        "read_out_difference": "read-outs",
    },
    "commands": {
        "loss": "loss",
        "masks": "masks scored",
        "diseases": "diseases",
        "seconds_in_all": "seconds",
    },
    "training": {
        "rows": "rows x tokens",
        "seconds": "seconds a step",
        "tokens_per_s": "tokens/s",
        "tflop_per_s": "TFLOP/s",
        "share_of_limit": "of the limit",
        "mfu": "MFU",
        "peak_gb": "peak, GB",
        "estimated_gb": "estimated, GB",
    },
    "encoders": {
        "ms": "ms",
        "studies_per_s": "studies/s",
        "tflop_per_s": "TFLOP/s",
        "share_of_limit": "of the limit",
        "peak_gb": "peak, GB",
    },
    "generation": {
        "prompt_tokens": "prompt",
        "first_token_ms": "first token, ms",
        "ms_per_step": "ms a step",
        "tokens_per_s": "tokens/s",
        "tasks": "tasks",
        "second_s": "seconds",
        "peak_gb": "peak, GB",
    },
    "syncs": {"waits": "waits", "waits_per_token": "for a token"},
    "attention": {
        "ms": "ms",
        "ms_per_step": "ms a step",
        "difference_from_sdpa": "from SDPA",
        "peak_gb": "peak, GB",
    },
}


def tables(results: Mapping[str, Sequence[Row]]) -> str:
    """Return a table in Markdown for each part.

    Args:
        results: Part to its rows; a row without numbers says why.
    """
    texts = []
    for name, rows in results.items():
        columns = _COLUMNS[name]
        lines = [
            f"**{name}**",
            "",
            f"| case | {' | '.join(columns.values())} | |",
            f"|---|{'---:|' * len(columns)}---|",
        ]
        for row in rows:
            cells = " | ".join(_cell(row.get(key)) for key in columns)
            lines.append(f"| {row['case']} | {cells} | {_remark(row)} |")
        texts.append("\n".join(lines))
    return "\n\n".join(texts) + "\n"


def _cell(value: Any) -> str:
    """Format a value for a table, with three digits that count."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    if isinstance(value, list):
        return " x ".join(str(part) for part in value)
    return str(value)


def _remark(row: Row) -> str:
    """Return in one line why a row has no numbers, empty where it has some."""
    if "skipped" in row:
        return f"skipped: {row['skipped']}"
    if "error" in row:
        first = str(row["error"]).splitlines()[0]
        return first.replace("|", "/")[:160]
    return ""
