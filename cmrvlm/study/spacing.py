"""Distances of voxels where the affine of a file does not hold them: in its header, or with its user."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.geometry_checks import makes_no_heart
from cmrvlm.study.nifti_file import spacing_of_header_mm
from cmrvlm.study.reading_settings import ReadingSettings

log = logging.getLogger(__name__)

# Height in mm of a lone slice whose file states none. Nothing is counted with it: a volume needs
# three slices.
_UNKNOWN_HEIGHT_MM = 8.0
_NO_SLICE_STEP = 1e-3


def with_slice_step(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the affine (4, 4) of a single slice whose third column may be that of time."""
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    length = float(np.linalg.norm(normal))
    if not length:
        return affine
    repaired = affine.copy()
    repaired[:3, 2] = normal / length * _UNKNOWN_HEIGHT_MM
    return repaired


def true_affine(
    affine: NDArray[np.float64], header: Any, slices: int, settings: ReadingSettings, path: Path
) -> NDArray[np.float64]:
    """Return an affine (4, 4) with the header's or the user's spacing where it has none.

    Original ACDC files hold an affine of unit spacing and the true spacing in `pixdim` alone.

    Args:
        affine: (4, 4) in mm.
        header: Header of the file.
        slices: Voxels along its third axis.
        settings: What the user states about files.
        path: The file.

    Raises:
        CmrvlmError: Affine and header state two different spacings.
    """
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    stated = spacing_of_header_mm(header)
    # A third column without length is that of time, whatever the header calls its step.
    axes = slice(None) if lengths[2] > _NO_SLICE_STEP else slice(2)
    scales = np.ones(3)
    if not np.allclose(lengths[axes], stated[axes], rtol=0.01):
        if not np.allclose(lengths, 1.0, rtol=1e-3):
            raise CmrvlmError(
                f"the affine's spacing is {lengths.round(3)} mm, the header's {stated.round(3)} mm",
                file=path,
                field="pixdim",
                remedy="Write the file again with the right spacing.",
            )
        log.warning(
            "%s: the affine has no spacing, the header's %s mm is used", path.name, stated.round(3)
        )
        scales = stated
    elif settings.spacing_mm is not None and _lacks_spacing(lengths, slices):
        # Files have their axes the other way round: columns, rows, slices.
        scales = np.asarray(settings.spacing_mm[::-1], dtype=np.float64) / lengths
    elif np.allclose(lengths, 1.0, rtol=1e-3):
        log.warning("%s: voxels of 1 mm along each axis, which most headers mean as unknown", path)
    scaled = affine.copy()
    scaled[:3, :3] *= scales
    return scaled


def _lacks_spacing(lengths: NDArray[np.float64], slices: int) -> bool:
    """Return whether distances (3,) of voxels in mm are those of a header that knows none."""
    if not (lengths > 0).all():
        return False
    return np.allclose(lengths, 1.0, rtol=1e-3) or makes_no_heart(slices, float(lengths[2]))
