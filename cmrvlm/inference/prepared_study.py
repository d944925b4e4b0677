"""Hold a study prepared for the network, and leave series out of it without encoding the others anew."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from cmrvlm.models.features import Features
from cmrvlm.study.study import Study
from cmrvlm.transforms.preprocessing import Preprocessing


@dataclass(frozen=True)
class PreparedStudy:
    """A study on both grids, and encoded where the gate has seen it.

    Attributes:
        native: The study on its own grid.
        study: The same on the model's grid.
        features: The same encoded; None where it is encoded with its questions.
    """

    native: Study
    study: Study
    features: Features | None = None

    def without(self, sequences: Collection[str], preprocessing: Preprocessing) -> PreparedStudy:
        """Return the study without some of its series.

        Args:
            sequences: Series to leave out; others are left.
            preprocessing: Steps to the model's grid.
        """
        kept = {name: one for name, one in self.native.series.items() if name not in sequences}
        native = self.native.with_series(kept)
        study = preprocessing(native)
        features = None
        # A series that is left out may have had a say in where the others were cropped.
        if self.features is not None and _shows_the_same(study, self.study):
            features = self.features.of_sequences(kept)
        return PreparedStudy(native, study, features)


def _shows_the_same(study: Study, other: Study) -> bool:
    """Return whether each series of a study has the image that it has in another."""
    return all(
        np.array_equal(series.image, other.series[name].image)
        for name, series in study.series.items()
    )
