"""What a user states about image files whose headers do not say it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cmrvlm.errors import CmrvlmError

ThirdAxis = Literal["z", "t"]


@dataclass(frozen=True)
class ReadingSettings:
    """Facts about NIfTI files that their headers lack.

    Attributes:
        third_axis: What the third axis of a cine with three axes is, slices (`z`) or frames (`t`);
            None where files tell it themselves.
        spacing_mm: Distance of slices, rows and columns in mm, for files that state none; None where
            all state it.
    """

    third_axis: ThirdAxis | None = None
    spacing_mm: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if self.third_axis not in (None, "z", "t"):
            raise CmrvlmError(
                f"unknown axis '{self.third_axis}'", field="third_axis", remedy="Use z or t."
            )
        if self.spacing_mm is None:
            return
        numbers = [value for value in self.spacing_mm if isinstance(value, (int, float))]
        positive = all(value > 0 and math.isfinite(value) for value in numbers)
        if len(numbers) != 3 or len(self.spacing_mm) != 3 or not positive:
            raise CmrvlmError(
                f"no distances of voxels: {list(self.spacing_mm)}",
                field="spacing_mm",
                remedy="Give the distance of slices, rows and columns in mm, "
                "such as [10,1.25,1.25].",
            )


NOTHING_STATED = ReadingSettings()
