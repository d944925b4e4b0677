"""Format the benchmark's tables: every task beside the probes, and the aims with the results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ROWS = (
    ("segment_lv", "dice", "LV Dice"),
    ("segment_myo", "dice", "myocardium Dice"),
    ("segment_rv", "dice", "RV Dice"),
    ("detect", "iou", "box IoU"),
    ("sequence", "accuracy", "sequence"),
    ("phase", "accuracy", "phase"),
    ("level", "accuracy", "level"),
    ("volume", "lvef_mae_percent", "LVEF, mean absolute error in points"),
    ("volume", "lvedv_mae_ml", "LVEDV, mean absolute error in ml"),
    ("abnormality", "macro_auroc", "23 findings, macro AUROC"),
    ("abnormality", "accuracy", "finding in words"),
    ("vqa_closed", "accuracy", "closed questions"),
    ("vqa_open", "accuracy", "open questions"),
    ("disease", "macro_auroc", "16 diseases, macro AUROC"),
    ("disease", "text_accuracy", "disease in words"),
    ("caption", "finding_f1", "caption, finding F1"),
    ("report", "finding_f1", "report, finding F1"),
    ("report", "disease_accuracy", "disease in the report"),
    ("summary", "text_accuracy", "summary (text alone)"),
    ("prognosis", "c_index", "prognosis, C-index"),
)
PROBES = ("blind", "swapped", "paraphrase")
# Images of which the share is counted that is turned away.
GATE_ROWS = (
    ("hearts", "hearts turned away"),
    ("foreign", "images without a heart turned away"),
)


def number(row: Mapping[str, Any] | None) -> str:
    """Format a score with three digits; `undefined` where there is none."""
    if row is None or row["value"] is None:
        return "undefined"
    return f"{row['value']:.3f}"


def table(content: Mapping[str, Any]) -> list[str]:
    """Return lines of Markdown with every score from the benchmark's `metrics.json`."""
    lines = [
        "| score | test (95 %) | black images | another's images | unseen wording | shifted test |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for task, name, label in ROWS:
        row = content["tasks"][task][name]
        probes = [number(content["probes"][probe].get(task, {}).get(name)) for probe in PROBES]
        shown = _with_interval(row)
        shifted = number(content["shifted"][task][name])
        lines.append(f"| {label} | {shown} | {' | '.join(probes)} | {shifted} |")
    # Results of earlier versions have no such counts.
    gate = content.get("gate", {})
    shifted_gate = content.get("shifted_gate", {})
    for images, label in GATE_ROWS:
        if images in gate:
            cells = [_with_interval(gate[images]), *[""] * len(PROBES)]
            cells.append(number(shifted_gate.get(images)))
            lines.append(f"| {label} | {' | '.join(cells)} |")
    return lines


def _with_interval(row: Mapping[str, Any]) -> str:
    """Format a score with its interval; `undefined` where there is none."""
    if row["value"] is None or row["low"] is None:
        return number(row)
    return f"{number(row)} ({row['low']:.3f} to {row['high']:.3f})"


def aims(content: Mapping[str, Any]) -> list[str]:
    """Return lines of Markdown with each aim and what was reached."""
    tasks = content["tasks"]
    probes = content["probes"]
    closed = tasks["vqa_closed"]["accuracy"]["value"]
    guessed = probes["blind"]["vqa_closed"]["accuracy"]["value"]
    mirage = probes["swapped"]["overall"]["mirage_rate"]["value"]
    reached = (
        ("closed questions, against black images", ">= 2.36 x", closed / guessed),
        ("16 diseases, macro AUROC", ">= 0.937", tasks["disease"]["macro_auroc"]["value"]),
        (
            "the same, shifted test",
            ">= 0.860",
            content["shifted"]["disease"]["macro_auroc"]["value"],
        ),
        ("LV Dice", ">= 0.93", tasks["segment_lv"]["dice"]["value"]),
        (
            "LVEF, mean absolute error in points",
            "<= 4",
            tasks["volume"]["lvef_mae_percent"]["value"],
        ),
        ("report, finding F1", ">= 0.85", tasks["report"]["finding_f1"]["value"]),
        ("mirage rate with another's images", "<= 0.05", mirage),
        *_gate_aims(content.get("gate", {})),
    )
    return [
        "| aim | | reached |",
        "|---|---|---:|",
        *(f"| {name} | {aim} | {value:.3f} |" for name, aim, value in reached),
    ]


def _gate_aims(gate: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, float]]:
    """Return the aims of what is turned away with what was reached, as far as it was counted."""
    aim_of = {"hearts": "<= 0.01", "foreign": ">= 0.98"}
    reached = []
    for images, label in GATE_ROWS:
        value = gate.get(images, {}).get("value")
        if value is not None:
            reached.append((label, aim_of[images], value))
    return reached
