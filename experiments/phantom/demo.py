"""Train three stages on phantoms, evaluate beside the blind baseline, and predict one study.

    python -m experiments.phantom.demo [out=<folder>]

Prints each command it runs, so that every step can be run by hand.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from rich.table import Table

from cmrvlm.study.files import write_study
from data_modules.sources.phantom.source import PhantomSource
from experiments.commands import CONSOLE, given, metrics, run, train_anew
from experiments.phantom.table import number

STEPS = "transform.preprocessing.steps"
# Coarser pixels and fewer frames than the full experiments, so that two cores are done in minutes.
SHARED = [
    "data.source.count=640",
    "hardware=cpu_bf16",
    f"{STEPS}.grid.spacing_mm=[null,3.0,3.0]",
    f"{STEPS}.grid.size=[null,64,64]",
    f"{STEPS}.frames.frames=6",
    "transform.augmentation=null",
    "trainer.check_val_every_n_epoch=null",
    "trainer.val_check_interval=200",
]
STAGES = {
    "stage1": ["trainer.max_steps=150", "trainer.limit_val_batches=0"],
    "stage2": ["adapter=full", "trainer.max_steps=270", "trainer.limit_val_batches=0"],
    "stage3": [
        "trainer.max_steps=420",
        "trainer.limit_val_batches=2",
        "data.batch_size=8",
    ],
}
# Task, metric and label of the rows of the result.
SHOWN = (
    ("segment_lv", "dice", "LV Dice"),
    ("segment_myo", "dice", "myocardium Dice"),
    ("segment_rv", "dice", "RV Dice"),
    ("disease", "macro_auroc", "disease macro AUROC (16 classes)"),
    ("disease", "text_accuracy", "disease named in the answer"),
    ("sequence", "accuracy", "sequence accuracy"),
    ("phase", "accuracy", "phase accuracy"),
    ("level", "accuracy", "level accuracy"),
    ("report", "sections_present", "report with all sections"),
    ("report", "disease_accuracy", "disease right in the report"),
)


def main() -> None:
    """Run the demo."""
    out = Path(given({"out": "runs/demo"})["out"])
    started = time.monotonic()
    earlier: list[str] = []
    for stage, settings in STAGES.items():
        train_anew(f"+experiment={stage}", f"out={out / stage}", *SHARED, *settings, *earlier)
        earlier = [f"stage.init_from={out / stage}"]
    model = out / "stage3"
    run("cmrvlm.evaluate", f"run={model}", "cases_per_task=8")
    study = held_out_study(model, out)
    run("cmrvlm.predict", f"run={model}", f"study={study}", "ask='What is the diagnosis?'")
    minutes = (time.monotonic() - started) / 60
    CONSOLE.print(result_table(model))
    CONSOLE.print(
        f"Trained, evaluated and predicted in {minutes:.1f} minutes on synthetic phantoms."
    )
    CONSOLE.print(
        f"Masks over images: {model / 'evaluation' / 'panel.png'} "
        f"and {model / 'prediction' / 'panel.png'}",
        markup=False,
    )


def held_out_study(model: Path, out: Path) -> Path:
    """Write the first test study of a run as NIfTI files, as a user would have them."""
    study_id = json.loads((model / "split.json").read_text())["test"][0]
    seed, index = (int(number) for number in study_id.split("-")[1:])
    folder = out / "study"
    write_study(PhantomSource(count=index + 1, seed=seed).load(study_id), folder)
    return folder


def result_table(model: Path) -> Table:
    """Build a table of the demo's scores, with the images and with them removed."""
    content = metrics(model / "evaluation")
    studies = content["settings"]["studies"]
    table = Table(
        "score", "model", "images removed", title=f"{studies} held-out synthetic phantoms"
    )
    for task, name, label in SHOWN:
        score = number(content["tasks"][task][name])
        blind_score = number(content["probes"]["blind"][task][name])
        table.add_row(label, score, blind_score)
    return table


if __name__ == "__main__":
    main()
