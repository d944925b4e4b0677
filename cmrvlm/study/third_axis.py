"""Whether the third axis of a file with three axes holds slices or frames.

It is told by the user, the header or the affine. Where these do not tell it, or the planes contradict
them, the file is refused: frames that are taken for slices make a heart that does not exist.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.geometry_checks import SLICE_DISTANCE_MM, makes_no_heart
from cmrvlm.study.reading_settings import ThirdAxis

# NIFTI_INTENT_TIME_SERIES of the NIfTI-1 standard.
_TIME_SERIES = 2001
# A short-axis stack is no longer than this.
_LONGEST_STACK_MM = 200.0
# Correlation of the first and the last of the planes. Frames of a cine end where they began: 0.98 and
# more in human and phantom cines. Slices do not: at most 0.5 in 59 stacks of ACDC and EMIDEC.
_LIKE_FRAMES = 0.9
_FEWEST_PLANES = 4


def third_axis_of(
    volume: NDArray[Any], affine: NDArray[np.float64], header: Any, frames: int | None, path: Path
) -> ThirdAxis:
    """Return what the third axis of a cine in a file with three axes is.

    Args:
        volume: (x, y, n) grey values.
        affine: (4, 4) in mm, with the header's spacing; the third column may be anything.
        header: Header of the file.
        frames: Number of frames that `study.json` states; None where it states none.
        path: The file.

    Returns:
        `z` for slices, `t` for frames.

    Raises:
        CmrvlmError: Neither is certain.
    """
    count = volume.shape[2]
    if count == 1:
        return "z"
    if frames is not None and frames in (1, count):
        return "z" if frames == 1 else "t"
    told = _by_header(header) or _by_affine(count, affine)
    if told is None or _contradicts(volume, told, affine):
        raise CmrvlmError(
            f"the third of three axes ({count}) may be slices or frames",
            file=path,
            field="third_axis",
            remedy="Set third_axis to z or to t (data.source.third_axis in training).",
        )
    return told


def _by_header(header: Any) -> ThirdAxis | None:
    """Return what the header calls the third axis, None where it does not name it."""
    if int(header["intent_code"]) == _TIME_SERIES:
        return "t"
    slice_axis = header.get_dim_info()[2]
    if slice_axis == 2:
        return "z"
    return None


def _by_affine(count: int, affine: NDArray[np.float64]) -> ThirdAxis | None:
    """Return what the affine says of the third axis, None where its step may be of either.

    Args:
        count: Planes along the third axis.
        affine: (4, 4) in mm.
    """
    step_mm = float(np.linalg.norm(affine[:3, 2]))
    least, most = SLICE_DISTANCE_MM
    is_flat = abs(np.linalg.det(affine[:3, :3])) < 1e-6
    if is_flat or not least * (1 - 1e-6) <= step_mm <= most:
        return "t"
    if makes_no_heart(count, step_mm) or count * step_mm > _LONGEST_STACK_MM:
        return None
    return "z"


def _contradicts(volume: NDArray[Any], told: ThirdAxis, affine: NDArray[np.float64]) -> bool:
    """Return whether the planes (x, y, n) look like frames where slices are told, or the reverse."""
    likeness = _likeness_of_ends(volume)
    if likeness is None:
        return False
    if told == "z":
        return likeness > _LIKE_FRAMES
    # A step of 45 may be mm between slices as well as ms between frames.
    step_mm = float(np.linalg.norm(affine[:3, 2]))
    return step_mm > SLICE_DISTANCE_MM[1] and likeness < _LIKE_FRAMES


def _likeness_of_ends(volume: NDArray[Any]) -> float | None:
    """Return the correlation of the first and the last plane, None for few or empty planes."""
    if volume.shape[2] < _FEWEST_PLANES:
        return None
    first = volume[:, :, 0].astype(np.float64).ravel()
    last = volume[:, :, -1].astype(np.float64).ravel()
    if not (first.std() > 0 and last.std() > 0):
        return None
    return float(np.corrcoef(first, last)[0, 1])
