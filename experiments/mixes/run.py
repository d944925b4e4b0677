"""Compare weights over tasks, on synthetic phantoms: the default mix, equal, and evened out.

    python -m experiments.mixes.run [init=<run of stage 2>] [out=<folder>] [steps=<steps>]

All jobs start from the same run of stage 2 (that of the demo). Writes table and figure here.
"""

from __future__ import annotations

from pathlib import Path

from experiments.commands import given
from experiments.sweeps import keep, sweep

HERE = Path(__file__).parent
JOBS = {
    "default": [],
    "equal": ["mix=uniform"],
    "temperature 3": ["mix.temperature=3"],
    "two questions a study": ["mix.per_study=2"],
}
# Task, metric and label of the columns.
SHOWN = (
    ("segment_lv", "dice", "LV Dice"),
    ("level", "accuracy", "level"),
    ("disease", "macro_auroc", "disease AUROC"),
    ("vqa_closed", "accuracy", "closed VQA"),
    ("vqa_open", "accuracy", "open VQA"),
    ("report", "finding_f1", "report F1"),
)


def main() -> None:
    """Run the sweep and keep its result."""
    settings = given({"init": "runs/demo/stage2", "out": "runs/mixes", "steps": "500"})
    jobs = {
        name: [*overrides, f"stage.init_from={settings['init']}"]
        for name, overrides in JOBS.items()
    }
    evaluation = ["tasks=[segment_lv,level,disease,vqa_closed,vqa_open,report]", "cases_per_task=6"]
    results = sweep(jobs, Path(settings["out"]), settings["steps"], evaluation)
    keep(HERE, results, SHOWN, settings["steps"])


if __name__ == "__main__":
    main()
