"""The table of what each measurement, finding and pattern needs to be shown, and what a study shows.

Nothing is taught, asked or stated that the shown series cannot show: function needs a cine that moves,
a volume needs a stack, enhancement needs late enhancement.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from cmrvlm.study.measurements import FEWEST_SLICES, MEASUREMENTS, NEEDS_STACK
from cmrvlm.study.study import Series, Study, StudyLabels
from cmrvlm.study.vocabulary import CINE, FINDING_SEQUENCES

Value = TypeVar("Value")
# End-diastole and end-systole: what is measured at one of them needs both to tell them apart.
_TWO_PHASES = 2
# Findings that a single frame shows as well as a cycle does.
_STATIC_FINDINGS = (
    "lv_lge",
    "rv_lge",
    "pericardial_enhancement",
    "fatty_infiltration",
    "thrombus",
    "pericardial_effusion",
    "pleural_effusion",
)
INSUFFICIENT_SLICES = "insufficient slices"


@dataclass(frozen=True)
class Need:
    """What must be shown for something to be seen.

    Attributes:
        sequences: Any of these sequences.
        slices: Slices that it has at least.
        frames: Frames in which it differs.
    """

    sequences: tuple[str, ...]
    slices: int = 1
    frames: int = 1


def _need_of_finding(code: str) -> Need:
    """Return what a finding needs; one that judges a measurement needs what that does."""
    measured = [name for name, one in MEASUREMENTS.items() if one.finding == code]
    if measured:
        return _need_of_measurement(measured[0])
    frames = 1 if code in _STATIC_FINDINGS else _TWO_PHASES
    return Need(FINDING_SEQUENCES[code], frames=frames)


def _need_of_measurement(name: str) -> Need:
    """Return what a measurement needs."""
    slices = FEWEST_SLICES if name in NEEDS_STACK else 1
    return Need(MEASUREMENTS[name].sequences, slices, _TWO_PHASES)


NEEDS: dict[str, Need] = {
    **{name: _need_of_measurement(name) for name in MEASUREMENTS},
    **{code: _need_of_finding(code) for code in FINDING_SEQUENCES},
    # Counted in masks of the stack, as the volumes are.
    **dict.fromkeys(
        ("lv_mass_g", "lvsv_ml", "rvsv_ml"), Need(("sax",), FEWEST_SLICES, _TWO_PHASES)
    ),
    "motion_pattern": Need(CINE, frames=_TWO_PHASES),
    "other_pattern": Need(CINE),
    "lge_pattern": Need(("lge",)),
    "lge_region": Need(("lge",)),
}


@dataclass(frozen=True)
class Evidence:
    """What is shown of a study.

    Attributes:
        sizes: Sequence to its slices and to the frames in which it differs.
    """

    sizes: Mapping[str, tuple[int, int]]

    @classmethod
    def of(cls, study: Study, shown: Collection[str] | None = None) -> Evidence:
        """Return what the series of a study show.

        Args:
            study: The study.
            shown: Sequences that are shown; None shows all.
        """
        return cls(
            {
                name: (series.image.shape[0], _moving_frames(series))
                for name, series in study.series.items()
                if shown is None or name in shown
            }
        )

    def shows(self, name: str) -> bool:
        """Return whether a measurement, finding or pattern can be seen; unknown names can."""
        return self.why_not(name) is None

    def why_not(self, name: str) -> str | None:
        """Return why a measurement, finding or pattern cannot be seen, else None."""
        # What is indexed to the body's surface needs what the value itself needs.
        need = NEEDS.get(name.removesuffix("_per_m2"))
        if need is None:
            return None
        sizes = [self.sizes[sequence] for sequence in need.sequences if sequence in self.sizes]
        if not sizes:
            return f"{' or '.join(need.sequences)} is not there"
        if all(slices < need.slices for slices, _ in sizes):
            return INSUFFICIENT_SLICES
        if all(frames < need.frames for _, frames in sizes):
            return "a single frame does not show it"
        return None


def _moving_frames(series: Series) -> int:
    """Return the number of frames, 1 where all frames are the same image."""
    image = series.image
    moves = any(
        not np.array_equal(image[:, 0], image[:, frame]) for frame in range(1, image.shape[1])
    )
    return image.shape[1] if moves else 1


def visible_labels(study: Study, shown: Collection[str] | None = None) -> StudyLabels:
    """Return the labels of a study without what its shown series cannot show.

    Args:
        study: Study with its labels.
        shown: Sequences that are shown; None shows all.
    """
    evidence = Evidence.of(study, shown)
    labels = study.labels

    def seen(values: Mapping[str, Value]) -> dict[str, Value]:
        return {name: value for name, value in values.items() if evidence.shows(name)}

    return replace(
        labels,
        findings=seen(labels.findings),
        measurements=seen(labels.measurements),
        patterns=seen(labels.patterns),
    )
