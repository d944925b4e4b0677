"""Count the hearts and the other images that runs turn away.

    python -m experiments.gate.run root=<folder with acdc, emidec and dicom> \
        phantom=<run trained on phantoms> acdc=<run trained on ACDC>

Hearts are the studies of each run's own test part; other images are noise, blanks, smooth fields,
ramps, bottles and shuffled tissue in their place, the localizers of a DICOM archive, photographs
that scikit-learn brings, and hearts of the other data sets. A study is turned away when every
series of it is. Writes `metrics.json` and `table.md` here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_sample_images

from cmrvlm.errors import CmrvlmError
from cmrvlm.inference.unlike_training import unlike_training
from cmrvlm.models.study_encoding import encode_studies
from cmrvlm.runs.lineage import SPLIT
from cmrvlm.runs.run_folder import TrainedRun, load_run
from cmrvlm.runs.wiring import build_data
from cmrvlm.study.study import Series, Study
from cmrvlm.transforms.foreign import FOREIGN, foreign_study
from data_modules.dicom.image import Image
from data_modules.dicom.scan import files_of, scan
from data_modules.dicom.stacks import stacks_of
from data_modules.dicom.volumes import series_of
from data_modules.sources.acdc import AcdcSource
from data_modules.sources.base import Source
from data_modules.sources.emidec import EmidecSource
from experiments.commands import CONSOLE, given

HERE = Path(__file__).parent
_MOST_HEARTS = 100
# Crops of each photograph, and their size in pixels.
_CROPS = 20
_CROP = 160


def hearts_of(run: TrainedRun) -> Iterator[Study]:
    """Yield the studies of a run's own test part, on the model's grid."""
    data = build_data(run.config, split_file=str(run.folder / SPLIT))
    data.prepare_data()
    for study_id in list(data.split["test"])[:_MOST_HEARTS]:
        yield data.load_study(study_id)


def studies_of(source: Source) -> Iterator[Study]:
    """Yield the studies of a source, those left out that cannot be read."""
    for study_id in source.study_ids()[:_MOST_HEARTS]:
        try:
            yield source.load(study_id)
        except CmrvlmError:
            continue


def localizers(folder: Path) -> Iterator[Study]:
    """Yield each stack of an archive as if it were each sequence."""
    images: list[Image] = []
    for scanned in scan(files_of(folder)):
        if isinstance(scanned, list):
            images += scanned
    for number, stack in enumerate(stacks_of(images).stacks):
        series, _ = series_of(stack)
        for sequence in ("sax", "lax_4ch", "lge"):
            yield Study(f"localizer {number}", "none", {sequence: series})


def photographs(rng: np.random.Generator) -> Iterator[Study]:
    """Yield crops of photographs as if they were each sequence."""
    for picture in load_sample_images().images:
        grey = picture.mean(axis=2).astype(np.float32)
        for _ in range(_CROPS):
            top = rng.integers(0, grey.shape[0] - _CROP)
            left = rng.integers(0, grey.shape[1] - _CROP)
            crop = grey[top : top + _CROP, left : left + _CROP]
            yield Study("photograph", "none", _as_every_sequence(crop))


def _as_every_sequence(picture: NDArray[np.float32]) -> dict[str, Series]:
    """Return a picture (H, W) as a short-axis cine, a four-chamber cine and late enhancement."""
    affine = np.diag([1.5, 1.5, 8.0, 1.0])
    shapes = {"sax": (8, 10), "lax_4ch": (1, 10), "lge": (8, 1)}
    return {
        name: Series(image=np.broadcast_to(picture, (*shape, *picture.shape)), affine=affine)
        for name, shape in shapes.items()
    }


def turned_away(run: TrainedRun, studies: Iterable[Study], *, prepared: bool) -> dict[str, int]:
    """Count the studies of which a run turns every series away.

    Args:
        run: Trained run.
        studies: Studies.
        prepared: They are on the model's grid.
    """
    counts = {"studies": 0, "turned_away": 0}
    for study in studies:
        known = {name: one for name, one in study.series.items() if name in run.model.encoders}
        if not known:
            continue
        study = study.with_series(known)
        if not prepared:
            study = run.preprocessing(study)
        counts["studies"] += 1
        features = encode_studies(run.model, [study])
        counts["turned_away"] += len(unlike_training(run, features)) == len(known)
    return counts


def counts_of(run: TrainedRun, root: Path) -> dict[str, dict[str, int]]:
    """Return kind of image to the counts of a run."""
    hearts = list(hearts_of(run))
    counts = {"hearts of its own test part": turned_away(run, hearts, prepared=True)}
    for kind in FOREIGN:
        foreign = (foreign_study(one, kind, seed) for seed, one in enumerate(hearts))
        counts[kind] = turned_away(run, foreign, prepared=False)
    counts["localizers"] = turned_away(
        run, localizers(root / "dicom" / "sunnybrook_scout"), prepared=False
    )
    photos = photographs(np.random.default_rng(0))
    counts["photographs"] = turned_away(run, photos, prepared=False)
    sources: dict[str, Source] = {
        "hearts of ACDC": AcdcSource(str(root / "acdc" / "training")),
        "hearts of EMIDEC": EmidecSource(str(root / "emidec")),
    }
    for name, source in sources.items():
        counts[name] = turned_away(run, studies_of(source), prepared=False)
    return counts


def main() -> None:
    """Count for each run, and keep numbers and table."""
    settings = given({"root": "data", "phantom": "runs/demo/stage3", "acdc": ""})
    results = {}
    for name in ("phantom", "acdc"):
        if settings[name]:
            run = load_run(Path(settings[name]))
            results[name] = counts_of(run, Path(settings["root"]))
    (HERE / "metrics.json").write_text(json.dumps(results, indent=1) + "\n")
    lines = ["| images | " + " | ".join(f"trained on {name}" for name in results) + " |"]
    lines.append("|---|" + "---:|" * len(results))
    for kind in next(iter(results.values())):
        cells = []
        for counts in results.values():
            count, away = counts[kind]["studies"], counts[kind]["turned_away"]
            cells.append(f"{away} of {count}" if count else "")
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    (HERE / "table.md").write_text("\n".join(lines) + "\n")
    CONSOLE.print("\n".join(lines), markup=False)


if __name__ == "__main__":
    main()
