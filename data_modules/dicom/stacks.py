"""Group images into stacks: slices by their position along the normal, frames by a time key."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.orientation import points_to_apex
from data_modules.dicom.image import TIME_KEYS, Image, Vector

# In rad; breath holds are planned alike, scanners round to six digits.
_SAME_DIRECTION = 0.01
_SAME_POSITION_MM = 0.1
# DICOM positions are in LPS, affines in RAS.
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
# Components of the image type that make another picture: magnitude, phase, phase-sensitive.
_PICTURE_TYPES = {"M", "P", "R", "I", "PHASE", "PS", "PSIR", "MAGNITUDE"}
# Acquisitions of one slice have as many images as each other; a part of one has fewer.
_LEAST_BLOCK_RATIO = 0.8
# Slices are irregular when their distances differ by more than both of these.
_UNEVEN_MM = 0.5
_UNEVEN_RATIO = 0.02
Keep = Literal["later", "first"]


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
        return _most_common(len(images) for images in self.frames)

    @property
    def images(self) -> list[Image]:
        """All images of the stack."""
        return [image for images in self.frames for image in images]

    def slice_positions_mm(self) -> Vector:
        """Compute the distance (Z,) of each slice from the first along the normal."""
        normal = self.first.normal
        positions = []
        for images in self.frames:
            positions.append(_position_along(images[0], normal))
        return np.abs(np.array(positions) - positions[0])


def stacks_of(images: Sequence[Image], keep: Keep = "later") -> list[Stack]:
    """Group the images of a study into stacks.

    Args:
        images: Images of one visit.
        keep: Acquisition of a slice that is kept where there are several; an operator repeats a
            slice to replace it.

    Raises:
        CmrvlmError: An image has no position, or frames cannot be ordered in time.
    """
    series: list[list[Image]] = []
    for image in images:
        for group in series:
            if _is_alike(group[0], image) and group[0].series == image.series:
                group.append(image)
                break
        else:
            series.append([image])

    # A cine may be stored as one series for each slice.
    merged: list[list[Image]] = []
    for group in series:
        for stack in merged:
            if _belong_together(stack, group):
                stack += group
                break
        else:
            merged.append(group)
    return [_build_stack(group, keep) for group in merged]


def _position_along(image: Image, normal: Vector) -> float:
    """Return the position of an image in mm along a normal (3,).

    Raises:
        CmrvlmError: The image has no position.
    """
    if image.position_mm is None:
        raise CmrvlmError(
            "the image does not say where it lies",
            file=f"file {image.file_number}",
            field="ImagePositionPatient",
            remedy="Give spacing_mm to place its slices.",
        )
    return float(image.position_mm @ normal)


def _is_alike(first: Image, second: Image) -> bool:
    """Check that two images have the direction, size and picture type that a stack shares."""
    return (
        _same_direction(first.row_direction, second.row_direction)
        and _same_direction(first.column_direction, second.column_direction)
        and first.shape == second.shape
        and first.spacing_mm == second.spacing_mm
        and _picture_types(first) == _picture_types(second)
    )


def _same_direction(first: Vector, second: Vector) -> bool:
    """Check that two unit vectors (3,) point in one direction."""
    return bool(np.linalg.norm(first - second) < _SAME_DIRECTION)


def _picture_types(image: Image) -> set[str]:
    return _PICTURE_TYPES & set(image.image_type)


def _belong_together(first: Sequence[Image], second: Sequence[Image]) -> bool:
    """Check that two series are slices of one cine.

    They are alike and both have several frames at a position. Stacks that a file itself keeps
    apart stay apart.
    """
    image = first[0]
    other = second[0]
    if _series_without_stack(image) == _series_without_stack(other):
        return False
    if not _is_alike(image, other):
        return False
    if image.facts["description"] != other.facts["description"]:
        return False
    # Stills are series of their own.
    first_count = _most_at_a_position(first, image.normal)
    second_count = _most_at_a_position(second, image.normal)
    return min(first_count, second_count) > 1


def _series_without_stack(image: Image) -> str:
    return image.series.rpartition("/")[0]


def _most_at_a_position(images: Sequence[Image], normal: Vector) -> int:
    """Return the largest number of images at one position along a normal (3,)."""
    counts: Counter[int] = Counter()
    for image in images:
        position_mm = _position_along(image, normal)
        counts[round(position_mm / _SAME_POSITION_MM)] += 1
    return max(counts.values())


def _build_stack(images: Sequence[Image], keep: Keep) -> Stack:
    """Build a stack of the images of a series or of a cine.

    Raises:
        CmrvlmError: An image has no position, or frames cannot be ordered in time.
    """
    slices = _slices_from_base(images)
    notes: list[str] = []
    usual_count = _most_common(len(images_of_slice) for images_of_slice in slices)
    kept_index = -1 if keep == "later" else 0
    kept = []
    for index, images_of_slice in enumerate(slices):
        acquisitions = _acquisitions(images_of_slice, usual_count)
        if len(acquisitions) > 1:
            times = f"{len(acquisitions)} times"
            notes.append(f"slice {index} was acquired {times}, the {keep} one is kept")
        kept.append(acquisitions[kept_index])

    time_key = ""
    if max(len(images_of_slice) for images_of_slice in kept) > 1:
        time_key = _time_key(kept)
        notes.append(f"frames ordered by {time_key}")
    frames = tuple(_in_time(images_of_slice, time_key) for images_of_slice in kept)
    frame_counts = sorted({len(images_of_slice) for images_of_slice in frames})
    if len(frame_counts) > 1:
        notes.append(f"slices have {frame_counts} frames; they are aligned by phase")

    stack = Stack(frames, time_key)
    gaps_mm = np.diff(stack.slice_positions_mm())
    irregular = _is_uneven(gaps_mm)
    if irregular:
        notes.append(f"slices are {gaps_mm.round(2).tolist()} mm apart")
    return replace(stack, notes=tuple(notes), irregular=irregular)


def _slices_from_base(images: Sequence[Image]) -> list[list[Image]]:
    """Return the images of each slice, from base to apex."""
    normal = images[0].normal
    to_apex = normal if points_to_apex(LPS_TO_RAS @ normal) else -normal
    positions_mm = {id(image): _position_along(image, to_apex) for image in images}
    slices: list[list[Image]] = []
    slice_mm = -np.inf
    for image in sorted(images, key=lambda image: positions_mm[id(image)]):
        position_mm = positions_mm[id(image)]
        if position_mm - slice_mm <= _SAME_POSITION_MM:
            slices[-1].append(image)
        else:
            slices.append([image])
            slice_mm = position_mm
    return slices


def _acquisitions(images: list[Image], usual_count: int) -> list[list[Image]]:
    """Divide the images of a slice into its acquisitions, in the order of their time.

    A slice was acquired more than once when it has more images than most slices, or several at one
    trigger time. Acquisitions are told apart by series, then by number, then by time, whichever
    divides the images into blocks of about one size.

    Args:
        images: Images of one slice.
        usual_count: Number of images that most slices have.
    """
    if len(images) <= usual_count and not _shares_trigger_times(images):
        return [images]
    for key in (_series, _acquisition_number, _acquisition_time):
        blocks = _blocks(images, key)
        sizes = sorted(len(block) for block in blocks)
        if len(sizes) > 1 and sizes[0] >= _LEAST_BLOCK_RATIO * sizes[-1]:
            return sorted(blocks, key=lambda block: _acquisition_order(block[0]))
    return [images]


def _shares_trigger_times(images: Sequence[Image]) -> bool:
    """Check that there are two images or more at a trigger time, on average."""
    times = [image.times.get("trigger_time_ms") for image in images]
    if None in times:
        return False
    return len(set(times)) <= len(images) // 2


def _series(image: Image) -> str:
    return image.series


def _acquisition_number(image: Image) -> float:
    return image.acquisition[0]


def _acquisition_time(image: Image) -> float:
    return image.acquisition[1]


def _acquisition_order(image: Image) -> tuple[float, float, int]:
    return _acquisition_time(image), _acquisition_number(image), image.file_number


def _blocks(images: Sequence[Image], key: Callable[[Image], object]) -> list[list[Image]]:
    """Return images in blocks that have one value of a key."""
    blocks: dict[object, list[Image]] = defaultdict(list)
    for image in images:
        blocks[key(image)].append(image)
    return list(blocks.values())


def _time_key(slices: Sequence[Sequence[Image]]) -> str:
    """Return the best time key that every image has and that differs between frames of a slice.

    A key that is the same for all frames of a slice, such as a TemporalPositionIdentifier of 1
    throughout, does not order them.

    Raises:
        CmrvlmError: There is no such key.
    """
    for key in TIME_KEYS:
        if all(_orders(key, images) for images in slices):
            return key
    raise CmrvlmError(
        "frames of a slice cannot be told apart in time",
        file=f"file {slices[0][0].file_number}",
        field="TriggerTime",
        remedy="Leave the series out.",
    )


def _orders(key: str, images: Sequence[Image]) -> bool:
    """Check that a time key differs between all frames of a slice."""
    values = [image.times.get(key) for image in images]
    if None in values:
        return False
    return len(set(values)) == len(values)


def _in_time(images: Sequence[Image], time_key: str) -> tuple[Image, ...]:
    """Return images in the order of a time key; without a key they stay as they are."""
    in_time = sorted(images, key=lambda image: image.times.get(time_key, 0.0))
    return tuple(in_time)


def _is_uneven(gaps_mm: Vector) -> bool:
    """Check whether distances (Z - 1,) of slices differ by more than rounding explains."""
    if len(gaps_mm) < 2:
        return False
    tolerance_mm = max(_UNEVEN_MM, _UNEVEN_RATIO * float(np.median(gaps_mm)))
    return bool(np.ptp(gaps_mm) > tolerance_mm)


def _most_common(counts: Iterable[int]) -> int:
    """Return the number that occurs most often, of several the first."""
    return Counter(counts).most_common(1)[0][0]
