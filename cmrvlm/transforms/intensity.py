"""Grey values on a common scale."""

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
        self.lower, self.upper = lower, upper

    def __call__(self, study: Study) -> Study:
        """The study with grey values in [0, 1]."""
        return study.with_series({name: self._scale(one) for name, one in study.series.items()})

    def _scale(self, series: Series) -> Series:
        low, high = np.percentile(series.image, [self.lower, self.upper])
        scaled = (series.image - low) / max(float(high - low), 1e-6)
        return replace(series, image=np.clip(scaled, 0, 1).astype(np.float32))
