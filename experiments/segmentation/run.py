"""Compare masks of our model and of MONAI's DynUNet: same folds, augmentation and time.

    python -m experiments.segmentation.run data=acdc root=<folder> [minutes=10] [folds=5]
        [models=ours,…] [out=<folder>]
    python -m experiments.segmentation.run data=emidec
        root=<folder with train, trainannot, val and valannot>
    python -m experiments.segmentation.run data=phantom folds=1

Ours has the UNet encoder and the fine head and is trained twice: on masks alone, and on
everything that the data can be asked. `minutes` plans its time, and a baseline has what ours on
masks alone took on the same fold. The results of a fold and model are kept in `out`, and not made
again. Writes `metrics.json`, `table_<data>.md`, `summary_<data>.md` and pictures here, into `to`,
or with models=… into `out`; results of other data sets that are there stay.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch

from cmrvlm.inference.cmrvlm import CMRVLM
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
# Shares of the time of ours that a kept baseline may have been trained for.
_LEAST_SHARE = 0.95
_MOST_SHARE = 1.1
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
    """Train a model on a fold, and keep its label maps and learning curve in a folder.

    Nothing is done where the folder has them already.

    Args:
        model: Name of the model.
        chosen: The data set.
        overrides: Overrides for `cmrvlm.train`, but for the mix.
        data: Data module of the fold, prepared.
        studies: Held-out studies, on the model's grid.
        folder: `<out>/<model>_fold<k>`.
        minutes: Minutes of training.

    Raises:
        SystemExit: The folder holds a baseline that was trained for another time.
    """
    kept = _minutes_of(folder)
    if kept is not None:
        if model in BASELINES and not _LEAST_SHARE <= kept / minutes <= _MOST_SHARE:
            sys.exit(
                f"{folder} was trained for {kept:.1f} minutes, ours for {minutes:.1f}: delete it"
            )
        return
    facts = f"\n{folder.name}: {len(data.split['train'])} studies, {minutes:g} minutes"
    CONSOLE.print(facts, style="bold", markup=False)
    maps: dict[str, LabelMap]
    if model in BASELINES:
        dimensions, optimizer = BASELINES[model]
        baseline = Baseline(
            dimensions, *median_stack(data, chosen.sequence), chosen.structures, optimizer
        )
        frames = endless(data, chosen.sequence, baseline.slices)
        curve = baseline.train(frames, minutes)
        took = minutes
        maps = {study.study_id: baseline.label(study.series[chosen.sequence]) for study in studies}
    else:
        with_mix = [*overrides, *chosen.mixes[model]]
        timing = folder.parent / f"{model}_timed"
        curve, took = ours.train(with_mix, folder / "run", minutes, timing)
        model_of_ours = CMRVLM.from_pretrained(folder / "run", device="cpu")
        maps = {
            study.study_id: ours.label(model_of_ours, study, chosen.sequence, chosen.structures)
            for study in studies
        }
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "labels.npz", **maps)
    (folder / "done.json").write_text(
        json.dumps({"curve": curve, "minutes": took, "split": data.split})
    )


def _minutes_of(folder: Path) -> float | None:
    """Return the minutes of the training that a folder keeps, None where it keeps none."""
    path = folder / "done.json"
    if not path.is_file():
        return None
    done = json.loads(path.read_text())
    return float(done["minutes"])


def read(folders: dict[str, Path], source: Source, studies: list[Study]) -> Fold:
    """Read the results of all models on the held-out studies of a fold.

    Args:
        folders: Model to the folder of its results.
        source: Source of the studies on their native grid.
        studies: Held-out studies on the model's grid.

    Raises:
        SystemExit: A folder holds what was made of another split.
    """
    maps = {}
    study_ids = [study.study_id for study in studies]
    done = {
        model: json.loads((folder / "done.json").read_text()) for model, folder in folders.items()
    }
    for model, folder in folders.items():
        if done[model]["split"]["test"] != study_ids:
            sys.exit(
                f"{folder} was made with another split: delete it or give another out=<folder>"
            )
        with np.load(folder / "labels.npz") as kept:
            maps[model] = {study_id: kept[study_id] for study_id in study_ids}
    native = [source.load(study_id) for study_id in study_ids]
    return Fold(
        studies,
        native,
        maps,
        {model: result["curve"] for model, result in done.items()},
        {model: result["minutes"] for model, result in done.items()},
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
    name = settings["data"]
    root = settings["root"]
    if name not in DATA_SETS or (name != "phantom" and not root):
        sys.exit(f"data is one of {', '.join(DATA_SETS)}; acdc and emidec need root=<folder>")
    models = [model for model in settings["models"].split(",") if model]
    if not models:
        models = [*DATA_SETS[name].mixes, *KEPT_BASELINES]
    unknown = set(models) - set(DATA_SETS[name].mixes) - set(BASELINES)
    if unknown or not 1 <= int(settings["folds"]) <= FOLDS:
        sys.exit(
            f"models are {', '.join([*DATA_SETS[name].mixes, *BASELINES])}; folds are 1 to {FOLDS}"
        )
    torch.set_num_threads(os.cpu_count() or 1)
    chosen = DATA_SETS[name]
    minutes = float(settings["minutes"])
    out = Path(settings["out"] or f"runs/segmentation/{name}_{minutes:g}_minutes")
    if name == "emidec":
        stacks_of_slices(Path(root), out / "stacks")
        root = str(out / "stacks")
    overrides = chosen.overrides(root)
    source = data_of([*overrides, *chosen.mixes["ours"]]).source
    splits = write_folds(source, out)[: int(settings["folds"])]
    folds = []
    for fold, split in enumerate(splits):
        with_split = [*overrides, f"data.split_file={split}"]
        data = data_of([*with_split, *chosen.mixes["ours"]])
        data.prepare_data()
        studies = [data.cache.load(study_id) for study_id in data.split["test"]]
        folders = {model: out / f"{model}_fold{fold}" for model in models}
        # Baselines come last, for they are given the time that ours took.
        for model in sorted(folders, key=BASELINES.__contains__):
            model_minutes = minutes
            if model in BASELINES:
                model_minutes = _minutes_of(out / f"ours_fold{fold}") or minutes
            made(model, chosen, with_split, data, studies, folders[model], model_minutes)
        folds.append(read(folders, source, studies))
    to = Path(__file__).parent
    if settings["to"]:
        to = Path(settings["to"])
    elif settings["models"]:
        to = out
    keep(name, chosen, folds, minutes, to)


if __name__ == "__main__":
    main()
