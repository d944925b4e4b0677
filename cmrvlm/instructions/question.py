"""Define what a model is asked: which images are shown, which region is meant, and the words."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class View:
    """Part of a study that a question shows: a whole series, or one frame or slice of it.

    Attributes:
        sequence: `sax`, `lax_4ch` or `lge`.
        frame: Frame index, None for all frames.
        slice: Slice index, None for all slices.
    """

    sequence: str
    frame: int | None = None
    slice: int | None = None

    @property
    def whole(self) -> bool:
        """True for a whole series."""
        return self.frame is None and self.slice is None


def whole_views(sequences: Collection[str]) -> tuple[View, ...]:
    """Return a view of the whole series of each sequence, in the given order."""
    return tuple(View(sequence) for sequence in sequences)


@dataclass(frozen=True)
class Region:
    """Structure to segment or to box, on one series and in some of its frames.

    Attributes:
        sequence: Series on which the mask lies.
        structure: Name of the structure.
        values: Canonical mask values that count as the structure.
        frames: Indices of the frames.
        phases: Phase of each frame, None where it is unknown.
        as_box: The answer is the structure's bounding box, not its mask.
    """

    sequence: str
    structure: str
    values: tuple[int, ...]
    frames: tuple[int, ...]
    phases: tuple[str | None, ...]
    as_box: bool = False


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question about one study. It holds nothing about the right answer.

    Attributes:
        study_id: Study that is asked about.
        task: Name of the task.
        language: `en` or `zh`.
        prompt: The question in words.
        views: Images that are shown; empty for a question about text alone.
        key: Name that tells this question from others of its task and is the same for all studies, such as `lvef`.
        region: Region that is asked for, None when the answer has no mask and no box.
        options: Choices that the prompt offers, in their order.
        allowed: All answers that a closed question allows, word for word; empty for an open question.
        outline: Headings that the answer has, in this order, each with its colon and the space before it.
        absent: Answer that says that the region is not there; empty for boxes and for questions without a region.
    """

    study_id: str
    task: str
    language: str
    prompt: str
    views: tuple[View, ...] = ()
    key: str = ""
    region: Region | None = None
    options: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    outline: tuple[str, ...] = ()
    absent: str = ""

    @property
    def whole_series(self) -> tuple[str, ...]:
        """Sequences that are shown whole."""
        return tuple(view.sequence for view in self.views if view.whole)

    @property
    def identity(self) -> tuple[str, str, str]:
        """Study, task and key, which tell a question from all others."""
        return self.study_id, self.task, self.key

    def words_for_mask(self, *, is_empty: bool) -> str:
        """Return the answer that fits a predicted mask. This is the only place that decides it.

        Args:
            is_empty: No voxel of the mask belongs to the structure.
        """
        return self.absent if is_empty else self.allowed[0]
