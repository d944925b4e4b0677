"""Measure seconds and memory of masks of a whole cycle, by slices and frames, on phantoms.

    python -m experiments.segmentation.cost run=<run> [size=<pixels>]

Masks: all frames are asked at once, on the model's grid. Predict: `cmrvlm.predict` as a user runs
it, which starts, loads the run, writes a report, measures and draws, and shows a cine of more
frames than the run was trained with several times. Each size is a process of its own, so that its
peak memory is its own. Writes `cost.json` and `table_cost.md` here.
"""

from __future__ import annotations

import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from cmrvlm.inference.cmrvlm import CMRVLM
from cmrvlm.study.files import write_study
from cmrvlm.study.study import Study
from cmrvlm.tasks.segmentation import SegmentTask
from data_modules.sources.phantom.source import PhantomSource
from experiments.commands import CONSOLE, given

HERE = Path(__file__).parent
SLICES = (6, 10, 14)
FRAMES = (10, 25, 50)
ROUNDS = 3


def cine(size: int, slices: int, frames: int) -> Study:
    """Return a synthetic short-axis cine."""
    source = PhantomSource(1, size=size, slices=slices, frames=frames)
    study = source.load(source.study_ids()[0])
    return study.with_series({"sax": study.series["sax"]})


def of_masks(run: Path, study: Study) -> dict[str, float]:
    """Measure the masks of three structures in all frames of a study.

    Returns:
        Median seconds of a few rounds, and the memory of the process in MB.
    """
    model = CMRVLM.from_pretrained(run, device="cpu")
    loaded_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    questions = [
        question
        for structure in ("lv", "myo", "rv")
        for question in SegmentTask(structure).ask(study, "en")
    ]
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        model.answer(study, questions)
        seconds.append(time.perf_counter() - started)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "seconds": float(np.median(seconds)),
        "peak_mb": peak_mb,
        "above_loaded_mb": peak_mb - loaded_mb,
    }


def of_predict(run: Path, study: Study) -> dict[str, float]:
    """Measure seconds and memory of the whole command."""
    with tempfile.TemporaryDirectory() as folder:
        write_study(study, Path(folder) / "study")
        started = time.perf_counter()
        subprocess.run(
            [
                sys.executable,
                "-W",
                "ignore",
                "-m",
                "cmrvlm.predict",
                f"run={run}",
                f"study={folder}/study",
                f"out={folder}/prediction",
            ],
            check=True,
            capture_output=True,
        )
        seconds = time.perf_counter() - started
    return {
        "predict_seconds": seconds,
        "predict_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
    }


# What is measured, by the name of its setting.
KINDS = {"masks": of_masks, "predict": of_predict}


def main() -> None:
    """Measure every size and keep the table."""
    settings = given({"run": "runs/benchmark/stage3", "size": "128", "one": "", "kind": "masks"})
    run = Path(settings["run"])
    size = int(settings["size"])
    # The process of one size, which this command starts itself.
    if settings["one"]:
        slices, frames = (int(number) for number in settings["one"].split("x"))
        measure = KINDS[settings["kind"]]
        sys.stdout.write(json.dumps(measure(run, cine(size, slices, frames))))
        return
    rows: list[dict[str, float]] = []
    for slices, frames in itertools.product(SLICES, FRAMES):
        rows.append({"slices": slices, "frames": frames})
        for kind in KINDS:
            command = [
                sys.executable,
                "-W",
                "ignore",
                "-m",
                "experiments.segmentation.cost",
                f"run={run}",
                f"size={size}",
                f"one={slices}x{frames}",
                f"kind={kind}",
            ]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            rows[-1] |= json.loads(done.stdout)
        CONSOLE.print(rows[-1])
    (HERE / "cost.json").write_text(json.dumps({"size": size, "rows": rows}, indent=1))
    lines = [
        "| slices | frames | masks, seconds | a picture, ms | memory above the loaded model, MB "
        "| `cmrvlm.predict`, seconds | its whole memory, MB |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        picture_ms = 1000 * row["seconds"] / (row["slices"] * row["frames"])
        lines.append(
            f"| {row['slices']} | {row['frames']} | {row['seconds']:.2f} | {picture_ms:.1f} "
            f"| {row['above_loaded_mb']:.0f} | {row['predict_seconds']:.1f} "
            f"| {row['predict_mb']:.0f} |"
        )
    (HERE / "table_cost.md").write_text("\n".join(lines) + "\n")
    CONSOLE.print("\n".join(lines), markup=False)


if __name__ == "__main__":
    main()
