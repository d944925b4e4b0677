"""Our model: trained for a given time by the project's own command, and its label maps from what it answers."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cmrvlm.inference.answering import answer_questions
from cmrvlm.inference.label_maps import label_map
from cmrvlm.runs.run_folder import TrainedRun
from cmrvlm.study.study import Study
from cmrvlm.study.vocabulary import NOT_ANNOTATED
from cmrvlm.tasks.segmentation import SegmentTask
from experiments.commands import logged, train_anew
from experiments.segmentation.scores import LabelMap

_TIMED = (15, 60)  # steps of two short runs; what they differ by is the time of a step


def timed(overrides: Sequence[str], folder: Path) -> tuple[float, float]:
    """Seconds that a training command needs for itself and for a step, from two short runs; once for each folder."""
    path = folder / "seconds.json"
    if not path.is_file():
        took = []
        for steps in _TIMED:
            started = time.monotonic()
            train_anew(*overrides, f"out={folder / str(steps)}", f"trainer.max_steps={steps}")
            took.append(time.monotonic() - started)
        each = (took[1] - took[0]) / (_TIMED[1] - _TIMED[0])
        if each <= 0:
            sys.exit(
                f"{_TIMED[1]} steps took no longer than {_TIMED[0]}: leave the machine to this command alone"
            )
        path.write_text(json.dumps([took[1] - _TIMED[1] * each, each]))
    start, each = json.loads(path.read_text())
    return float(start), float(each)


def train(
    overrides: Sequence[str], out: Path, minutes: float, timing: Path
) -> tuple[list[tuple[float, float]], float]:
    """Train for as many steps as fit into the minutes with all that the command does around them.

    Returns:
        Minutes and loss of the masks, for the learning curve; and the minutes that the command took.
    """
    start, each = timed(overrides, timing)
    steps = max(1, int((60 * minutes - start) / each))
    started = time.monotonic()
    train_anew(*overrides, f"out={out}", f"trainer.max_steps={steps}")
    took = (time.monotonic() - started) / 60
    dice, entropy = (logged(out, f"train/loss_{name}") for name in ("mask_dice", "mask_ce"))
    return [(took * step / steps, one + entropy[step]) for step, one in dice.items()], took


def label(trained: TrainedRun, study: Study, sequence: str, structures: Sequence[str]) -> LabelMap:
    """Canonical values (Z, T, H, W); frames that were not asked are 255."""
    series = study.series[sequence]
    frames = series.annotated_frames()
    questions = []
    for structure in structures:
        task = SegmentTask(structure, sequence)
        questions.append(task.make_question(study, task.case_on([sequence], frames), "en"))
    batch = trained.collator.questions([(study.with_series({sequence: series}), questions)])
    answers = answer_questions(trained.model, trained.collator, batch, 40)
    labels = label_map(answers, sequence)
    result = np.full(series.image.shape, NOT_ANNOTATED, dtype=np.uint8)
    result[:, list(frames)] = 0 if labels is None else labels
    return result
