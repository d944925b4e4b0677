"""Time the loading of synthetic studies: from the cache, NIfTI, and one PNG for each frame.

    python -m experiments.loading.run [studies=<number>] [rounds=<number>]

All three give the same study on the model's grid: the cache reads it as it is, the others read and
preprocess it each time, as loaders without a cache do. One process, each way timed in turn in every
round; the median round counts. Writes `metrics.json` and `table.md` here.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from PIL import Image

from cmrvlm.config.build import build
from cmrvlm.study.files import write_study
from cmrvlm.study.study import Study
from data_modules.sources.nifti import NiftiSource
from data_modules.sources.phantom.source import PhantomSource
from data_modules.storage.cache import StudyCache
from experiments.commands import CONSOLE, given

HERE = Path(__file__).parent
SETTINGS = HERE.parents[1] / "conf" / "transform" / "default.yaml"
# As scanners deliver a study; the model's grid is that of conf/transform/default.yaml.
CLINICAL: dict[str, Any] = {"size": 192, "slices": 10, "frames": 25, "spacing_mm": (1.3, 1.5)}
LABELS = {
    "cache": "cache, memory-mapped",
    "nifti": "NIfTI, preprocessed each time",
    "png": "a PNG for each frame, preprocessed each time",
}


def write_frames(study: Study, folder: Path) -> None:
    """Write an 8-bit PNG for each slice and frame, as research code keeps them."""
    for name, series in study.series.items():
        image = np.asarray(series.image, dtype=np.float32)
        scaled = (255 * (image - image.min()) / np.ptp(image)).astype(np.uint8)
        (folder / name).mkdir(parents=True)
        for z, t in np.ndindex(*image.shape[:2]):
            Image.fromarray(scaled[z, t]).save(folder / name / f"{z:02d}_{t:02d}.png")


def read_frames(study: Study, folder: Path) -> Study:
    """Read the images of a study back from the folder of `write_frames`.

    Geometry and labels are those of the study, so that only the images are timed.
    """
    series = {}
    for name, original in study.series.items():
        frames = [np.asarray(Image.open(path)) for path in sorted((folder / name).iterdir())]
        image = np.stack(frames).reshape(original.image.shape).astype(np.float32)
        series[name] = replace(original, image=image, mask=None)
    return study.with_series(series)


def seconds(read: Callable[[str], Study], ids: list[str]) -> float:
    """Return the seconds that reading all images of the studies takes."""
    started = time.perf_counter()
    for study_id in ids:
        for series in read(study_id).series.values():
            # A memory map is read when it is used.
            np.asarray(series.image, dtype=np.float32).sum()
    return time.perf_counter() - started


def main() -> None:
    """Write the studies in three ways, time reading them, and keep table and numbers."""
    settings = given({"studies": "8", "rounds": "5"})
    count = int(settings["studies"])
    rounds = int(settings["rounds"])
    transform = OmegaConf.to_container(OmegaConf.load(SETTINGS))
    preprocessing = build(transform["preprocessing"], "transform.preprocessing")
    phantoms = PhantomSource(count=count, **CLINICAL)
    ids = phantoms.study_ids()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        bare = {}
        for study_id in ids:
            study = phantoms.load(study_id)
            without_masks = {
                name: replace(series, mask=None) for name, series in study.series.items()
            }
            study = study.with_series(without_masks)
            write_study(study, folder / "nifti" / study_id)
            write_frames(study, folder / "png" / study_id)
            bare[study_id] = study
        files = NiftiSource(str(folder / "nifti"))
        cache = StudyCache(folder / "cache", files, preprocessing)
        cache.fill(ids)
        ways: dict[str, Callable[[str], Study]] = {
            "cache": cache.load,
            "nifti": lambda study_id: preprocessing(files.load(study_id)),
            "png": lambda study_id: preprocessing(
                read_frames(bare[study_id], folder / "png" / study_id)
            ),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, read in ways.items():
                times[name].append(seconds(read, ids))
    rates = {name: count / median(taken) for name, taken in times.items()}
    faster = {f"cache_over_{name}": rates["cache"] / rates[name] for name in ("nifti", "png")}
    content = {
        "studies": count,
        "rounds": rounds,
        "cores": os.cpu_count(),
        "studies_per_second": rates,
        **faster,
    }
    (HERE / "metrics.json").write_text(json.dumps(content, indent=1))
    lines = ["| from | studies a second | cache is faster by |", "|---|---:|---:|"]
    lines += [
        f"| {label} | {rates[name]:.1f} | {rates['cache'] / rates[name]:.1f} x |"
        for name, label in LABELS.items()
    ]
    (HERE / "table.md").write_text("\n".join(lines) + "\n")
    CONSOLE.print("\n".join(lines), markup=False)


if __name__ == "__main__":
    main()
