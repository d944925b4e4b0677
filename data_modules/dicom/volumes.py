"""Stacks to series: pixels with their rescaling, frames aligned by phase, affine from positions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels.utils import pixel_array

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.study import Series
from data_modules.dicom.scan import Image
from data_modules.dicom.stacks import LPS_TO_RAS, Stack


def frame_index(count: int, wanted: int) -> list[int]:
    """For each of `wanted` frames spread over the heart beat the nearest of `count` frames, by phase."""
    if count == wanted:
        return list(range(count))
    phases = np.arange(wanted) / wanted
    return [int(index) % count for index in np.rint(phases * count)]


def series_of(stack: Stack, spacing_mm: Sequence[float] | None = None) -> Series:
    """Read a stack.

    Args:
        stack: What to read.
        spacing_mm: Distance of slices, rows and columns, used where the files state none.

    Raises:
        CmrvlmError: A file has no readable pixels, or no spacing is known.
    """
    pixels = read_pixels(stack.images)
    wanted = stack.phases
    image = np.stack(
        [
            np.stack([pixels[id(one[k])] for k in frame_index(len(one), wanted)])
            for one in stack.frames
        ]
    )
    places = tuple(stack.heights_mm().tolist()) if stack.irregular else None
    return Series(
        image=image,
        affine=affine_of(stack, spacing_mm),
        frame_times_ms=frame_times_ms(stack),
        slice_places_mm=places,
    )  # (Z, T, H, W)


def read_pixels(images: Sequence[Image]) -> dict[int, NDArray[np.float32]]:
    """Grey values (H, W) by the image's `id`, rescaled once, each with its own slope and intercept."""
    by_file: dict[Path, list[Image]] = defaultdict(list)
    for image in images:
        by_file[image.path].append(image)
    found = {}
    for path, own in by_file.items():
        try:
            stored = pixel_array(pydicom.dcmread(path))
        except (
            ValueError,
            RuntimeError,
            AttributeError,
        ) as error:  # what pydicom's decoders raise on broken pixels
            raise CmrvlmError(
                f"pixels cannot be read ({type(error).__name__})",
                file=f"file {own[0].number}",
                remedy="Leave the file out, or install a decoder for it.",
            ) from error
        for image in own:
            frame = stored if image.frame is None else stored.reshape(-1, *image.shape)[image.frame]
            grey = frame.astype(np.float32) * np.float32(image.slope) + np.float32(image.intercept)
            if not np.isfinite(grey).all():
                raise CmrvlmError(
                    "pixels hold NaN or infinity",
                    file=f"file {image.number}",
                    field="RescaleSlope",
                    remedy="Leave the file out.",
                )
            found[id(image)] = grey
    return found


def affine_of(stack: Stack, spacing_mm: Sequence[float] | None = None) -> NDArray[np.float64]:
    """Affine (4, 4) from voxel (w, h, z) to RAS in mm; the distance of slices is that of their positions.

    Raises:
        CmrvlmError: Neither the files nor `spacing_mm` say how far apart pixels are.
    """
    first = stack.first
    in_plane = first.spacing_mm or (None if spacing_mm is None else (spacing_mm[1], spacing_mm[2]))
    if in_plane is None:
        raise CmrvlmError(
            "pixels have no spacing",
            file=f"file {first.number}",
            field="PixelSpacing",
            remedy="Give spacing_mm=[slices,rows,columns].",
        )
    if stack.slices > 1:
        last = stack.frames[-1][0]
        assert first.position_mm is not None
        assert last.position_mm is not None
        step = (last.position_mm - first.position_mm) / (stack.slices - 1)
    else:
        facts = first.facts
        step = first.normal * (
            facts["stated_gap_mm"] or facts["thickness_mm"] or (spacing_mm or [1.0])[0]
        )
    affine = np.eye(4)
    affine[:3, 0] = first.row * in_plane[1]
    affine[:3, 1] = first.column * in_plane[0]
    affine[:3, 2] = step
    affine[:3, 3] = 0.0 if first.position_mm is None else first.position_mm
    affine[:3] = LPS_TO_RAS @ affine[:3]
    return affine


def frame_times_ms(stack: Stack) -> tuple[float, ...] | None:
    """Time of each frame after the trigger, in the mean heart beat of the slices; None when files do not tell it."""
    if stack.time_key != "trigger_time_ms":
        return None
    wanted = stack.phases
    times = [
        [one[k].times["trigger_time_ms"] for k in frame_index(len(one), wanted)]
        for one in stack.frames
    ]
    return tuple(float(value) for value in np.mean(times, axis=0))
