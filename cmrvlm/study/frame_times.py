"""Times of frames: those of the header of a NIfTI file, and whether they are those of a heart."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from cmrvlm.errors import CmrvlmError

log = logging.getLogger(__name__)

_TEMPORAL_UNIT = 0x38
_MS_OF_UNIT = {8: 1000.0, 16: 1.0, 24: 0.001}
# A cine shows one R-R interval, or most of it.
ONE_CYCLE_MS = (300.0, 2500.0)
# Distance of frames in a cine of several beats.
_REAL_TIME_MS = (10.0, 100.0)


def frame_times_of_header(header: Any, frames: int, path: Path) -> tuple[float, ...] | None:
    """Return the times of frames in ms, the first at 0, None where the header states none.

    Without a unit, the one is taken in which all frames together last one R-R interval. Programs
    write a distance of 1 where they know none.

    Args:
        header: Header of a file whose fourth axis is time.
        frames: Number of frames.
        path: The file.
    """
    if frames < 2:
        return None
    step = float(header["pixdim"][4])
    if not (math.isfinite(step) and step > 0):
        return None
    unit = int(header["xyzt_units"]) & _TEMPORAL_UNIT
    step_ms = _step_without_unit_ms(step, frames)
    if unit in _MS_OF_UNIT:
        stated_ms = step * _MS_OF_UNIT[unit]
        step_ms = stated_ms if _is_cine(stated_ms, frames) else None
    if step_ms is None:
        log.info("%s: frames %g apart make no heart beat, their times are unknown", path.name, step)
        return None
    return tuple(index * step_ms for index in range(frames))


def check_frame_times(times_ms: Sequence[float], field: str = "frame_times_ms") -> None:
    """Refuse times of frames that fall, repeat, or are those of no cine.

    Args:
        times_ms: T times in ms.
        field: Where they stand, for the error message.

    Raises:
        CmrvlmError: They are; a unit in which they would be right is named.
    """
    for earlier, later in pairwise(times_ms):
        if later <= earlier:
            raise CmrvlmError(
                f"the times do not rise: {later:g} follows {earlier:g}",
                field=field,
                remedy="Give the time of each frame after the trigger in ms, or null.",
            )
    step_ms = mean_step_ms(tuple(times_ms))
    if step_ms is None or _is_cine(step_ms, len(times_ms)):
        return
    remedy = "Give the time of each frame after the trigger in ms, or null."
    for unit, factor in (("seconds", 1000.0), ("microseconds", 0.001)):
        if _is_one_cycle(step_ms * factor, len(times_ms)):
            remedy = f"It looks like {unit}: multiply each time by {factor:g}."
    raise CmrvlmError(
        f"{len(times_ms)} frames {step_ms:g} ms apart make no heart beat",
        field=field,
        remedy=remedy,
    )


def _is_cine(step_ms: float, frames: int) -> bool:
    """Return whether frames so far apart show one R-R interval, or are those of real time."""
    least, most = _REAL_TIME_MS
    return _is_one_cycle(step_ms, frames) or least <= step_ms <= most


def _step_without_unit_ms(step: float, frames: int) -> float | None:
    """Return the distance of frames in ms in the unit that makes one cycle of them."""
    if step == 1.0:
        return None
    steps_ms = (step * factor for factor in _MS_OF_UNIT.values())
    return next((step_ms for step_ms in steps_ms if _is_one_cycle(step_ms, frames)), None)


def _is_one_cycle(step_ms: float, frames: int) -> bool:
    """Return whether frames so far apart last one R-R interval."""
    least, most = ONE_CYCLE_MS
    return least <= step_ms * frames <= most


def mean_step_ms(times_ms: tuple[float, ...] | None) -> float | None:
    """Return the mean distance of frames in ms, None where it is unknown."""
    if times_ms is None or len(times_ms) < 2:
        return None
    return (times_ms[-1] - times_ms[0]) / (len(times_ms) - 1)
