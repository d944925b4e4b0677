"""Study and series: the form of images and labels everywhere in the project."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.vocabulary import NOT_ANNOTATED, STRUCTURES

# Options of a question are named by the letters A to H.
MOST_OPTIONS = 8
# A heart that is cropped out of black is a twentieth of the image and more.
_MOST_OF_ONE_VALUE = 0.999
_VOXELS_DRAWN = 200_000
FloatArray = NDArray[np.floating]
MaskArray = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Series:
    """An image series with its geometry and, where known, its masks.

    Attributes:
        image: Grey values, axes (Z, T, H, W); one slice is Z=1, no time is T=1.
        affine: (4, 4), maps voxel index (w, h, z, 1) to RAS world coordinates in mm, as a NIfTI
            affine does for an array with axes (x, y, z) = (w, h, z).
        frame_times_ms: Time of each of the T frames after the trigger in ms; None when unknown.
        mask: Canonical structure values (`cmrvlm.study.vocabulary.STRUCTURES`, 255 not annotated)
            on the same grid; None without a mask.
        phases: Frame index of `ed` and `es` where known.
        levels: `basal`, `mid`, `apical` or None for each of the Z slices; empty when unknown.
        slice_places_mm: Position of each of the Z slices along the stack, ascending, where they are
            not equally spaced; the affine then holds their mean distance. None where they are
            equally spaced.
        drawn: Structures that were looked for when the mask was drawn: one that the mask does not
            show is absent from the heart. Structures that are not listed may be there although the
            mask does not show them.
    """

    image: FloatArray
    affine: NDArray[np.float64]
    frame_times_ms: tuple[float, ...] | None = None
    mask: MaskArray | None = None
    phases: Mapping[str, int] = field(default_factory=dict)
    levels: tuple[str | None, ...] = ()
    slice_places_mm: tuple[float, ...] | None = None
    drawn: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._check_arrays()
        self._check_slices_and_frames()
        unknown = set(self.drawn) - set(STRUCTURES)
        if unknown:
            raise CmrvlmError(
                f"unknown structures {sorted(unknown)}",
                field="drawn",
                remedy=f"Known: {', '.join(STRUCTURES)}.",
            )
        frames = self.image.shape[1]
        for phase, frame in self.phases.items():
            if not 0 <= frame < frames:
                raise CmrvlmError(
                    f"phase {phase} is frame {frame}, the series has {frames}", field="phases"
                )

    def _check_arrays(self) -> None:
        """Refuse arrays whose shapes do not fit, and numbers that are not finite."""
        if self.image.ndim != 4:
            raise CmrvlmError(
                f"image has {self.image.ndim} axes, (Z, T, H, W) are needed", field="image"
            )
        if self.mask is not None and self.mask.shape != self.image.shape:
            raise CmrvlmError(
                f"mask {self.mask.shape} and image {self.image.shape} differ in shape", field="mask"
            )
        if self.affine.shape != (4, 4):
            raise CmrvlmError(
                f"affine has shape {self.affine.shape}, (4, 4) is needed", field="affine"
            )
        for name in ("affine", "frame_times_ms", "slice_places_mm"):
            numbers = getattr(self, name)
            if numbers is None:
                continue
            if not np.isfinite(np.asarray(numbers, dtype=np.float64)).all():
                raise CmrvlmError(
                    "a number in it is not finite", field=name, remedy="Give numbers, or null."
                )

    def _check_slices_and_frames(self) -> None:
        """Refuse levels, times and positions that do not fit the slices and frames."""
        slices = self.image.shape[0]
        frames = self.image.shape[1]
        times = self.frame_times_ms
        places = self.slice_places_mm
        if self.levels and len(self.levels) != slices:
            raise CmrvlmError(f"{len(self.levels)} levels for {slices} slices", field="levels")
        if times is not None and len(times) != frames:
            raise CmrvlmError(
                f"{len(times)} times for {frames} frames",
                field="frame_times_ms",
                remedy="Give one for each frame, or null.",
            )
        if places is None:
            return
        ascending = list(places) == sorted(set(places))
        if len(places) != slices or not ascending:
            raise CmrvlmError(
                f"{len(places)} places for {slices} slices, or not ascending",
                field="slice_places_mm",
                remedy="Give one for each slice.",
            )

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres along (Z, H, W) in mm, from the affine."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)  # (w, h, z)
        return float(lengths[2]), float(lengths[1]), float(lengths[0])

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in ml: |det| of the affine's 3x3 part, divided by 1000."""
        return float(abs(np.linalg.det(self.affine[:3, :3])) / 1000.0)

    @property
    def slice_volumes_ml(self) -> NDArray[np.float64]:
        """Volume of a voxel in each slice in ml, (Z,).

        A slice reaches half way to its neighbours; the first and the last reach as far outwards as
        inwards.
        """
        count = self.image.shape[0]
        if self.slice_places_mm is None or count < 2:
            return np.full(count, self.voxel_volume_ml)
        gaps = np.diff(self.slice_places_mm)
        heights_mm = (np.append(gaps[:1], gaps) + np.append(gaps, gaps[-1:])) / 2
        return np.asarray(heights_mm * self.voxel_volume_ml / self.spacing_mm[0])

    def known_frames(self) -> tuple[int, ...]:
        """Return the frames with at least one annotated voxel, if only of background."""
        if self.mask is None:
            return ()
        annotated = (self.mask != NOT_ANNOTATED).any(axis=(0, 2, 3))  # (T,)
        return tuple(np.flatnonzero(annotated).tolist())

    def annotated_frames(self) -> tuple[int, ...]:
        """Return the frames in which at least one voxel is annotated as a structure."""
        if self.mask is None:
            return ()
        structure = (self.mask != NOT_ANNOTATED) & (self.mask > 0)  # (Z, T, H, W)
        return tuple(np.flatnonzero(structure.any(axis=(0, 2, 3))).tolist())


