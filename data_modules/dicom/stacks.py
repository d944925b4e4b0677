"""Group images into stacks: slices by their position along the normal, frames by a time key."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.orientation import points_to_apex
from data_modules.dicom.acquisitions import acquisitions_of, usual_frames
from data_modules.dicom.geometry import (
    LPS_TO_RAS,
    SAME_POSITION_MM,
    aside_mm,
    heights_mm,
    is_uneven,
    position_along,
    repeat_distance_mm,
    stated_thickness_mm,
)
from data_modules.dicom.image import TIME_KEYS, Image, Vector
from data_modules.dicom.series import merged_series
from data_modules.dicom.time_units import in_milliseconds, unit_note
from data_modules.dicom.timing import (
    Keep,
    UnevenFrames,
    frame_weights,
    in_time,
    most_common,
    time_key_of,
    too_few_frames,
    with_trigger_times,
)


@dataclass(frozen=True)
class Stack:
    """Parallel slices with their frames.

    Attributes:
        frames: Images of each slice, in time; slices go from base to apex.
        time_key: Name of the time that frames are ordered by, empty for one frame.
        notes: Decisions in words.
        irregular: Slices are not equally far apart.
    """

    frames: tuple[tuple[Image, ...], ...]
    time_key: str
    notes: tuple[str, ...] = ()
    irregular: bool = False

    @property
    def first(self) -> Image:
        """The first image of the first slice."""
        return self.frames[0][0]

    @property
    def slices(self) -> int:
        """Number of slices."""
        return len(self.frames)

    @property
    def phases(self) -> int:
        """Number of frames that most of the slices have."""
        return most_common(len(images) for images in self.frames)

    @property
    def images(self) -> list[Image]:
        """All images of the stack."""
        return [image for images in self.frames for image in images]

    def slice_positions_mm(self) -> Vector:
        """Compute the distance (Z,) of each slice from the first along the normal."""
        return heights_mm(self.frames)

    def frame_weights(self) -> list[NDArray[np.float32]]:
        """Return for each slice how its frames make up those of the stack, (T, own frames)."""
        return frame_weights(self.frames, self.time_key, self.phases)

    def filled_frames(self) -> dict[int, list[int]]:
        """Return slice to the frames that it lacks and that are interpolated in time."""
        filled = {}
        for index, weights in enumerate(self.frame_weights()):
            frames = np.flatnonzero(weights.max(axis=1) < 1).tolist()
            if frames:
                filled[index] = frames
        return filled


@dataclass(frozen=True)
class Unstacked:
    """Images that make no stack.

    Attributes:
        file_numbers: Numbers of the files.
        reason: Reason in words, without a value of a header.
    """

    file_numbers: tuple[int, ...]
    reason: str


@dataclass(frozen=True)
class Stacks:
    """Stacks of a study.

    Attributes:
        stacks: The stacks.
        unstacked: Series that make none.
    """

    stacks: list[Stack]
    unstacked: list[Unstacked]


def stacks_of(
    images: Sequence[Image], keep: Keep = "later", uneven_frames: UnevenFrames = "resample"
) -> Stacks:
    """Group the images of a study into stacks.

    Args:
        images: Images of one visit.
        keep: Acquisition of a slice that is kept where there are several; an operator repeats a
            slice to replace it.
        uneven_frames: Treatment of a slice with other frames than most: `resample` in time, `drop`
            the slice, or `error` leaves the stack out.
    """
    stacks, unstacked = [], []
    images, factors = in_milliseconds(images)
    for group in merged_series(images):
        try:
            stack = _build_stack(group, keep, uneven_frames)
            notes = (*unit_note(group, factors), *stack.notes)
            stacks.append(replace(stack, notes=notes))
        except CmrvlmError as error:
            reason = f"{error.field}: {error.problem}"
            unstacked.append(Unstacked(_file_numbers(group), reason))
        # Nothing that a scanner or a tool wrote into one series may end the study.
        except Exception as error:  # noqa: BLE001
            reason = f"the series makes no stack ({type(error).__name__})"
            unstacked.append(Unstacked(_file_numbers(group), reason))
    return Stacks(stacks, unstacked)


def without_images(stack: Stack, lost: Collection[int]) -> Stack | None:
    """Return a stack without images that cannot be read; None where nothing is left.

    Args:
        stack: The stack.
        lost: `id` of each image that is lost.
    """
    frames = []
    notes = list(stack.notes)
    for index, images in enumerate(stack.frames):
        kept = tuple(image for image in images if id(image) not in lost)
        if len(kept) < len(images):
            notes.append(f"slice {index} lost {len(images) - len(kept)} images without pixels")
        if kept:
            frames.append(kept)
    if not frames:
        return None
    return _with_geometry_notes(Stack(tuple(frames), stack.time_key, tuple(notes)))


def _file_numbers(images: Sequence[Image]) -> tuple[int, ...]:
    return tuple(sorted({image.file_number for image in images}))


def _build_stack(images: Sequence[Image], keep: Keep, uneven_frames: UnevenFrames) -> Stack:
    """Build a stack of the images of a series or of a cine.

    Raises:
        CmrvlmError: An image has no position, frames cannot be ordered in time, or slices have
            other frames than others and `uneven_frames` is `error`.
    """
    slices = _slices_from_base(images)
    notes: list[str] = []
    usual_count = usual_frames(slices)
    kept_index = -1 if keep == "later" else 0
    kept = []
    for index, images_of_slice in enumerate(slices):
        acquisitions = acquisitions_of(images_of_slice, usual_count)
        if len(acquisitions) > 1:
            times = f"{len(acquisitions)} times"
            notes.append(f"slice {index} was acquired {times}, the {keep} one is kept")
        kept.append(acquisitions[kept_index])
    kept = _with_enough_frames(kept, uneven_frames, notes)

    time_key = ""
    if max(len(images_of_slice) for images_of_slice in kept) > 1:
        time_key = time_key_of(kept)
        notes.append(f"frames ordered by {time_key}")
    frames = tuple(in_time(images_of_slice, time_key) for images_of_slice in kept)
    if time_key and time_key != TIME_KEYS[0]:
        timed = with_trigger_times(frames)
        if timed is not None:
            frames, time_key = tuple(timed), TIME_KEYS[0]
            notes.append("trigger times that some images lack are those of the other slices")
    stack = Stack(frames, time_key)
    for index, filled in stack.filled_frames().items():
        own_count = len(frames[index])
        notes.append(
            f"slice {index} has {own_count} frames of {stack.phases}; "
            f"frames {filled} are interpolated in time"
        )
    return _with_geometry_notes(replace(stack, notes=tuple(notes)))


def _with_enough_frames(
    slices: list[list[Image]], uneven_frames: UnevenFrames, notes: list[str]
) -> list[list[Image]]:
    """Return the slices whose frames can make up those of the stack, and note which cannot.

    Raises:
        CmrvlmError: Slices have other frames than others and `uneven_frames` is `error`.
    """
    count = most_common(len(images) for images in slices)
    kept = []
    for index, images in enumerate(slices):
        is_uneven = len(images) != count
        if is_uneven and uneven_frames == "error":
            raise CmrvlmError(
                f"slice {index} has {len(images)} frames, most have {count}",
                file=f"file {images[0].file_number}",
                field="frames",
                remedy="Set ingest.uneven_frames to resample or drop.",
            )
        if is_uneven and (uneven_frames == "drop" or too_few_frames(len(images), count)):
            notes.append(f"slice {index} has {len(images)} frames of {count} and is left out")
        else:
            kept.append(images)
    return kept


def _with_geometry_notes(stack: Stack) -> Stack:
    """Return a stack with notes of slices that are unevenly far apart, aside, or of no thickness."""
    notes = list(stack.notes)
    for index, beside_mm in enumerate(aside_mm(stack.frames)):
        distance_mm = float(np.linalg.norm(beside_mm))
        if distance_mm > 0:
            notes.append(
                f"slice {index} lies {distance_mm:.1f} mm aside and is moved to the stack's grid"
            )
    if stack.slices == 1 and stated_thickness_mm(stack.first) is None:
        notes.append("the thickness of the single slice is unknown")
    gaps_mm = np.diff(stack.slice_positions_mm())
    irregular = is_uneven(gaps_mm)
    if irregular:
        notes.append(f"slices are {gaps_mm.round(2).tolist()} mm apart")
    return replace(stack, notes=tuple(notes), irregular=irregular)


def _slices_from_base(images: Sequence[Image]) -> list[list[Image]]:
    """Return the images of each slice, from base to apex."""
    normal = images[0].normal
    to_apex = normal if points_to_apex(LPS_TO_RAS @ normal) else -normal
    positions_mm = {id(image): position_along(image, to_apex) for image in images}
    slices: list[list[Image]] = []
    slice_mm = -np.inf
    for image in sorted(images, key=lambda image: positions_mm[id(image)]):
        position_mm = positions_mm[id(image)]
        if position_mm - slice_mm <= SAME_POSITION_MM:
            slices[-1].append(image)
        else:
            slices.append([image])
            slice_mm = position_mm
    return _with_repeats(slices, to_apex)


def _with_repeats(slices: list[list[Image]], to_apex: Vector) -> list[list[Image]]:
    """Return slices with those that were planned anew, a little off, as images of one slice.

    Args:
        slices: Images of each place, from base to apex.
        to_apex: (3,) normal along which they lie.
    """
    repeat_mm = repeat_distance_mm(slices)
    together: list[list[Image]] = []
    first_mm = -np.inf
    for images in slices:
        position_mm = position_along(images[0], to_apex)
        if position_mm - first_mm < repeat_mm and _share_times(together[-1], images):
            together[-1].extend(images)
        else:
            together.append(list(images))
            first_mm = position_mm
    return together


def _share_times(first: Sequence[Image], second: Sequence[Image]) -> bool:
    """Check that the times in the beat of two slices overlap; stills and unknown times do."""
    spans_ms = []
    for images in (first, second):
        times_ms = [image.times.get(TIME_KEYS[0]) for image in images]
        known_ms = [time for time in times_ms if time is not None]
        if len(known_ms) < 2:
            return True
        spans_ms.append((min(known_ms), max(known_ms)))
    return max(start for start, _ in spans_ms) <= min(end for _, end in spans_ms)
