"""Frames of a cine by cardiac phase."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cmrvlm.study.study import Series, Study
from cmrvlm.transforms.step import Step


def frames_to_keep(count: int, wanted: int, phases: dict[str, int]) -> list[int]:
    """Indices of `wanted` of `count` frames, evenly over the cycle, with the known phases among them.

    A cine with no more frames than wanted keeps all. A known ED or ES frame takes the place of its nearest pick.
    """
    if count <= wanted:
        return list(range(count))
    picks = [round(i * count / wanted) for i in range(wanted)]
    for frame in phases.values():
        if frame not in picks:
            free = [i for i, pick in enumerate(picks) if pick not in phases.values()]
            picks[min(free, key=lambda i: abs(picks[i] - frame))] = frame
    return sorted(set(picks))


class SampleFrames(Step):
    """Keep at most `frames` frames of every cine.

    Args:
        frames: Largest number of frames.
    """

    def __init__(self, frames: int = 10) -> None:
        self.frames = frames

    def __call__(self, study: Study) -> Study:
        """The study with fewer frames; phases, times and masks follow."""
        return study.with_series({name: self._sample(one) for name, one in study.series.items()})

    def _sample(self, series: Series) -> Series:
        keep = frames_to_keep(series.image.shape[1], self.frames, dict(series.phases))
        if len(keep) == series.image.shape[1]:
            return series
        times = series.frame_times_ms
        return replace(
            series,
            image=np.ascontiguousarray(series.image[:, keep]),
            mask=None if series.mask is None else np.ascontiguousarray(series.mask[:, keep]),
            frame_times_ms=None if times is None else tuple(times[t] for t in keep),
            phases={phase: keep.index(frame) for phase, frame in series.phases.items()},
        )
