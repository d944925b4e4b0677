"""The benchmark's table: every task beside the probes, and what decides whether an aim is met."""

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


def number(row: Mapping[str, Any] | None) -> str:
    """A score, or that it is undefined."""
    return "undefined" if row is None or row["value"] is None else f"{row['value']:.3f}"


def table(content: Mapping[str, Any]) -> list[str]:
    """Lines of Markdown from the benchmark's `metrics.json`."""
    lines = [
        "| score | test (95 %) | black images | another's images | unseen wording | shifted test |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for task, name, label in ROWS:
        own = content["tasks"][task][name]
        probes = [number(content["probes"][probe].get(task, {}).get(name)) for probe in PROBES]
        shown = f"{number(own)} ({own['low']:.3f} to {own['high']:.3f})"
        lines.append(
            f"| {label} | {shown} | {' | '.join(probes)} | {number(content['shifted'][task][name])} |"
        )
    return lines


def aims(content: Mapping[str, Any]) -> list[str]:
    """What was aimed at and what was reached."""
    tasks, probes = content["tasks"], content["probes"]
    closed, guessed = (one["vqa_closed"]["accuracy"]["value"] for one in (tasks, probes["blind"]))
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
    )
    return [
        "| aim | | reached |",
        "|---|---|---:|",
        *(f"| {name} | {aim} | {value:.3f} |" for name, aim, value in reached),
    ]
