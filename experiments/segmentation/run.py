"""Masks side by side: our model and MONAI's DynUNet, the same folds, the same augmentation, the same time of training.

    python -m experiments.segmentation.run data=acdc root=<folder> [minutes=10] [folds=5] [models=ours,…] [out=<folder>]
    python -m experiments.segmentation.run data=emidec root=<folder with train, trainannot, val and valannot>
    python -m experiments.segmentation.run data=phantom folds=1

Ours has the UNet encoder and the fine head and is trained twice: on masks alone, and on everything that the data can
be asked. `minutes` plans its time, and a baseline has what ours on masks alone took on the same fold. What a fold and
model gave is kept in `out`, and not made again. Writes `metrics.json`, `table_<data>.md`, `summary_<data>.md` and
pictures here, into `to`, or with models=… into `out`; results of other data sets that are there stay.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch

from cmrvlm.runs.run_folder import load_run
from cmrvlm.study.study import Study
from data_modules.sources.base import Source
from data_modules.study_data_module import StudyDataModule
from experiments.commands import CONSOLE, given
from experiments.segmentation import ours
from experiments.segmentation.data import (
    DATA_SETS,
    FOLDS,
    DataSet,
    data_of,
    endless,
    median_stack,
    stacks_of_slices,
    write_folds,
)
from experiments.segmentation.dynunet import Baseline
from experiments.segmentation.results import Fold, keep
from experiments.segmentation.scores import LabelMap

BASELINES = {"dynunet_2d": (2, "adamw"), "dynunet_3d": (3, "adamw"), "dynunet_2d_sgd": (2, "sgd")}
_LEAST, _MOST = 0.95, 1.1  # of the time of ours: what a kept baseline may have been trained for
KEPT_BASELINES = ("dynunet_2d", "dynunet_3d")


def made(
    model: str,
    chosen: DataSet,
    overrides: list[str],
    data: StudyDataModule,
    studies: list[Study],
    folder: Path,
    minutes: float,
) -> None:
    """Keep the label maps of a fold's held-out studies and the learning curve of a model in a folder, unless they are.

    Args:
        model: Its name.
        chosen: The data set.
        overrides: What `cmrvlm.train` is told, but for the mix.
        data: Of the fold, prepared.
        studies: The held-out ones, on the model's grid.
        folder: `<out>/<model>_fold<k>`.
        minutes: Of training.

    Raises:
        SystemExit: The folder holds a baseline that was trained for another time.
    """
    kept = _minutes_of(folder)
    if kept is not None:
        if model in BASELINES and not _LEAST <= kept / minutes <= _MOST:
            sys.exit(
                f"{folder} was trained for {kept:.1f} minutes, ours for {minutes:.1f}: delete it"
            )
        return
    CONSOLE.print(
        f"\n{folder.name}: {len(data.split['train'])} studies, {minutes:g} minutes", style="bold"
    )
    maps: dict[str, LabelMap]
    if model in BASELINES:
        dimensions, optimizer = BASELINES[model]
        baseline = Baseline(
            dimensions, *median_stack(data, chosen.sequence), chosen.structures, optimizer
        )
        curve, took = (
            baseline.train(endless(data, chosen.sequence, baseline.slices), minutes),
            minutes,
        )
        maps = {one.study_id: baseline.label(one.series[chosen.sequence]) for one in studies}
    else:
        own = [*overrides, *chosen.mixes[model]]
        curve, took = ours.train(own, folder / "run", minutes, folder.parent / f"{model}_timed")
        trained = load_run(folder / "run")
        maps = {
            one.study_id: ours.label(trained, one, chosen.sequence, chosen.structures)
            for one in studies
        }
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "labels.npz", **maps)
    (folder / "done.json").write_text(
        json.dumps({"curve": curve, "minutes": took, "split": data.split})
    )


def _minutes_of(folder: Path) -> float | None:
    """Minutes of the training that a folder keeps, None where it keeps none."""
    path = folder / "done.json"
    return float(json.loads(path.read_text())["minutes"]) if path.is_file() else None


def read(folders: dict[str, Path], source: Source, studies: list[Study]) -> Fold:
    """Collect the results of all models on the held-out studies of a fold.

    Raises:
        SystemExit: A folder holds what was made of another split.
    """
    maps = {}
    done = {
        model: json.loads((folder / "done.json").read_text()) for model, folder in folders.items()
    }
    for model, folder in folders.items():
        if done[model]["split"]["test"] != [one.study_id for one in studies]:
            sys.exit(
                f"{folder} was made with another split: delete it or give another out=<folder>"
            )
        with np.load(folder / "labels.npz") as kept:
            maps[model] = {one.study_id: kept[one.study_id] for one in studies}
    native = [source.load(one.study_id) for one in studies]
    return Fold(
        studies,
        native,
        maps,
        {model: one["curve"] for model, one in done.items()},
        {model: one["minutes"] for model, one in done.items()},
    )


def main() -> None:
    """Train all models on every fold, score them on all held-out studies, and keep the result."""
    settings = given(
        {
            "data": "acdc",
            "root": "",
            "minutes": "10",
            "folds": "5",
            "models": "",
            "out": "",
            "to": "",
        }
    )
    name, root = settings["data"], settings["root"]
    if name not in DATA_SETS or (name != "phantom" and not root):
        sys.exit(f"data is one of {', '.join(DATA_SETS)}; acdc and emidec need root=<folder>")
    models = [one for one in settings["models"].split(",") if one] or [
        *DATA_SETS[name].mixes,
        *KEPT_BASELINES,
    ]
    unknown = set(models) - set(DATA_SETS[name].mixes) - set(BASELINES)
    if unknown or not 1 <= int(settings["folds"]) <= FOLDS:
        sys.exit(
            f"models are {', '.join([*DATA_SETS[name].mixes, *BASELINES])}; folds are 1 to {FOLDS}"
        )
    torch.set_num_threads(os.cpu_count() or 1)
    chosen, minutes = DATA_SETS[name], float(settings["minutes"])
    out = Path(settings["out"] or f"runs/segmentation/{name}_{minutes:g}_minutes")
    if name == "emidec":
        stacks_of_slices(Path(root), out / "stacks")
        root = str(out / "stacks")
    overrides = chosen.overrides(root)
    source = data_of([*overrides, *chosen.mixes["ours"]]).source
    splits = write_folds(source, out)[: int(settings["folds"])]
    folds = []
    for fold, split in enumerate(splits):
        own = [*overrides, f"data.split_file={split}"]
        data = data_of([*own, *chosen.mixes["ours"]])
        data.prepare_data()
        studies = [data.cache.load(one) for one in data.split["test"]]
        folders = {model: out / f"{model}_fold{fold}" for model in models}
        for model, folder in sorted(folders.items(), key=lambda one: one[0] in BASELINES):
            ours_took = _minutes_of(out / f"ours_fold{fold}") if model in BASELINES else None
            made(model, chosen, own, data, studies, folder, ours_took or minutes)
        folds.append(read(folders, source, studies))
    keep(
        name,
        chosen,
        folds,
        minutes,
        Path(settings["to"] or (out if settings["models"] else Path(__file__).parent)),
    )


if __name__ == "__main__":
    main()
