"""Draw masks over images: of one prediction, and predicted above true ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cmrvlm.instructions.answer import AnswerWithTruth
from cmrvlm.instructions.batch import Batch
from cmrvlm.instructions.question import Region
from cmrvlm.quantification.volumes import phases_of_masks
from cmrvlm.study.drawing import legend, overlay, save, structures_in
from cmrvlm.study.study import Series
from cmrvlm.study.vocabulary import NOT_ANNOTATED

_MOST_SLICES = 6


@dataclass
class _Column:
    """Answers about one frame of one series, which the panel shows in one column.

    Attributes:
        batch: Batch that holds the study.
        owner: Index of the study in the batch.
        frame_index: Position of the frame among the frames of the mask targets.
        answers: Structure to the answer about it.
    """

    batch: Batch
    owner: int
    frame_index: int
    answers: dict[str, AnswerWithTruth] = field(default_factory=dict)


def mask_panel(
    answered: Sequence[tuple[Batch, Sequence[AnswerWithTruth]]], path: Path, columns: int = 8
) -> None:
    """Draw predicted above true structures, one column for each series and frame.

    Args:
        answered: Batches with the answers to their instructions.
        path: File of the picture; nothing is written when no answer is about a mask.
        columns: Largest number of columns.
    """
    shown = _columns_of(answered)[:columns]
    if not shown:
        return
    figure = Figure(figsize=(1.9 * len(shown), 4.2))
    axes = figure.subplots(2, len(shown), squeeze=False)
    for index, column in enumerate(shown):
        first = next(iter(column.answers.values()))
        target = _target_of(first)
        assert first.truth_mask is not None
        middle = first.truth_mask.shape[0] // 2

        image = _image_of(column.batch, column.owner, target.sequence)
        picture = image[middle, target.frames[column.frame_index]]
        predicted = _predicted_masks(column.answers)
        truth = {name: _true_mask(answer) for name, answer in column.answers.items()}
        phase = (target.phases[column.frame_index] or "").upper()

        title = f"{first.instruction.study_id} {phase}"
        overlay(axes[0, index], picture, _planes(predicted, middle, column.frame_index), title)
        overlay(axes[1, index], picture, _planes(truth, middle, column.frame_index), "truth")
    legend(figure, {name for column in shown for name in column.answers})
    save(figure, path)


def _columns_of(answered: Sequence[tuple[Batch, Sequence[AnswerWithTruth]]]) -> list[_Column]:
    """Return the columns of all answers about masks that have a truth, in their order."""
    columns: dict[tuple[int, int, str, int], _Column] = {}
    for number, (batch, answers) in enumerate(answered):
        for row, answer in enumerate(answers):
            target = answer.instruction.region
            if target is None or target.as_box or answer.truth_mask is None:
                continue
            owner = int(batch.owners[row])
            for index in range(len(target.frames)):
                # Masks of two series do not lie on one image.
                key = (number, owner, target.sequence, index)
                column = columns.setdefault(key, _Column(batch, owner, index))
                column.answers[target.structure] = answer
    return list(columns.values())


def _target_of(answer: AnswerWithTruth) -> Region:
    """Return the mask target of an answer that has one."""
    target = answer.instruction.region
    assert target is not None
    return target


def _predicted_masks(answers: Mapping[str, AnswerWithTruth]) -> dict[str, NDArray[np.bool_]]:
    """Return structure to predicted mask (Z, F, H, W), where the answer holds one."""
    return {name: answer.mask for name, answer in answers.items() if answer.mask is not None}


def _true_mask(answer: AnswerWithTruth) -> NDArray[np.bool_]:
    """Return where the truth shows the structure asked for, (Z, F, H, W)."""
    assert answer.truth_mask is not None
    annotated = answer.truth_mask != NOT_ANNOTATED
    return np.isin(answer.truth_mask, _target_of(answer).values) & annotated


def _planes(
    masks: Mapping[str, NDArray[np.bool_]], slice_index: int, frame_index: int
) -> dict[str, NDArray[np.bool_]]:
    """Return one plane (H, W) of each mask (Z, F, H, W)."""
    return {name: mask[slice_index, frame_index] for name, mask in masks.items()}


def _image_of(batch: Batch, owner: int, sequence: str) -> NDArray[np.floating]:
    """Return the image (Z, T, H, W) of a study in a batch.

    Raises:
        KeyError: The study has no such sequence.
    """
    for stack in batch.media.get(sequence, []):
        rows = (stack.owners == owner).nonzero()
        if len(rows):
            return stack.images[int(rows[0])][0].float().cpu().numpy()  # (Z, T, H, W)
    raise KeyError(f"study {owner} of the batch has no {sequence}")


def study_panel(series: Series, path: Path) -> None:
    """Draw slices at the largest and the smallest left ventricle, or of the first frame with masks.

    Args:
        series: Series with a mask (Z, T, H, W).
        path: File to write.
    """
    assert series.mask is not None
    phases = phases_of_masks(series)
    if phases:
        frames = {"largest LV, ": phases["ed"], "smallest LV, ": phases["es"]}
    else:
        frames = {"": series.known_frames()[0]}
    columns = min(_MOST_SLICES, len(series.mask))
    slices = np.linspace(0, len(series.mask) - 1, columns).round().astype(int)
    figure = Figure(figsize=(1.9 * columns, 2.1 * len(frames)))
    axes = figure.subplots(len(frames), columns, squeeze=False)
    drawn: set[str] = set()
    for row, (name, frame) in enumerate(frames.items()):
        for column, index in enumerate(slices):
            picture = np.asarray(series.image[index, frame], dtype=np.float32)
            masks = structures_in(series.mask[index, frame])
            drawn |= set(masks)
            overlay(axes[row, column], picture, masks, f"{name}slice {index}")
    legend(figure, drawn)
    save(figure, path)
