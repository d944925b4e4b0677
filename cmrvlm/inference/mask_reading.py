"""Read masks from logits: as they are, averaged over mirrored images, or tidied up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from monai.transforms import FillHoles, KeepLargestConnectedComponent, Transform
from numpy.typing import NDArray
from torch import Tensor

from cmrvlm.instructions.batch import Media
from cmrvlm.instructions.question import Question
from cmrvlm.models.features import ReadRows
from cmrvlm.models.vision_language_model import VisionLanguageModel

_CAVITIES = ("lv", "rv", "la", "ra")
# Voxels are neighbours through a face: what meets in a corner is another part, and a ring with a corner is closed.
_LARGEST = KeepLargestConnectedComponent(applied_labels=1, is_onehot=False, connectivity=1)
_FILL = FillHoles(applied_labels=1, connectivity=1)


class MaskReading:
    """Way of reading the masks of answers.

    Args:
        flips: Average the logits with those of the images mirrored left to right. For a model that has learned from
            mirrored hearts: augmentation here mirrors none, and masks become worse (experiments/segmentation).
        largest: Keep the largest connected part of each frame's stack, of structures that are in one piece.
        fill: Fill holes within slices, of cavities: the wall has one that belongs there.
    """

    def __init__(self, *, flips: bool = False, largest: bool = False, fill: bool = False) -> None:
        self.flips = flips
        self.largest = largest
        self.fill = fill

    def __str__(self) -> str:
        chosen = [name for name in ("flips", "largest", "fill") if getattr(self, name)]
        return ", ".join(chosen) if chosen else "as they are"

    def logits(
        self, model: VisionLanguageModel, media: Mapping[str, list[Media]], reading: ReadRows
    ) -> dict[int, Tensor]:
        """Return logits (Z, F, H, W) of the rows that have a mask or a box.

        Args:
            model: Network that read the rows.
            media: Images of the studies.
            reading: Rows that were read.
        """
        finest = {row: scales[0] for row, scales in model.mask_logits(reading).items()}
        if not self.flips or not finest:
            return finest
        mirrored = {
            name: [replace(stack, images=stack.images.flip(-1)) for stack in stacks]
            for name, stacks in media.items()
        }
        mirrored_reading = replace(reading, features=model.encode(mirrored))
        of_mirrored = model.mask_logits(mirrored_reading)
        return {row: (logits + of_mirrored[row][0].flip(-1)) / 2 for row, logits in finest.items()}

    def mask(self, logits: Tensor, question: Question) -> NDArray[np.bool_]:
        """Return the mask (Z, F, H, W); maps of boxes are never tidied up.

        Args:
            logits: (Z, F, H, W).
            question: Question with its region.
        """
        mask = np.asarray((logits > 0).cpu().numpy())
        region = question.region
        if region is None or region.as_box:
            return mask
        for frame in range(mask.shape[1]):
            mask[:, frame] = self._tidied(mask[:, frame], region.structure)
        return mask

    def _tidied(self, stack: NDArray[np.bool_], structure: str) -> NDArray[np.bool_]:
        """Return a structure's stack (Z, H, W), tidied up as asked and as far as it makes sense for it."""
        if self.largest and structure in (*_CAVITIES, "myo"):
            stack = _transformed(_LARGEST, stack)
        if self.fill and structure in _CAVITIES:
            stack = np.stack([_transformed(_FILL, picture) for picture in stack])
        return stack


def _transformed(transform: Transform, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return a mask after a transform of MONAI, which wants a channel in front and writes into its input."""
    return np.asarray(transform(mask[None].astype(np.uint8))[0]) > 0
