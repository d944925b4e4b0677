"""Normalization of grey values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cmrvlm.study.study import Series, Study
from cmrvlm.transforms.step import Step


class PercentileIntensity(Step):
    """Scale each series so that two of its percentiles become 0 and 1, and clip beyond them.

    Args:
        lower: Percentile that becomes 0.
        upper: Percentile that becomes 1.
    """

    def __init__(self, lower: float = 1.0, upper: float = 99.0) -> None:
        self.lower = lower
        self.upper = upper

    def __call__(self, study: Study) -> Study:
        """Return the study with grey values in [0, 1]."""
        scaled = {name: self._scale(series) for name, series in study.series.items()}
        return study.with_series(scaled)

    def _scale(self, series: Series) -> Series:
        """Return the series with its image scaled and clipped."""
        low, high = np.percentile(series.image, [self.lower, self.upper])
        # A constant image has no range to divide by.
        value_range = max(float(high - low), 1e-6)
        scaled = (series.image - low) / value_range
        return replace(series, image=np.clip(scaled, 0, 1).astype(np.float32))
