"""Images to stacks: slices by their place along the normal, frames by a time key that is really one."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.orientation import points_to_apex
from data_modules.dicom.scan import TIME_KEYS, Image, Vector

_SAME_DIRECTION = 0.01  # rad; breath holds are planned alike, scanners round to six digits
_SAME_PLACE_MM = 0.1
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
Keep = Literal["later", "first"]


@dataclass(frozen=True)
class Stack:
    """Parallel slices with their frames.

    Attributes:
        frames: Images of each slice, in time; slices go from base to apex.
        time_key: What frames are ordered by, empty for one frame.
        notes: Decisions in words.
        irregular: Slices are not equally far apart.
    """

    frames: tuple[tuple[Image, ...], ...]
    time_key: str
    notes: tuple[str, ...] = field(default=())
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
        """Number of frames that the stack has: that of most of its slices."""
        return Counter(len(one) for one in self.frames).most_common(1)[0][0]

    @property
    def images(self) -> list[Image]:
        """All its images."""
        return [image for one in self.frames for image in one]

    def heights_mm(self) -> Vector:
        """Place of each slice along the stack, from the first."""
        normal = self.first.normal
        places = np.array([_place(one[0], normal) for one in self.frames])
        return np.abs(places - places[0])


def _place(image: Image, normal: Vector) -> float:
    if image.position_mm is None:
        raise CmrvlmError(
            "the image does not say where it lies",
            file=f"file {image.number}",
            field="ImagePositionPatient",
            remedy="Give spacing_mm to place its slices.",
        )
    return float(image.position_mm @ normal)


def stacks_of(images: Sequence[Image], keep: Keep = "later") -> list[Stack]:
    """All stacks of a study.

    Args:
        images: Images of one visit.
        keep: Which of several acquisitions of one slice is kept; an operator repeats a slice to replace it.
    """
    groups: list[list[Image]] = []
    for image in images:
        own = next(
            (one for one in groups if _alike(one[0], image) and one[0].series == image.series), None
        )
        if own is None:
            groups.append([image])
        else:
            own.append(image)
    merged: list[list[Image]] = []
    for group in groups:
        own = next((one for one in merged if _one_stack(one, group)), None)
        if own is None:
            merged.append(list(group))
        else:
            own += group
    return [_stack(group, keep) for group in merged]


def _alike(one: Image, other: Image) -> bool:
    """Same direction, size and kind: what images of one stack share."""
    parallel = all(
        np.linalg.norm(a - b) < _SAME_DIRECTION
        for a, b in ((one.row, other.row), (one.column, other.column))
    )
    return (
        parallel
        and one.shape == other.shape
        and one.spacing_mm == other.spacing_mm
        and _kind(one) == _kind(other)
    )


def _kind(image: Image) -> tuple[str, ...]:
    """Components of the image type that make another picture: magnitude, phase, phase-sensitive."""
    return tuple(
        sorted({"M", "P", "R", "I", "PHASE", "PS", "PSIR", "MAGNITUDE"} & set(image.image_type))
    )


def _one_stack(group: Sequence[Image], other: Sequence[Image]) -> bool:
    """Whether series go together: alike and cines; what a file itself keeps apart as stacks stays apart."""
    if group[0].series.rpartition("/")[0] == other[0].series.rpartition("/")[0]:
        return False
    if (
        not _alike(group[0], other[0])
        or group[0].facts["description"] != other[0].facts["description"]
    ):
        return False
    normal = group[0].normal
    counts = [
        Counter(round(_place(image, normal) / _SAME_PLACE_MM) for image in one)
        for one in (group, other)
    ]
    return (
        max(counts[0].values()) > 1 and max(counts[1].values()) > 1
    )  # stills are series of their own


def _stack(images: Sequence[Image], keep: Keep) -> Stack:
    normal = images[0].normal
    direction = 1.0 if points_to_apex(LPS_TO_RAS @ normal) else -1.0
    order = sorted(images, key=lambda image: direction * _place(image, normal))
    slices: list[list[Image]] = []
    for image in order:
        if slices and abs(_place(image, normal) - _place(slices[-1][0], normal)) <= _SAME_PLACE_MM:
            slices[-1].append(image)
        else:
            slices.append([image])
    notes: list[str] = []
    usual = Counter(len(one) for one in slices).most_common(1)[0][0]
    kept = [_without_repeats(one, index, usual, keep, notes) for index, one in enumerate(slices)]
    key = "" if max(len(one) for one in kept) == 1 else _time_key(kept)
    if key:
        notes.append(f"frames ordered by {key}")
    frames = tuple(tuple(sorted(one, key=lambda image: image.times.get(key, 0.0))) for one in kept)
    stack = Stack(frames, key, tuple(notes))
    gaps = np.diff(stack.heights_mm())
    uneven = len(gaps) > 1 and bool(np.ptp(gaps) > max(0.5, 0.02 * float(np.median(gaps))))
    counts = {len(one) for one in frames}
    if len(counts) > 1:
        notes.append(f"slices have {sorted(counts)} frames; they are aligned by phase")
    if uneven:
        notes.append(f"slices are {gaps.round(2).tolist()} mm apart")
    return replace(stack, notes=tuple(notes), irregular=uneven)


def _without_repeats(
    images: list[Image], index: int, usual: int, keep: Keep, notes: list[str]
) -> list[Image]:
    """One acquisition of a slice that was acquired more than once.

    A slice was, when it has more images than most slices, or several at one trigger time. Acquisitions are told apart
    by series, then by number, then by time, whichever divides the images into blocks of a size.
    """
    triggers = [image.times.get("trigger_time_ms") for image in images]
    doubled = None not in triggers and len(set(triggers)) <= len(images) // 2
    if len(images) <= usual and not doubled:
        return images
    parts: tuple[Callable[[Image], object], ...] = (
        lambda one: one.series,
        lambda one: one.acquisition[0],
        lambda one: one.acquisition[1],
    )
    for part in parts:
        blocks: dict[object, list[Image]] = defaultdict(list)
        for image in images:
            blocks[part(image)].append(image)
        sizes = sorted(len(one) for one in blocks.values())
        if len(sizes) > 1 and sizes[0] >= 0.8 * sizes[-1]:
            break
    else:
        return images
    ranked = sorted(
        blocks.values(),
        key=lambda one: (one[0].acquisition[1], one[0].acquisition[0], one[0].number),
    )
    notes.append(f"slice {index} was acquired {len(blocks)} times, the {keep} one is kept")
    return ranked[-1] if keep == "later" else ranked[0]


def _time_key(slices: Sequence[Sequence[Image]]) -> str:
    """The best key that every image has and that differs between all frames of a slice.

    A key that is the same for all frames of a slice, such as a TemporalPositionIdentifier of 1 throughout, is none.

    Raises:
        CmrvlmError: There is none.
    """
    for key in TIME_KEYS:
        values = [[image.times.get(key) for image in one] for one in slices]
        if all(None not in own and len(set(own)) == len(own) for own in values):
            return key
    raise CmrvlmError(
        "frames of a slice cannot be told apart in time",
        file=f"file {slices[0][0].number}",
        field="TriggerTime",
        remedy="Leave the series out.",
    )
