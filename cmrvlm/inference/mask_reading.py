"""From logits to masks: as they are, averaged over mirrored images, or tidied up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from monai.transforms import FillHoles, KeepLargestConnectedComponent, Transform
from numpy.typing import NDArray
from torch import Tensor

from cmrvlm.instructions.batch import Media, TextRows
from cmrvlm.models.features import Features
from cmrvlm.models.vision_language_model import CMRVLM
from cmrvlm.tasks.base import Instruction

_CAVITIES = ("lv", "rv", "la", "ra")
# Voxels are neighbours through a face: what meets in a corner is another part, and a ring with a corner is closed.
_LARGEST = KeepLargestConnectedComponent(applied_labels=1, is_onehot=False, connectivity=1)
_FILL = FillHoles(applied_labels=1, connectivity=1)


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
        self,
        model: CMRVLM,
        media: Mapping[str, list[Media]],
        features: Features,
        hidden: Tensor,
        rows: TextRows,
        instructions: list[Instruction],
        owners: list[int],
    ) -> dict[int, Tensor]:
        """Logits (Z, F, H, W) of the rows that have a mask or a box, see `CMRVLM.mask_logits`."""
        found = {
            row: own[0]
            for row, own in model.mask_logits(features, hidden, rows, instructions, owners).items()
        }
        if not self.flips or not found:
            return found
        mirrored = {
            name: [replace(one, images=one.images.flip(-1)) for one in own]
            for name, own in media.items()
        }
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
            stack = _tidied_by(_LARGEST, stack)
        if self.fill and structure in _CAVITIES:
            stack = np.stack([_tidied_by(_FILL, picture) for picture in stack])
        return stack


def _tidied_by(transform: Transform, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask after a transform of MONAI, which wants a channel in front and writes into what it is given."""
    return np.asarray(transform(mask[None].astype(np.uint8))[0]) > 0