@dataclass(frozen=True)
class UserQuestion:
    """A question that comes with the data.

    Attributes:
        category: `structure`, `function`, `lge` or `other`.
        language: `en` or `zh`.
        prompt: Text of the question.
        answer: Right answer; for a closed question one of the options.
        options: Choices of a closed question; empty for an open one.
        sequences: Sequences that must be shown for it to be asked; empty when any is enough.
    """

    category: str
    language: str
    prompt: str
    answer: str
    options: tuple[str, ...] = ()
    sequences: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.options)) != len(self.options) or len(self.options) > MOST_OPTIONS:
            raise CmrvlmError(
                f"'{self.prompt}' has options twice, or more than {MOST_OPTIONS}",
                field="questions",
                remedy="Give each option once.",
            )
        if self.options and self.answer not in self.options:
            raise CmrvlmError(
                f"the answer '{self.answer}' is none of the options",
                field="questions",
                remedy="Write the answer exactly as its option.",
            )


@dataclass(frozen=True)
class StudyLabels:
    """Labels of a study. A value that is absent or None is unknown, never normal.

    Attributes:
        diseases: Codes from `cmrvlm.study.vocabulary.DISEASES`; None when unknown, as an empty set
            is: a heart without disease has the code `NOR`.
        findings: Code from `cmrvlm.study.vocabulary.FINDINGS` to abnormal (True), normal (False) or
            not stated (None).
        measurements: Name with unit (`lvedv_ml`, `lvef_percent`, ...) to value.
        patterns: Descriptions as codes, for example `lge_pattern: subendocardial`.
        report: Language to section to text.
        captions: Language to sequence to text.
        boxes_mm: Structure to (min corner, max corner) in world mm at ED: x0, y0, z0, x1, y1, z1.
        demographics: `age_years`, `sex` (`m`, `f`), `height_cm`, `weight_kg` where known.
        follow_up: `months` of follow-up and `event` (1 a major adverse cardiac event at its end, 0
            none); empty when unknown.
        questions: Questions that come with the data.
    """

    diseases: frozenset[str] | None = None
    findings: Mapping[str, bool | None] = field(default_factory=dict)
    measurements: Mapping[str, float] = field(default_factory=dict)
    patterns: Mapping[str, str] = field(default_factory=dict)
    report: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    captions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    boxes_mm: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    demographics: Mapping[str, float | str] = field(default_factory=dict)
    follow_up: Mapping[str, float] = field(default_factory=dict)
    questions: tuple[UserQuestion, ...] = ()

    def __post_init__(self) -> None:
        if not self.diseases:
            object.__setattr__(self, "diseases", None)
        for numbers in (self.measurements, self.demographics, self.follow_up):
            for name, value in numbers.items():
                if isinstance(value, float) and not math.isfinite(value):
                    raise CmrvlmError(
                        f"{value} is not finite",
                        field=name,
                        remedy="Leave it out when it is unknown.",
                    )


@dataclass(frozen=True)
class Study:
    """A patient visit: up to three series by sequence. Absent sequences are not in the mapping.

    Attributes:
        study_id: Unique id of the visit.
        patient_id: Id of the patient; splits never divide it.
        series: Sequence name (`sax`, `lax_4ch`, `lge`) to series.
        labels: Labels, as far as they are known.
        synthetic: True for phantoms, so that every table and figure can say so.
    """

    study_id: str
    patient_id: str
    series: Mapping[str, Series]
    labels: StudyLabels = field(default_factory=StudyLabels)
    synthetic: bool = False

    def with_series(self, series: Mapping[str, Series]) -> Study:
        """Return the same study with other series."""
        return replace(self, series=dict(series))


def check_images(study: Study) -> None:
    """Refuse images that show nothing.

    Raises:
        CmrvlmError: An image has NaN or infinity in it, or the same grey value in all but a
            thousandth of it; study and series are named.
    """
    for name, series in study.series.items():
        # NaN and infinity anywhere in the image show in its minimum or maximum.
        low = float(series.image.min())
        high = float(series.image.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise CmrvlmError(
                f"the image of study {study.study_id} holds NaN or infinity",
                field=name,
                remedy="Leave the series out.",
            )
        if low == high:
            raise CmrvlmError(
                f"the image of study {study.study_id} is empty: every voxel is {low:g}",
                field=name,
                remedy="Leave the series out.",
            )
        share = _share_of_one_value(series.image)
        if share > _MOST_OF_ONE_VALUE:
            raise CmrvlmError(
                f"the image of study {study.study_id} is empty: {share:.2%} of its voxels have one "
                "grey value",
                field=name,
                remedy="Leave the series out.",
            )


def _share_of_one_value(image: FloatArray) -> float:
    """Return the share of the commonest grey value among voxels drawn evenly from an image."""
    step = max(1, image.size // _VOXELS_DRAWN)
    _, counts = np.unique(image.reshape(-1)[::step], return_counts=True)
    return float(counts.max() / counts.sum())
