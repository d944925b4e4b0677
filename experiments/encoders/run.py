"""Compare the encoders in each slot, on synthetic phantoms.

    python -m experiments.encoders.run [out=<folder>] [steps=<steps>]

Stage 3 from scratch, so that no encoder has an earlier stage of its own. Writes table and figure
here.
"""

from __future__ import annotations

from pathlib import Path

from experiments.commands import given
from experiments.sweeps import keep, sweep

HERE = Path(__file__).parent
JOBS = {
    "attention in all slots": [],
    "conv in sax": ["encoder@encoders.sax=conv"],
    "conv in lax_4ch": ["encoder@encoders.lax_4ch=conv"],
    "conv in lge": ["encoder@encoders.lge=conv", "encoders.lge.temporal_tokens=0"],
    "unet in sax": ["encoder@encoders.sax=unet"],
    "unet in lax_4ch": ["encoder@encoders.lax_4ch=unet"],
    "unet in lge": ["encoder@encoders.lge=unet", "encoders.lge.temporal_tokens=0"],
}
# Task, metric and label of the columns.
SHOWN = (
    ("segment_lv", "dice", "LV Dice"),
    ("segment_myo", "dice", "myo Dice"),
    ("disease", "macro_auroc", "disease AUROC"),
    ("abnormality", "macro_auroc", "finding AUROC"),
)


def main() -> None:
    """Run the sweep and keep its result."""
    settings = given({"out": "runs/encoders", "steps": "500"})
    evaluation = ["tasks=[segment_lv,segment_myo,disease,abnormality,volume]", "cases_per_task=6"]
    results = sweep(JOBS, Path(settings["out"]), settings["steps"], evaluation)
    keep(HERE, results, SHOWN, settings["steps"])


if __name__ == "__main__":
    main()
