"""Read stacks as series: rescaled pixels, frames aligned by phase, affine from positions."""

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
from data_modules.dicom.image import Image, Vector
from data_modules.dicom.stacks import LPS_TO_RAS, Stack


def aligned_frames(count: int, target_count: int) -> list[int]:
    """Return the frame of a slice that is nearest in phase to each frame of a heart beat.

    Args:
        count: Frames that the slice has.
        target_count: Frames that the beat is divided into.

    Returns:
        `target_count` frame indices.
    """
    if count == target_count:
        return list(range(count))
    phases = np.arange(target_count) / target_count
    nearest = np.rint(phases * count).astype(int)
    # After the last frame comes the first one of the next beat.
    return (nearest % count).tolist()


def series_of(stack: Stack, spacing_mm: Sequence[float] | None = None) -> Series:
    """Read the pixels of a stack as a series with an image (Z, T, H, W).

    Args:
        stack: Images of each slice.
        spacing_mm: Distance of slices, rows and columns, used where the files state none.

    Raises:
        CmrvlmError: A file has no readable pixels, or no spacing is known.
    """
    pixels = read_pixels(stack.images)
    slices = []
    for images in stack.frames:
        frames = []
        for index in aligned_frames(len(images), stack.phases):
            frames.append(pixels[id(images[index])])
        slices.append(np.stack(frames))  # (T, H, W)
    slice_positions_mm = None
    if stack.irregular:
        slice_positions_mm = tuple(stack.slice_positions_mm().tolist())
    return Series(
        image=np.stack(slices),  # (Z, T, H, W)
        affine=affine_of(stack, spacing_mm),
        frame_times_ms=frame_times_ms(stack),
        slice_places_mm=slice_positions_mm,
    )


def read_pixels(images: Sequence[Image]) -> dict[int, NDArray[np.float32]]:
    """Read grey values, each image rescaled by its own slope and intercept.

    Args:
        images: Images of one file or of several; each file is read once.

    Returns:
        `id` of an image to its grey values (H, W).

    Raises:
        CmrvlmError: A file has no readable pixels, or its values are not finite.
    """
    by_file: dict[Path, list[Image]] = defaultdict(list)
    for image in images:
        by_file[image.path].append(image)
    pixels = {}
    for path, images_of_file in by_file.items():
        stored = _stored_pixels(path, images_of_file[0].file_number)
        for image in images_of_file:
            pixels[id(image)] = _rescaled(stored, image)
    return pixels


def _stored_pixels(path: Path, file_number: int) -> NDArray[np.generic]:
    """Read the values of a file as they are stored, (H, W) or (frames, H, W).

    Raises:
        CmrvlmError: They cannot be decoded.
    """
    try:
        return pixel_array(pydicom.dcmread(path))
    # pydicom's decoders raise these on broken pixels.
    except (ValueError, RuntimeError, AttributeError) as error:
        raise CmrvlmError(
            f"pixels cannot be read ({type(error).__name__})",
            file=f"file {file_number}",
            remedy="Leave the file out, or install a decoder for it.",
        ) from error


def _rescaled(stored: NDArray[np.generic], image: Image) -> NDArray[np.float32]:
    """Return the grey values (H, W) of an image.

    Args:
        stored: Stored values of its file, (H, W) or (frames, H, W).
        image: The image.

    Raises:
        CmrvlmError: The values are not finite.
    """
    if image.frame is not None:
        # One frame alone is decoded without a frame axis.
        stored = stored.reshape(-1, *image.shape)[image.frame]
    slope = np.float32(image.slope)
    intercept = np.float32(image.intercept)
    grey = stored.astype(np.float32) * slope + intercept
    if not np.isfinite(grey).all():
        raise CmrvlmError(
            "pixels hold NaN or infinity",
            file=f"file {image.file_number}",
            field="RescaleSlope",
            remedy="Leave the file out.",
        )
    return grey


def affine_of(stack: Stack, spacing_mm: Sequence[float] | None = None) -> NDArray[np.float64]:
    """Compute the affine (4, 4) from voxel (w, h, z) to RAS in mm.

    The distance of slices is that of their positions, whatever the headers state.

    Args:
        stack: Images of each slice.
        spacing_mm: Distance of slices, rows and columns, used where the files state none.

    Raises:
        CmrvlmError: Neither the files nor `spacing_mm` say how far apart pixels are.
    """
    first = stack.first
    row_mm, column_mm = _in_plane_spacing_mm(first, spacing_mm)
    affine = np.eye(4)
    affine[:3, 0] = first.row_direction * column_mm
    affine[:3, 1] = first.column_direction * row_mm
    affine[:3, 2] = _slice_step_mm(stack, spacing_mm)
    if first.position_mm is not None:
        affine[:3, 3] = first.position_mm
    # DICOM states directions and positions in LPS.
    affine[:3] = LPS_TO_RAS @ affine[:3]
    return affine


def _in_plane_spacing_mm(image: Image, spacing_mm: Sequence[float] | None) -> tuple[float, float]:
    """Return the distance of rows and of columns.

    Raises:
        CmrvlmError: Neither the file nor `spacing_mm` states it.
    """
    if image.spacing_mm:
        return image.spacing_mm
    if spacing_mm is None:
        raise CmrvlmError(
            "pixels have no spacing",
            file=f"file {image.file_number}",
            field="PixelSpacing",
            remedy="Give spacing_mm=[slices,rows,columns].",
        )
    return spacing_mm[1], spacing_mm[2]


def _slice_step_mm(stack: Stack, spacing_mm: Sequence[float] | None) -> Vector:
    """Return the vector (3,) in LPS from a slice to the next."""
    first = stack.first
    if stack.slices > 1:
        last = stack.frames[-1][0]
        assert first.position_mm is not None
        assert last.position_mm is not None
        return np.asarray((last.position_mm - first.position_mm) / (stack.slices - 1))
    # A single slice is as thick as what it stands for.
    stated_mm = first.facts["stated_gap_mm"] or first.facts["thickness_mm"]
    if stated_mm:
        return np.asarray(first.normal * stated_mm)
    if spacing_mm:
        return np.asarray(first.normal * spacing_mm[0])
    return first.normal


def frame_times_ms(stack: Stack) -> tuple[float, ...] | None:
    """Compute the time of each frame after the trigger, in the mean heart beat of the slices.

    Returns:
        T times in ms, None when the files do not state them.
    """
    if stack.time_key != "trigger_time_ms":
        return None
    times_ms = []
    for images in stack.frames:
        indices = aligned_frames(len(images), stack.phases)
        aligned = [images[index] for index in indices]
        times_ms.append([image.times["trigger_time_ms"] for image in aligned])
    mean_ms = np.mean(times_ms, axis=0)  # (T,)
    return tuple(float(value) for value in mean_ms)
