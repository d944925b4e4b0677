"""Predicted masks as one map of structures, and the way back to the grid and the values of the user's own files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cmrvlm.errors import CmrvlmError
from cmrvlm.quantification.volumes import NEIGHBOURS, phases_of_masks
from cmrvlm.study.structures import LAYERS, STRUCTURE_TABLE, chain_of
from cmrvlm.study.study import Series, Study
from cmrvlm.study.vocabulary import NOT_ANNOTATED, STRUCTURES
from cmrvlm.tasks.base import Answer
from cmrvlm.transforms.frames import frames_to_keep
from cmrvlm.transforms.geometry import resample_mask

FRAMES = ("all", "seen", "ed_es")


def with_empty_masks(study: Study) -> Study:
    """The study with masks in which nothing is annotated, as places for predictions."""
    series = {
        name: replace(
            one, mask=np.full(one.image.shape, NOT_ANNOTATED, dtype=np.uint8), phases={}, levels=()
        )
        for name, one in study.series.items()
    }
    return study.with_series(series)


def label_map(answers: Sequence[Answer], sequence: str) -> NDArray[np.uint8] | None:
    """Predicted structures (Z, T, H, W) of a sequence in canonical values, None when none was answered.

    Where structures overlap, the higher layer of `cmrvlm.study.structures` remains. A structure that is part of another
    one is limited to it where that one was asked for: scar to the myocardium, no-reflow to the scar.
    """
    found = {}
    for answer in answers:
        target = answer.instruction.case.mask
        if target is not None and target.sequence == sequence and answer.mask is not None:
            found[target.structure] = answer.mask
    if not found:
        return None
    result = np.zeros(next(iter(found.values())).shape, dtype=np.uint8)
    for structure in LAYERS:
        if structure.name not in found:
            continue
        if structure.within in found:
            found[structure.name] = found[structure.name] & found[structure.within]
        result[found[structure.name]] = structure.value
    return result


def to_native(
    labels: NDArray[np.uint8], model_study: Study, native: Study, sequence: str
) -> NDArray[np.uint8]:
    """Labels on the native grid; frames that the model did not see are 255 (not annotated).

    What lies outside the model's field of view is background, but 255 beside a structure that runs into its edge, in
    the plane or across it.
    """
    here, there = model_study.series[sequence], native.series[sequence]
    z, t, h, w = there.image.shape
    moved = resample_mask(labels, here.affine, there.affine, (z, h, w))
    outside = moved == NOT_ANNOTATED
    if outside.any():
        beside = ndimage.binary_dilation(
            (moved != STRUCTURES["background"]) & ~outside, NEIGHBOURS[:, None]
        )
        moved[outside & ~beside] = STRUCTURES["background"]
    result = np.full(there.image.shape, NOT_ANNOTATED, dtype=np.uint8)
    result[:, frames_to_keep(t, labels.shape[1], dict(there.phases))] = moved
    return result


def coded(labels: NDArray[np.uint8], values: Mapping[str, int] | None) -> NDArray[np.uint8]:
    """Labels with the values of another coding, such as that of the data set a mask is compared with.

    Args:
        labels: Canonical values; 255 (not annotated) stays.
        values: Structure to value; None keeps the canonical ones. A structure without a value has that of the structure
            that it is part of, as a scar that of the wall, and is background where there is none.
    """
    if values is None:
        return labels
    table = np.zeros(NOT_ANNOTATED + 1, dtype=np.uint8)
    table[NOT_ANNOTATED] = NOT_ANNOTATED
    for name in STRUCTURE_TABLE:
        given = [values[outer] for outer in chain_of(name) if outer in values]
        table[STRUCTURES[name]] = given[0] if given else 0
    table[STRUCTURES["background"]] = values.get("background", 0)
    return table[labels]


def check_coding(values: Mapping[str, Any] | None) -> None:
    """Refuse a coding of masks in which a structure is unknown, or a value not its own.

    Raises:
        CmrvlmError: It is so.
    """
    given = values or {}
    odd = [
        name
        for name, value in given.items()
        if name not in STRUCTURES or not isinstance(value, int) or not 0 < value < NOT_ANNOTATED
    ]
    if odd or len(set(given.values())) < len(given):
        raise CmrvlmError(
            f"no coding of masks: {dict(given)}",
            field="mask_values",
            remedy=f"Give each of {', '.join(STRUCTURES)} a value of its own, 1 to 254.",
        )


def frames_wanted(frames: object, native: Study) -> dict[str, NDArray[np.bool_]]:
    """(T,) of each series: the frames that masks are wanted of, whether the model sees them at first or not.

    Args:
        frames: `all`; `ed_es`, which are found among all; `seen` for no more than the model sees at a time; or numbers
            of frames of every cine, from 0. A series of one frame has its mask whatever is given.
        native: The study on its own grid.

    Raises:
        CmrvlmError: It is none of these, or a cine has no frame of that number.
    """
    lengths = {name: one.image.shape[1] for name, one in native.series.items()}
    if isinstance(frames, str) and frames in FRAMES:
        return {name: np.full(length, frames != "seen") for name, length in lengths.items()}
    if (
        not isinstance(frames, Sequence)
        or not frames
        or not all(type(one) is int for one in frames)
    ):
        raise CmrvlmError(
            f"no choice of frames: {frames}",
            field="frames",
            remedy=f"Use {', '.join(FRAMES)} or numbers such as [0,8].",
        )
    shortest = min((length for length in lengths.values() if length > 1), default=None)
    if shortest is not None and not 0 <= min(frames) <= max(frames) < shortest:
        raise CmrvlmError(
            f"frames are {list(frames)}, the shortest cine has {shortest}",
            field="frames",
            remedy=f"Give numbers from 0 to {shortest - 1}.",
        )
    return {
        name: np.isin(np.arange(length), frames) | (length == 1) for name, length in lengths.items()
    }


def shown_frames(count: int, seen: int, later: int) -> NDArray[np.bool_]:
    """(T,) frames of a cine that a model sees which sees so many, of the cine begun so many frames later."""
    shown = np.zeros(count, dtype=bool)
    shown[[(frame + later) % count for frame in frames_to_keep(count, seen, {})]] = True
    return shown


def at_ed_and_es(series: Series) -> NDArray[np.uint8]:
    """Labels of a series at the largest and the smallest left ventricle, 255 in other frames; all where it has none."""
    assert series.mask is not None
    phases = phases_of_masks(series)
    if not phases:
        return series.mask
    labels = np.full_like(series.mask, NOT_ANNOTATED)
    for frame in phases.values():
        labels[:, frame] = series.mask[:, frame]
    return labels


def turned(study: Study, frames: int) -> Study:
    """The study with every cine begun later in its cycle; times are left out, they would not ascend."""
    series = {
        name: replace(one, image=np.roll(one.image, -frames, axis=1), frame_times_ms=None)
        if one.image.shape[1] > 1
        else one
        for name, one in study.series.items()
    }
    return study.with_series(series)
