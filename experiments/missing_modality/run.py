"""Missing sequences on synthetic phantoms: stage 3 with and without dropping sequences in training.

    python -m experiments.missing_modality.run [init=<run of stage 2>] [out=<folder>] [steps=<steps>]

Both jobs of the sweep start from the same run of stage 2 (that of the demo) and are asked about the same test
studies under all seven subsets of the sequences. Writes `metrics.json`, `table.md` and `subsets.png` here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cmrvlm.evaluation.conditions import all_subsets
from cmrvlm.figures import save
from cmrvlm.labels import DISEASES, SEQUENCES
from experiments.commands import CONSOLE, given, metrics, run
from experiments.phantom.demo import SHARED

HERE = Path(__file__).parent
JOBS = {"without": "without dropping", "with": "with dropping"}  # in the order of conf/sweep/mix.yaml
# Diseases that the phantoms show by shape or motion alone; the others need late enhancement to be told apart.
NO_CONTRAST = ("DCM", "HCM", "HHD", "CSD", "LVNC", "TTC", "ACM", "PH", "VHD", "CHD")
TASKS = "tasks=[disease,abnormality,report,vqa_closed,segment_lv,volume]"


def macro(tree: dict[str, Any], codes: tuple[str, ...]) -> float:
    """Mean AUROC over the given diseases."""
    return float(np.mean([tree["disease"][f"auroc_{code}"]["value"] for code in codes]))


def table(results: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each subset: macro AUROC over all diseases and over those that need no contrast, for both jobs."""
    rows = []
    for subset in all_subsets(SEQUENCES):
        row: dict[str, Any] = {"subset": subset}
        for job in JOBS:
            tree = results[job]["subsets"][subset]
            row[job] = {"all": macro(tree, tuple(DISEASES)), "no_contrast": macro(tree, NO_CONTRAST)}
        rows.append(row)
    return rows


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Bars of the macro AUROC by subset, with and without dropping."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, kind in zip(axes, ("all", "no_contrast"), strict=True):
        for offset, (job, label) in zip((-0.2, 0.2), JOBS.items(), strict=True):
            axis.bar(np.arange(len(rows)) + offset, [row[job][kind] for row in rows], 0.4, label=label)
        axis.set_xticks(range(len(rows)), [row["subset"] for row in rows], rotation=35, ha="right", fontsize=8)
        axis.set_ylim(0.5, 1.0)
        axis.set_title("all diseases" if kind == "all" else "diseases that need no contrast", fontsize=9)
    axes[0].set_ylabel("macro AUROC, synthetic test set")
    axes[0].legend(fontsize=8)
    save(figure, path, vector=True)


def main() -> None:
    """Train both jobs, evaluate, and keep table and figure."""
    settings = given({"init": "runs/demo/stage2", "out": "runs/missing_modality", "steps": "900"})
    out = Path(settings["out"])
    training = [*SHARED, "trainer.limit_val_batches=1", "data.batch_size=8", f"trainer.max_steps={settings['steps']}",
                f"stage.init_from={settings['init']}", f"hydra.sweep.dir={out}"]  # fmt: skip
    run("cmrvlm.train", "-m", "+experiment=stage3", "+sweep=mix", *training)
    asked = ["+data=phantom_test", TASKS, "probes=null", "subsets=all", "cases_per_task=4"]
    results = {}
    for number, job in enumerate(JOBS):
        run("cmrvlm.evaluate", f"run={out / str(number)}", f"out={out / job}", *asked)
        results[job] = metrics(out / job)
    rows = table(results)
    kept = {"steps": int(settings["steps"]), "rows": rows, **results}
    (HERE / "metrics.json").write_text(json.dumps(kept, indent=1))
    lines = ["| sequences shown | without dropping | with dropping | no contrast, without | no contrast, with |",
             "|---|---:|---:|---:|---:|"]  # fmt: skip
    lines += [f"| {row['subset']} | {row['without']['all']:.3f} | {row['with']['all']:.3f} | "
              f"{row['without']['no_contrast']:.3f} | {row['with']['no_contrast']:.3f} |" for row in rows]  # fmt: skip
    (HERE / "table.md").write_text("\n".join(lines) + "\n")
    draw(rows, HERE / "subsets.png")
    CONSOLE.print("\n".join(lines), markup=False)


if __name__ == "__main__":
    main()
