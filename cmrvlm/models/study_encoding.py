"""Encode whole studies once, for the gate and for the answers alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cmrvlm.instructions.batch import Media, stack_by_shape
from cmrvlm.models.familiarity import describe
from cmrvlm.models.features import Features
from cmrvlm.models.precision import autocast_of
from cmrvlm.models.vision_language_model import VisionLanguageModel
from cmrvlm.study.study import Study


@torch.no_grad()
def encode_studies(model: VisionLanguageModel, studies: Sequence[Study]) -> Features:
    """Encode all series of studies that the network reads, those of one shape together.

    Args:
        model: Trained network; it encodes in evaluation mode.
        studies: Studies on the model's grid.

    Returns:
        Encoded studies, by their index among those given.
    """
    was_training = model.training
    model.eval()
    with autocast_of(model.precision, model.device):
        features = model.encode(_media_of(model, studies))
    model.train(was_training)
    return features


def _media_of(model: VisionLanguageModel, studies: Sequence[Study]) -> dict[str, list[Media]]:
    """Return the images of the series that the network reads, stacked by sequence and shape."""
    media = {}
    for sequence in model.encoders:
        images = [
            (index, torch.from_numpy(np.array(study.series[sequence].image, dtype=np.float32)))
            for index, study in enumerate(studies)
            if sequence in study.series
        ]
        if images:
            media[sequence] = [stack.to(model.device) for stack in stack_by_shape(images)]
    return media


def describe_studies(
    model: VisionLanguageModel, features: Features
) -> dict[int, dict[str, Tensor]]:
    """Describe the series of encoded studies by their averages.

    Args:
        model: Network that encoded them.
        features: Encoded studies.

    Returns:
        Index of the study to sequence to the description (1, F), see `familiarity.describe`.
    """
    described = {
        sequence: [describe(model.encoder(sequence), stack) for stack in stacks]
        for sequence, stacks in features.stacks.items()
    }
    by_study: dict[int, dict[str, Tensor]] = {}
    for (study, sequence), location in features.locations.items():
        rows = described[sequence][location.stack]  # (N, F)
        row = rows[location.index : location.index + 1]
        by_study.setdefault(study, {})[sequence] = row
    return by_study
