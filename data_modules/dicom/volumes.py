"""Read stacks as series: rescaled pixels, frames aligned by phase, affine from positions."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import BytesLengthException
from pydicom.pixels.utils import pixel_array
from scipy.ndimage import shift

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.frame_times import check_frame_times
from cmrvlm.study.study import Series
from data_modules.dicom.geometry import affine_of, aside_mm, in_plane_spacing_mm
from data_modules.dicom.image import Image
from data_modules.dicom.stacks import Stack, without_images

# pydicom and its decoders raise these on broken pixels.
_BROKEN_PIXELS = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


def series_of(stack: Stack, spacing_mm: Sequence[float] | None = None) -> tuple[Series, Stack]:
    """Read the pixels of a stack as a series with an image (Z, T, H, W).

    Args:
        stack: Images of each slice.
        spacing_mm: Distance of slices, rows and columns, used where the files state none.

    Returns:
        The series, and the stack without images whose pixels cannot be read, with a note where its
        times count as unknown.

    Raises:
        CmrvlmError: No image has readable pixels, or no spacing is known.
    """
    pixels, error = read_pixels(stack.images)
    if error is not None:
        readable = without_images(stack, {id(image) for image in stack.images} - pixels.keys())
        if readable is None:
            raise error
        stack = readable
    spacing_in_plane_mm = in_plane_spacing_mm(stack.first, spacing_mm)
    aside_pixels = aside_mm(stack.frames) / spacing_in_plane_mm
    slices = []
    for images, weights, beside in zip(
        stack.frames, stack.frame_weights(), aside_pixels, strict=True
    ):
        frames = np.stack([pixels[id(image)] for image in images])
        frames = np.einsum("tn,nhw->thw", weights, frames)
        if beside.any():
            frames = shift(frames, (0.0, *beside), order=1, mode="nearest")
        slices.append(frames)
    slice_positions_mm = None
    if stack.irregular:
        slice_positions_mm = tuple(stack.slice_positions_mm().tolist())
    times_ms, problem = frame_times_ms(stack)
    if problem:
        stack = replace(stack, notes=(*stack.notes, problem))
    series = Series(
        image=np.stack(slices),  # (Z, T, H, W)
        affine=affine_of(stack.frames, spacing_mm),
        frame_times_ms=times_ms,
        slice_places_mm=slice_positions_mm,
    )
    return series, stack


def read_pixels(
    images: Sequence[Image],
) -> tuple[dict[int, NDArray[np.float32]], CmrvlmError | None]:
    """Read grey values, each image rescaled by its own slope and intercept.

    Args:
        images: Images of one file or of several; each file is read once.

    Returns:
        `id` of an image to its grey values (H, W), and the error of the first file whose pixels
        cannot be read or are not finite; its images are missing.
    """
    by_file: dict[Path, list[Image]] = defaultdict(list)
    for image in images:
        by_file[image.path].append(image)
    pixels = {}
    first_error = None
    for path, images_of_file in by_file.items():
        try:
            stored = _stored_pixels(path, images_of_file[0].file_number)
            for image in images_of_file:
                pixels[id(image)] = _rescaled(stored, image)
        except CmrvlmError as error:
            first_error = first_error or error
    return pixels, first_error


def _stored_pixels(path: Path, file_number: int) -> NDArray[np.generic]:
    """Read the values of a file as they are stored, (H, W) or (frames, H, W).

    Raises:
        CmrvlmError: They cannot be decoded.
    """
    try:
        return pixel_array(pydicom.dcmread(path))
    except _BROKEN_PIXELS as error:
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
        frames = stored.reshape(-1, *image.shape)
        if image.frame >= len(frames):
            raise CmrvlmError("the file holds fewer frames", file=f"file {image.file_number}")
        stored = frames[image.frame]
    if stored.shape != image.shape:
        raise CmrvlmError("pixels have another size", file=f"file {image.file_number}")
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


def frame_times_ms(stack: Stack) -> tuple[tuple[float, ...] | None, str]:
    """Compute the time of each frame after the first, in the mean heart beat of the slices.

    Returns:
        T times in ms, None when the files do not state them or state those of no cine, which the
        readers of `study.json` refuse; and why in words, empty for nothing.
    """
    if stack.time_key != "trigger_time_ms":
        return None, ""
    whole = [images for images in stack.frames if len(images) == stack.phases]
    slice_times_ms = [[image.times["trigger_time_ms"] for image in images] for images in whole]
    mean_ms = np.mean(slice_times_ms, axis=0)  # (T,)
    times_ms = tuple((mean_ms - mean_ms[0]).tolist())
    try:
        check_frame_times(times_ms)
    except CmrvlmError as error:
        return None, f"times of frames count as unknown: {error.problem}"
    return times_ms, ""
