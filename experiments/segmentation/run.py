"""Masks side by side: our model and MONAI's DynUNet, the same studies, the same augmentation, the same minutes.

    python -m experiments.segmentation.run data=acdc root=<folder> [minutes=10] [folds=1] [out=<folder>]
    python -m experiments.segmentation.run data=phantom

Ours has the UNet encoder and the fine head and is trained twice: on masks alone, and on everything that a short axis
with masks can be asked. How many steps are as many minutes is found out in two short runs. Writes `metrics.json` and
`table_<data>.md` here; results of other data sets that are in it stay.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir

from cmrvlm.metrics.statistic import Statistic
from cmrvlm.stages.run_folder import load_run
from cmrvlm.stages.wiring import build_data, plain
from cmrvlm.study import Study
from experiments.commands import CONSOLE, given, run
from experiments.segmentation.dynunet import Baseline
from experiments.segmentation.ours import label
from experiments.segmentation.scores import LabelMap, as_rows, difference, statistics

HERE = Path(__file__).parent
CONF = HERE.parents[1] / "conf"
GRID = ["transform.preprocessing.steps.grid.spacing_mm=[null,1.5,1.5]",
        "transform.preprocessing.steps.grid.size=[null,128,128]"]  # fmt: skip
AUGMENTATION = ["transform.augmentation.rotation_degrees=30", "transform.augmentation.geometry_probability=0.9"]
OURS = ["~encoder@encoders.lax_4ch", "~encoder@encoders.lge", "encoder@encoders.sax=unet", "head=fine",
        "data.batch_size=4", "hardware=cpu_bf16", "trainer.limit_val_batches=0"]  # fmt: skip
MIXES = {"ours": ["mix=masks", "head.read_out=null"], "ours_full_mix": ["mix=segmentation"]}
DATA = {
    "acdc": ["+experiment=acdc", *GRID, "transform.preprocessing.steps.grid.center=heart"],
    "phantom": ["+experiment=stage3", "data.source.count=160", *GRID, "data.shares={val: 0.0, test: 0.2}"],
}
STRUCTURES = ("lv", "myo", "rv")
TIMED_STEPS = 25


def settings_of(name: str, root: str, fold: int) -> list[str]:
    """Overrides that say which data, and how it is divided."""
    return [*DATA[name], *AUGMENTATION, f"data.seed={fold}", *([f"data.root={root}"] if root else [])]


def data_of(overrides: list[str]) -> Any:
    """The data module of an experiment, with studies in place of batches."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", overrides=[*overrides, *OURS, "mix=masks", "out=none", "run_dir=none"])
    data = build_data(plain(config))
    data.prepare_data()
    data.collator = lambda samples: [study for study, _ in samples]
    return data


def endless(data: Any) -> Iterator[Study]:
    """Augmented training studies, epoch after epoch."""
    while True:
        for batch in data.train_dataloader():
            yield from batch


def train_ours(out: Path, overrides: list[str], minutes: float) -> float:
    """Train for as many steps as fit into the minutes; the minutes that they took."""
    shared = [*overrides, *OURS, "callbacks.samples=null"]
    started = time.monotonic()
    run("cmrvlm.train", *shared, f"out={out}_timed", f"trainer.max_steps={TIMED_STEPS}")
    first = time.monotonic() - started
    started = time.monotonic()
    run("cmrvlm.train", *shared, f"out={out}_timed2", f"trainer.max_steps={3 * TIMED_STEPS}")
    each = (time.monotonic() - started - first) / (2 * TIMED_STEPS)
    steps = max(TIMED_STEPS, int(60 * minutes / each))
    started = time.monotonic()
    run("cmrvlm.train", *shared, f"out={out}", f"trainer.max_steps={steps}")
    return (time.monotonic() - started) / 60


def fold_of(name: str, root: str, fold: int, minutes: float, out: Path) -> tuple[list[Study], dict[str, Any]]:
    """Held-out studies, and for each model its label maps and the minutes of its training."""
    overrides = settings_of(name, root, fold)
    data = data_of(overrides)
    studies = [data.cache.load(one) for one in data.split["test"]]
    found: dict[str, Any] = {}
    for model, mix in MIXES.items():
        took = train_ours(out / f"{model}{fold}", [*overrides, *mix], minutes)
        trained = load_run(out / f"{model}{fold}")
        found[model] = {one.study_id: label(trained, one, "sax", STRUCTURES) for one in studies}, took
    for model, dimensions in (("dynunet_2d", 2), ("dynunet_3d", 3)):
        CONSOLE.print(f"\n{model}, {minutes:g} minutes", style="bold")
        baseline = Baseline(dimensions, STRUCTURES)
        baseline.train(endless(data), "sax", minutes)
        found[model] = {one.study_id: baseline.label(one.series["sax"]) for one in studies}, minutes
    return studies, found


def main() -> None:
    """Train all models on every fold, score them on all held-out studies, and keep the result."""
    settings = given({"data": "acdc", "root": "", "minutes": "10", "folds": "1", "out": "runs/segmentation"})
    if settings["data"] not in DATA or (settings["data"] == "acdc" and not settings["root"]):
        sys.exit(f"data is one of {', '.join(DATA)}, and acdc needs root=<folder>")
    torch.set_num_threads(os.cpu_count() or 1)
    studies: list[Study] = []
    maps: dict[str, dict[str, LabelMap]] = {}
    took: dict[str, float] = {}
    for fold in range(int(settings["folds"])):
        own, found = fold_of(settings["data"], settings["root"], fold, float(settings["minutes"]),
                             Path(settings["out"]) / settings["data"])  # fmt: skip
        studies += own
        for model, (labels, spent) in found.items():
            maps[model] = maps.get(model, {}) | labels
            took[model] = took.get(model, 0.0) + spent
    scored = {model: statistics(own, studies, "sax", STRUCTURES) for model, own in maps.items()}
    keep(settings, studies, scored, took)


def keep(settings: dict[str, str], studies: list[Study], scored: dict[str, dict[str, Statistic]],
         took: dict[str, float]) -> None:  # fmt: skip
    """Write the table and the numbers of this data set beside those of others."""
    path = HERE / "metrics.json"
    content = json.loads(path.read_text()) if path.is_file() else {}
    content[settings["data"]] = {model: as_rows(own, studies) for model, own in scored.items()} | {
        "ours_less_dynunet_2d": {name: difference(one, scored["dynunet_2d"][name], studies)
                                 for name, one in scored["ours"].items() if name.endswith("_dice")},
        "training": {"minutes": took, "folds": int(settings["folds"]), "test_studies": len(studies),
                     "cores": os.cpu_count()},
    }  # fmt: skip
    path.write_text(json.dumps(content, indent=1))
    names = [f"{one}_dice{phase}" for one in STRUCTURES for phase in ("_ed", "_es")] + [
        f"{o}_hd95_mm" for o in STRUCTURES
    ]
    names += ["lvef_bias_percent", "lvef_mae_percent", "lvedv_bias_ml"]
    lines = [f"| {settings['data']}, {len(studies)} studies | {' | '.join(scored)} |", "|---|" + "---:|" * len(scored)]
    for name in names:
        rows = [content[settings["data"]][model].get(name, {}).get("value") for model in scored]
        lines.append(f"| {name} | {' | '.join('undefined' if one is None else f'{one:.3f}' for one in rows)} |")
    (HERE / f"table_{settings['data']}.md").write_text("\n".join(lines) + "\n")
    CONSOLE.print("\n".join(lines), markup=False)


if __name__ == "__main__":
    main()
