"""Train our model for a given time by the project's command, and make its label maps."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cmrvlm.inference.cmrvlm import CMRVLM
from cmrvlm.inference.label_maps import label_map
from cmrvlm.study.study import Study
from cmrvlm.study.vocabulary import NOT_ANNOTATED
from cmrvlm.tasks.segmentation import SegmentTask
from experiments.commands import logged, train_anew
from experiments.segmentation.scores import LabelMap

# Steps of two short runs; what they differ by is the time of a step.
_TIMED = (15, 60)


def timed(overrides: Sequence[str], folder: Path) -> tuple[float, float]:
    """Time a training command by two short runs, once for each folder.

    Args:
        overrides: Overrides of `cmrvlm.train`.
        folder: Folder that keeps the result.

    Returns:
        Seconds that the command needs for itself, and for each step.
    """
    path = folder / "seconds.json"
    if not path.is_file():
        took = []
        for steps in _TIMED:
            started = time.monotonic()
            train_anew(*overrides, f"out={folder / str(steps)}", f"trainer.max_steps={steps}")
            took.append(time.monotonic() - started)
        seconds_a_step = (took[1] - took[0]) / (_TIMED[1] - _TIMED[0])
        if seconds_a_step <= 0:
            sys.exit(
                f"{_TIMED[1]} steps took no longer than {_TIMED[0]}: "
                "leave the machine to this command alone"
            )
        overhead = took[1] - _TIMED[1] * seconds_a_step
        path.write_text(json.dumps([overhead, seconds_a_step]))
    overhead, seconds_a_step = json.loads(path.read_text())
    return float(overhead), float(seconds_a_step)


def train(
    overrides: Sequence[str], out: Path, minutes: float, timing: Path
) -> tuple[list[tuple[float, float]], float]:
    """Train for as many steps as fit into the minutes, with the overhead of the command.

    Returns:
        Minutes and loss of the masks, for the learning curve; and the minutes that the command
        took.
    """
    overhead, seconds_a_step = timed(overrides, timing)
    steps = max(1, int((60 * minutes - overhead) / seconds_a_step))
    started = time.monotonic()
    train_anew(*overrides, f"out={out}", f"trainer.max_steps={steps}")
    took = (time.monotonic() - started) / 60
    dice_losses = logged(out, "train/loss_mask_dice")
    cross_entropies = logged(out, "train/loss_mask_ce")
    curve: list[tuple[float, float]] = []
    for step, dice_loss in dice_losses.items():
        curve.append((took * step / steps, dice_loss + cross_entropies[step]))
    return curve, took


def label(model: CMRVLM, study: Study, sequence: str, structures: Sequence[str]) -> LabelMap:
    """Return a label map (Z, T, H, W) of a study; frames that were not asked are 255."""
    series = study.series[sequence]
    frames = series.annotated_frames()
    questions = []
    for structure in structures:
        task = SegmentTask(structure, sequence)
        questions.append(task.make_question(study, task.case_on([sequence], frames), "en"))
    answers = model.answer(study.with_series({sequence: series}), questions)
    labels = label_map(answers, sequence)
    result = np.full(series.image.shape, NOT_ANNOTATED, dtype=np.uint8)
    if labels is None:
        labels = np.zeros_like(result[:, list(frames)])
    result[:, list(frames)] = labels
    return result
