"""How fast studies come: from the cache, from NIfTI, and from one PNG for each frame, on synthetic phantoms.

    python -m experiments.loading.run [studies=<number>] [rounds=<number>]

All three give the same study on the model's grid: the cache reads it as it is, the others read and preprocess it each
time, as loaders without a cache do. One process, each way timed in turn in every round; the median round counts. Writes
`metrics.json` and `table.md` here.
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
    """One 8-bit PNG for each slice and frame, as research code keeps them."""
    for name, series in study.series.items():
        image = np.asarray(series.image, dtype=np.float32)
        scaled = (255 * (image - image.min()) / np.ptp(image)).astype(np.uint8)
        (folder / name).mkdir(parents=True)
        for z, t in np.ndindex(*image.shape[:2]):
            Image.fromarray(scaled[z, t]).save(folder / name / f"{z:02d}_{t:02d}.png")


def read_frames(study: Study, folder: Path) -> Study:
    """The study with its images read from `write_frames`; geometry and labels are at hand."""
    series = {}
    for name, one in study.series.items():
        frames = [np.asarray(Image.open(path)) for path in sorted((folder / name).iterdir())]
        series[name] = replace(
            one, image=np.stack(frames).reshape(one.image.shape).astype(np.float32), mask=None
        )
    return study.with_series(series)


def seconds(read: Callable[[str], Study], ids: list[str]) -> float:
    """Seconds for reading all images of the studies."""
    started = time.perf_counter()
    for study_id in ids:
        for series in read(study_id).series.values():
            np.asarray(series.image, dtype=np.float32).sum()  # a memory map is read when it is used
    return time.perf_counter() - started


def main() -> None:
    """Write the studies in three ways, time reading them, and keep table and numbers."""
    settings = given({"studies": "8", "rounds": "5"})
    count, rounds = int(settings["studies"]), int(settings["rounds"])
    preprocessing = build(
        OmegaConf.to_container(OmegaConf.load(SETTINGS))["preprocessing"], "transform.preprocessing"
    )
    phantoms = PhantomSource(count=count, **CLINICAL)
    ids = phantoms.study_ids()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        bare = {}
        for study_id in ids:
            study = phantoms.load(study_id)
            study = study.with_series(
                {name: replace(one, mask=None) for name, one in study.series.items()}
            )
            write_study(study, folder / "nifti" / study_id)
            write_frames(study, folder / "png" / study_id)
            bare[study_id] = study
        files = NiftiSource(str(folder / "nifti"))
        cache = StudyCache(folder / "cache", files, preprocessing)
        cache.fill(ids)
        ways: dict[str, Callable[[str], Study]] = {
            "cache": cache.load,
            "nifti": lambda one: preprocessing(files.load(one)),
            "png": lambda one: preprocessing(read_frames(bare[one], folder / "png" / one)),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, read in ways.items():
                times[name].append(seconds(read, ids))
    rates = {name: count / median(own) for name, own in times.items()}
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
