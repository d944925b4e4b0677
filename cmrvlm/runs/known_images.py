"""Measure the features of a run's training, by which images unlike those of the training are told."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from cmrvlm.models.familiarity import LEAST_HELD_OUT, Familiarity, fit_gate
from cmrvlm.models.study_encoding import describe_studies, encode_studies
from cmrvlm.models.vision_language_model import VisionLanguageModel
from cmrvlm.runs.data import DataModule
from cmrvlm.study.study import Study

# As many are enough for a covariance, and take seconds.
_TRAINED = 128
_HELD_OUT = 64
# Studies that are encoded together; more take more memory and are hardly faster.
_AT_ONCE = 4
# Share of the training studies that stand for held-out ones where a run has no others.
_SPARED = 4


def familiarity_of(model: VisionLanguageModel, data: DataModule) -> Familiarity:
    """Measure the features of studies of the training and of others, and fit the gates.

    Args:
        model: Trained network.
        data: Its data module, with a split.
    """
    trained = _features(model, data, spread(data.split["train"], _TRAINED))
    held_out = _features(model, data, spread(data.split["val"], _HELD_OUT))
    gates = {}
    for sequence, features in trained.items():
        others = held_out.get(sequence, features[:0])
        if len(others) < LEAST_HELD_OUT:
            others = features[::_SPARED]
            is_kept = torch.arange(len(features)) % _SPARED != 0
            features = features[is_kept]
        gate = fit_gate(features, others)
        if gate is not None:
            gates[sequence] = gate
    return Familiarity(gates)


def spread(study_ids: Sequence[str], most: int) -> list[str]:
    """Return at most some ids, evenly spread over all."""
    if len(study_ids) <= most:
        return list(study_ids)
    indices = np.linspace(0, len(study_ids) - 1, most).round().astype(int)
    return [study_ids[index] for index in indices]


def _features(
    model: VisionLanguageModel, data: DataModule, study_ids: Sequence[str]
) -> dict[str, Tensor]:
    """Return sequence to the features (N, F) of the studies that have it."""
    by_sequence: dict[str, list[Tensor]] = defaultdict(list)
    groups = [study_ids[begin : begin + _AT_ONCE] for begin in range(0, len(study_ids), _AT_ONCE)]
    for group in track(groups, "Measuring what was learned", transient=True):
        studies = [data.load_study(study_id) for study_id in group]
        for features in features_of_studies(model, studies):
            for sequence, row in features.items():
                by_sequence[sequence].append(row)
    return {sequence: torch.cat(rows) for sequence, rows in by_sequence.items()}


def features_of_studies(
    model: VisionLanguageModel, studies: Sequence[Study]
) -> list[dict[str, Tensor]]:
    """Return for each study sequence to the features (1, F) of its series that the network reads.

    Series of one shape are encoded together. A study has the features that it has by itself, up to
    the rounding of larger products.

    Args:
        model: Trained network.
        studies: Studies on the model's grid.
    """
    described = describe_studies(model, encode_studies(model, studies))
    return [described.get(index, {}) for index in range(len(studies))]


def features_of(model: VisionLanguageModel, study: Study) -> dict[str, Tensor]:
    """Return sequence to the features (1, F) of a study's series that the network reads.

    Args:
        model: Trained network.
        study: Study on the model's grid.
    """
    return features_of_studies(model, [study])[0]
