"""Combine predicted masks into label maps, and bring them back to the grid and the values of the user's files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cmrvlm.errors import CmrvlmError
from cmrvlm.instructions.answer import Answer
from cmrvlm.quantification.volumes import NEIGHBOURS, phases_of_masks
from cmrvlm.study.structures import LAYERS, STRUCTURE_TABLE, chain_of
from cmrvlm.study.study import Series, Study
from cmrvlm.study.vocabulary import NOT_ANNOTATED, STRUCTURES
from cmrvlm.transforms.frames import frames_to_keep
from cmrvlm.transforms.geometry import resample_mask


def label_map(answers: Iterable[Answer], sequence: str) -> NDArray[np.uint8] | None:
    """Return predicted structures (Z, T, H, W) of a sequence, None when no answer has a mask on it.

    Where structures overlap, the higher layer of `cmrvlm.study.structures` remains. A structure that is
    part of another one is limited to it where that one was asked for: scar to the myocardium, no-reflow to
    the scar.

    Args:
        answers: Answers about one study.
        sequence: Series on which the masks lie.
    """
    masks: dict[str, NDArray[np.bool_]] = {}
    for answer in answers:
        region = answer.question.region
        if region is not None and region.sequence == sequence and answer.mask is not None:
            masks[region.structure] = answer.mask
    if not masks:
        return None
    labels = np.zeros(next(iter(masks.values())).shape, dtype=np.uint8)
    for structure in LAYERS:
        if structure.name not in masks:
            continue
        if structure.within in masks:
            masks[structure.name] = masks[structure.name] & masks[structure.within]
        labels[masks[structure.name]] = structure.value
    return labels


def to_native(
    labels: NDArray[np.uint8], model_study: Study, native: Study, sequence: str
) -> NDArray[np.uint8]:
    """Return a label map (Z, T, H, W) on the native grid; frames that the model did not see are 255.

    Voxels outside the model's field of view are background, but 255 beside a structure that runs into its
    edge, in the plane or across it.

    Args:
        labels: (Z, F, H, W) on the model's grid.
        model_study: Study on the model's grid.
        native: Study on its own grid.
        sequence: Series of the label map.
    """
    model_series = model_study.series[sequence]
    native_series = native.series[sequence]
    z, t, h, w = native_series.image.shape
    moved = resample_mask(labels, model_series.affine, native_series.affine, (z, h, w))
    outside = moved == NOT_ANNOTATED
    if outside.any():
        foreground = (moved != STRUCTURES["background"]) & ~outside
        beside = ndimage.binary_dilation(foreground, NEIGHBOURS[:, None])
        moved[outside & ~beside] = STRUCTURES["background"]
    result = np.full(native_series.image.shape, NOT_ANNOTATED, dtype=np.uint8)
    result[:, frames_to_keep(t, labels.shape[1], dict(native_series.phases))] = moved
    return result


def recoded(labels: NDArray[np.uint8], values: Mapping[str, int] | None) -> NDArray[np.uint8]:
    """Return labels with the values of another coding, such as that of a data set to compare with.

    Args:
        labels: (Z, T, H, W) canonical values; 255 (not annotated) stays.
        values: Structure to value; None keeps the canonical ones. A structure without a value has that of
            the structure that it is part of, as a scar that of the wall, and is background without one.

    Returns:
        (Z, T, H, W).
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
    """Refuse a coding of masks with an unknown structure, a value out of range, or a value used twice.

    Raises:
        CmrvlmError: There is one.
    """
    if values is None:
        return
    unknown = set(values) - set(STRUCTURES)
    in_range = all(isinstance(value, int) and 0 < value < 255 for value in values.values())
    if unknown or not in_range or len(set(values.values())) < len(values):
        raise CmrvlmError(
            f"no coding of masks: {dict(values)}",
            field="mask_values",
            remedy=f"Give each of {', '.join(STRUCTURES)} a value of its own, 1 to 254.",
        )


def shown_frames(count: int, seen: int, shift: int) -> NDArray[np.bool_]:
    """Return (T,), true for the frames that a model sees of a cine that begins some frames later.

    Args:
        count: Frames of the cine.
        seen: Frames that the model sees at a time.
        shift: Number of frames by which the cine begins later.
    """
    shown = np.zeros(count, dtype=bool)
    shown[[(frame + shift) % count for frame in frames_to_keep(count, seen, {})]] = True
    return shown


def at_ed_and_es(series: Series) -> NDArray[np.uint8]:
    """Return the label map (Z, T, H, W) at the largest and the smallest left ventricle, 255 in other frames.

    A series without a left ventricle keeps all frames.
    """
    assert series.mask is not None
    phases = phases_of_masks(series)
    if not phases:
        return series.mask
    labels = np.full_like(series.mask, NOT_ANNOTATED)
    for frame in phases.values():
        labels[:, frame] = series.mask[:, frame]
    return labels


def begun_later(study: Study, frames: int) -> Study:
    """Return the study with every cine begun later in its cycle; times are left out, they would not ascend.

    Args:
        study: On its own grid.
        frames: Number of frames by which cines begin later.
    """
    shifted = {}
    for name, series in study.series.items():
        if series.image.shape[1] > 1:
            image = np.roll(series.image, -frames, axis=1)
            series = replace(series, image=image, frame_times_ms=None)
        shifted[name] = series
    return study.with_series(shifted)
