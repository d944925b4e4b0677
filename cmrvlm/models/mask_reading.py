"""From logits to masks: as they are, averaged over mirrored images, or tidied up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from cmrvlm.batch import Media, TextRows
from cmrvlm.models.cmrvlm import CMRVLM
from cmrvlm.models.features import Features
from cmrvlm.tasks.base import Instruction

_CAVITIES = ("lv", "rv", "la", "ra")


class MaskReading:
    """How the masks of an answer are read.

    Args:
        flips: Average the logits with those of the images mirrored left to right. For a model that has learned from
            mirrored hearts: augmentation here mirrors none, and masks become worse (experiments/segmentation).
        largest: Keep the largest connected part of each frame's stack, of structures that are in one piece.
        fill: Fill holes within slices, of cavities: the wall has one that belongs there.
    """

    def __init__(self, *, flips: bool = False, largest: bool = False, fill: bool = False) -> None:
        self.flips, self.largest, self.fill = flips, largest, fill

    def __str__(self) -> str:
        chosen = [name for name in ("flips", "largest", "fill") if getattr(self, name)]
        return ", ".join(chosen) if chosen else "as they are"

    def logits(
        self, model: CMRVLM, media: Mapping[str, list[Media]], features: Features, hidden: Tensor, rows: TextRows,
        instructions: list[Instruction], owners: list[int],
    ) -> dict[int, Tensor]:  # fmt: skip
        """Logits (Z, F, H, W) of the rows that have a mask or a box, see `CMRVLM.mask_logits`."""
        found = {row: own[0] for row, own in model.mask_logits(features, hidden, rows, instructions, owners).items()}
        if not self.flips or not found:
            return found
        mirrored = {name: [replace(one, images=one.images.flip(-1)) for one in own] for name, own in media.items()}
        other = model.mask_logits(model.encode(mirrored), hidden, rows, instructions, owners)
        return {row: (own + other[row][0].flip(-1)) / 2 for row, own in found.items()}

    def mask(self, logits: Tensor, instruction: Instruction) -> NDArray[np.bool_]:
        """The mask (Z, F, H, W); maps of boxes are never tidied up."""
        inside = np.asarray((logits > 0).cpu().numpy())
        target = instruction.case.mask
        if target is None or target.as_box:
            return inside
        for frame in range(inside.shape[1]):
            inside[:, frame] = self._tidied(inside[:, frame], target.structure)
        return inside

    def _tidied(self, stack: NDArray[np.bool_], structure: str) -> NDArray[np.bool_]:
        """A structure's stack (Z, H, W), tidied up as asked and as far as it makes sense for it."""
        if self.largest and structure in (*_CAVITIES, "myo"):
            parts, count = ndimage.label(stack)
            sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
            stack = parts == 1 + sizes.argmax() if count else stack
        if self.fill and structure in _CAVITIES:
            stack = np.stack([ndimage.binary_fill_holes(picture) for picture in stack])
        return stack
