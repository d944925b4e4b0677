"""Train stage 3 on phantoms with and without dropping sequences, and test missing sequences.

    python -m experiments.missing_modality.run [init=<run of stage 2>] [out=<folder>]
        [steps=<steps>]

Both jobs of the sweep start from the same run of stage 2 (that of the demo) and are asked about the
same test studies under all seven subsets of the sequences. Writes `metrics.json`, `table.md` and
`subsets.png` here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from matplotlib.figure import Figure

from cmrvlm.evaluation.conditions import all_subsets
from cmrvlm.evaluation.results import Bootstrap, interval
from cmrvlm.metrics.statistic import Auroc, MeanOf, Statistic
from cmrvlm.reports.reader import terms_named
from cmrvlm.study.drawing import save
from cmrvlm.study.vocabulary import DISEASES, SEQUENCES
from experiments.commands import CONSOLE, given, metrics, run, train_anew
from experiments.phantom.demo import SHARED

HERE = Path(__file__).parent
# In the order of conf/sweep/mix.yaml.
JOBS = {
    "without": "without dropping",
    "with": "with dropping",
}
# Diseases that the phantoms show by shape or motion alone; the others need late enhancement to be
# told apart.
NO_CONTRAST = ("DCM", "HCM", "HHD", "CSD", "LVNC", "TTC", "ACM", "PH", "VHD", "CHD")
DISEASE_GROUPS = {"all": tuple(DISEASES), "no_contrast": NO_CONTRAST}
TASKS = "tasks=[disease,abnormality,report,vqa_closed,segment_lv,volume]"
CINE = "sax+lax_4ch"


def macro_auroc(answers: list[dict[str, Any]], codes: tuple[str, ...]) -> MeanOf:
    """Return the mean AUROC over the given diseases, from rows of `answers.parquet`."""
    truths = [terms_named(row["target"], DISEASES) for row in answers]
    unknown = [None] * len(DISEASES)
    probabilities = [
        dict(zip(DISEASES, row["probabilities"] or unknown, strict=True)) for row in answers
    ]
    aurocs: list[Statistic] = []
    for code in codes:
        is_true = [code in truth for truth in truths]
        aurocs.append(Auroc(is_true, [row[code] for row in probabilities]))
    return MeanOf(aurocs)


def by_subset(folder: Path) -> dict[str, dict[str, Any]]:
    """Compute the macro AUROC by subset of sequences and group of diseases.

    Args:
        folder: Folder of an evaluation.

    Returns:
        Subset to group to the macro AUROC, with its paired difference from the full set.
    """
    table = pq.read_table(
        folder / "answers.parquet", filters=[("task", "=", "disease")]
    ).to_pylist()
    full = sorted(
        (row for row in table if row["subset"] == "full" and not row["probe"]),
        key=lambda row: row["study"],
    )
    studies = [row["study"] for row in full]
    bootstrap = Bootstrap.of(studies, 1000)
    weights = bootstrap.rows(studies)
    result: dict[str, dict[str, Any]] = {}
    for subset in all_subsets(SEQUENCES):
        answers = sorted(
            (row for row in table if row["subset"] == subset), key=lambda row: row["study"]
        )
        result[subset] = {}
        for group, codes in DISEASE_GROUPS.items():
            auroc = macro_auroc(answers, codes)
            full_auroc = macro_auroc(full, codes)
            assert auroc.value is not None
            assert full_auroc.value is not None
            low, high = interval(auroc(weights) - full_auroc(weights))
            result[subset][group] = {
                "value": auroc.value,
                "difference": auroc.value - full_auroc.value,
                "low": low,
                "high": high,
            }
    return result


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw bars of the macro AUROC by subset, with and without dropping."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    subsets = all_subsets(SEQUENCES)
    titles = {"all": "all diseases", "no_contrast": "diseases that need no contrast"}
    for axis, group in zip(axes, DISEASE_GROUPS, strict=True):
        for offset, (job, label) in zip((-0.2, 0.2), JOBS.items(), strict=True):
            heights = [results[job]["by_subset"][subset][group]["value"] for subset in subsets]
            axis.bar(np.arange(len(subsets)) + offset, heights, 0.4, label=label)
        axis.set_xticks(range(len(subsets)), subsets, rotation=35, ha="right", fontsize=8)
        axis.set_ylim(0.5, 1.0)
        axis.set_title(titles[group], fontsize=9)
    axes[0].set_ylabel("macro AUROC, synthetic test set")
    axes[0].legend(fontsize=8)
    save(figure, path, vector=True)


def table_of(results: dict[str, Any]) -> list[str]:
    """Return a Markdown table with a row for each subset and job.

    The difference from the full set stands with its paired 95 % interval.
    """
    lines = [
        "| sequences shown | job | all diseases | no contrast needed "
        "| difference from all sequences (95 %) |",
        "|---|---|---:|---:|---:|",
    ]
    for subset in all_subsets(SEQUENCES):
        for job, label in JOBS.items():
            row = results[job]["by_subset"][subset]
            gap = row["no_contrast"]
            lines.append(
                f"| {subset} | {label} | {row['all']['value']:.3f} | {gap['value']:.3f} | "
                f"{gap['difference']:+.3f} ({gap['low']:+.3f} to {gap['high']:+.3f}) |"
            )
    return lines


def main() -> None:
    """Train both jobs, evaluate, and keep table and figure."""
    settings = given({"init": "runs/demo/stage2", "out": "runs/missing_modality", "steps": "600"})
    out = Path(settings["out"])
    training = [
        *SHARED,
        "trainer.limit_val_batches=1",
        "data.batch_size=8",
        f"trainer.max_steps={settings['steps']}",
        f"stage.init_from={settings['init']}",
        f"hydra.sweep.dir={out}",
    ]
    train_anew("-m", "+experiment=stage3", "+sweep=mix", *training)
    evaluation = ["+data=phantom_test", TASKS, "probes=null", "subsets=all", "cases_per_task=4"]
    results = {}
    for number, job in enumerate(JOBS):
        run("cmrvlm.evaluate", f"run={out / str(number)}", f"out={out / job}", *evaluation)
        results[job] = {"by_subset": by_subset(out / job), **metrics(out / job)}
    (HERE / "metrics.json").write_text(
        json.dumps({"steps": int(settings["steps"]), **results}, indent=1)
    )
    lines = table_of(results)
    (HERE / "table.md").write_text("\n".join(lines) + "\n")
    draw(results, HERE / "subsets.png")
    cine = results["with"]["by_subset"][CINE]["no_contrast"]
    CONSOLE.print("\n".join(lines), markup=False)
    CONSOLE.print(
        "Cine alone, trained with dropping, diseases that need no contrast: "
        f"{cine['difference']:+.3f}"
    )


if __name__ == "__main__":
    main()
