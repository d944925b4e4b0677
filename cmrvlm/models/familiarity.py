"""Tell images like those of the training from others, by the distance of their features.

Features of an encoder are averaged over each series. Their mean and covariance over the studies of
the training, and the distances of studies that were not trained on, make a limit: what lies further
away, such as another organ, noise or a picture, was never learned, and nothing is said of it.
The distance is that of Mahalanobis, as Lee et al. (2018, arXiv:1807.03888) use it, with the
shrunken covariance of Ledoit and Wolf (2004).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from sklearn.covariance import LedoitWolf
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from cmrvlm.encoders.base import Encoded, Encoder
from cmrvlm.errors import CmrvlmError
from cmrvlm.study.atomic_files import atomic_write

# Levels of the pyramid whose averages describe a series, from the finest.
_LEVELS = 3
# Fields along rows and columns in which the finest level is averaged: where something lies.
_COARSE = 4
# More features than this are projected at random, which keeps distances.
_MOST_FEATURES = 384
# Fewer studies make no covariance, and no limit.
LEAST_TRAINED = 8
LEAST_HELD_OUT = 4
# Standard deviations of the logarithm of the distance beyond the mean of studies that were not
# trained on: one heart in 30,000 of a normal distribution.
_DEVIATIONS = 4.0


@dataclass(frozen=True)
class Gate:
    """Features of one sequence in the training, and the limit for others.

    Attributes:
        projection: (F, G) from features to those whose distance is taken.
        mean: (G,) mean of the projected features.
        precision: (G, G) inverse of their covariance.
        limit: Distance beyond which a series is unfamiliar.
    """

    projection: Tensor
    mean: Tensor
    precision: Tensor
    limit: Tensor

    def distance(self, features: Tensor) -> Tensor:
        """Return the distance (N,) of features (N, F) from those of the training."""
        off = features.double() @ self.projection - self.mean
        return torch.einsum("nf,fg,ng->n", off, self.precision, off).clamp(min=0).sqrt()


@torch.no_grad()
def describe(encoder: Encoder, encoded: Encoded) -> Tensor:
    """Average the features of series, and their spread, over each series.

    Args:
        encoder: Encoder that made them.
        encoded: Features of N series.

    Returns:
        (N, F), in float32.
    """
    tokens = encoder.tokens_of_series(encoded.grid).float()  # (N, tokens, D)
    parts = [tokens.mean(dim=1), tokens.std(dim=1)]
    for level in encoded.pyramid[:_LEVELS]:
        level = level.float()  # (N, C, Z, T, H, W)
        values = level.flatten(2)
        parts += [values.mean(dim=2), values.std(dim=2)]
        # How much it moves: a heart does, a bottle does not.
        parts.append(level.std(dim=3, correction=0).flatten(2).mean(dim=2))
    finest = encoded.pyramid[0].float().mean(dim=(2, 3))  # (N, C, H, W)
    parts.append(adaptive_avg_pool2d(finest, _COARSE).flatten(1))
    return torch.cat(parts, dim=1).cpu()


def fit_gate(trained: Tensor, held_out: Tensor) -> Gate | None:
    """Fit the gate of one sequence; None where there are too few studies.

    Args:
        trained: Features (N, F) of studies of the training.
        held_out: Features (M, F) of studies that were not trained on.
    """
    if len(trained) < LEAST_TRAINED or len(held_out) < LEAST_HELD_OUT:
        return None
    scale = trained.double().std(dim=0).clamp(min=1e-6)
    projection = torch.diag(1.0 / scale)
    if len(scale) > _MOST_FEATURES:
        generator = torch.Generator().manual_seed(0)
        shape = (len(scale), _MOST_FEATURES)
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
        projection = projection @ drawn / len(scale) ** 0.5
    projected = trained.double() @ projection
    fitted = LedoitWolf().fit(projected.numpy())
    gate = Gate(
        projection,
        torch.from_numpy(fitted.location_),
        torch.from_numpy(np.ascontiguousarray(fitted.precision_)),
        torch.zeros((), dtype=torch.float64),
    )
    logarithms = gate.distance(held_out).clamp(min=1e-9).log()
    limit = (logarithms.mean() + _DEVIATIONS * logarithms.std()).exp()
    return replace(gate, limit=limit)


class Familiarity:
    """Gates of the sequences that a run reads.

    Args:
        gates: Sequence to its gate.
    """

    def __init__(self, gates: Mapping[str, Gate]) -> None:
        self.gates = dict(gates)

    def distance(self, sequence: str, features: Tensor) -> tuple[Tensor, float] | None:
        """Return distances (N,) of features (N, F) and the limit; None for a sequence without a gate."""
        gate = self.gates.get(sequence)
        if gate is None:
            return None
        return gate.distance(features), float(gate.limit)

    def save(self, path: Path) -> None:
        """Write the gates as one safetensors file."""
        tensors = {
            f"{sequence}.{name}": value.clone()
            for sequence, gate in self.gates.items()
            for name, value in vars(gate).items()
        }
        with atomic_write(path) as temporary:
            save_file(tensors, temporary)

    @classmethod
    def load(cls, path: Path) -> Familiarity | None:
        """Read gates that `save` wrote; None where there are none.

        Runs of earlier versions have none, nor have those of a handful of studies.

        Raises:
            CmrvlmError: The file is damaged.
        """
        if not path.is_file():
            return None
        try:
            tensors = load_file(path)
            names = {key.rpartition(".")[0] for key in tensors}
            gates = {}
            for sequence in names:
                fields = {name: tensors[f"{sequence}.{name}"] for name in Gate.__annotations__}
                gates[sequence] = Gate(**fields)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise CmrvlmError(
                f"the file cannot be read ({type(error).__name__})",
                file=path,
                field="run",
                remedy="Take it out to answer about any image, or train the run again.",
            ) from error
        return cls(gates) if gates else None
