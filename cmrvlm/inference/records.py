"""Define what a user gets back: frozen records, with units in the names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class StudyAnswer:
    """Answer to a question about a study.

    Attributes:
        question: The question.
        text: The answer in words.
        sequence: Series on which `mask` lies, None without a mask.
        mask: (Z, T, H, W) voxels of the structure that was asked for, on the series' own grid in the layout of
            `cmrvlm.study.orientation`; None when the question wants no mask.
        box_mm: Corners (x0, y0, z0, x1, y1, z1) of the mask's bounding box in world coordinates; None without a voxel.
        probabilities: Code of a disease to its probability.
        measurements: Name with unit, such as `lvef_percent`, to the value that the read-out gives.
        not_assessed: Sequence to the reason why nothing is said of it.
    """

    question: str
    text: str
    sequence: str | None = None
    mask: NDArray[np.bool_] | None = None
    box_mm: tuple[float, ...] | None = None
    probabilities: Mapping[str, float] = field(default_factory=dict)
    measurements: Mapping[str, float] = field(default_factory=dict)
    not_assessed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Segmentation:
    """Predicted masks of a study.

    Attributes:
        label_maps: Sequence to structure values (Z, T, H, W) on the series' own grid, 255 in frames that were not
            asked for; see `cmrvlm.study.vocabulary.STRUCTURES`.
        affines: Sequence to the (4, 4) affine of its label map.
        not_assessed: Sequence to the reason why nothing is said of it.
    """

    label_maps: Mapping[str, NDArray[np.uint8]]
    affines: Mapping[str, NDArray[np.float64]]
    not_assessed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyMeasurements:
    """Numbers of a study with where they come from.

    Attributes:
        from_masks: Volumes, ejection fractions and wall thickness counted in the short-axis masks, by name with unit;
            `not_computable` gives a reason for each that is missing. Empty without short-axis masks.
        from_lge_masks: The same for the scar. Empty without late enhancement masks.
        from_read_out: Numbers that the read-out gives, by name with unit.
        not_assessed: Sequence to the reason why nothing is said of it.
    """

    from_masks: Mapping[str, Any] = field(default_factory=dict)
    from_lge_masks: Mapping[str, Any] = field(default_factory=dict)
    from_read_out: Mapping[str, float] = field(default_factory=dict)
    not_assessed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyReport:
    """Report on a study.

    Attributes:
        text: The whole report.
        sections: Section to text; empty when the text has no sections.
        disease: Diagnosis in words.
        probabilities: Code of a disease to its probability.
        language: `en` or `zh`.
        truncated: The text was cut at the limit of new tokens.
        not_assessed: Sequence to the reason why nothing is said of it.
    """

    text: str
    sections: Mapping[str, str]
    disease: str
    probabilities: Mapping[str, float]
    language: str
    truncated: bool = False
    not_assessed: Mapping[str, str] = field(default_factory=dict)
