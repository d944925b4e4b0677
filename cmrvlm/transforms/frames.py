"""Selection of cine frames by cardiac phase."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.study import Series, Study
from cmrvlm.transforms.step import Step


def frames_to_keep(frame_count: int, limit: int, phases: dict[str, int]) -> list[int]:
    """Select frames evenly over the cardiac cycle, the known phases among them.

    A known ED or ES frame replaces the selected frame that is nearest to it.

    Args:
        frame_count: Number of frames of the cine.
        limit: Largest number of frames to keep.
        phases: Frame index of `ed` and `es` where known.

    Returns:
        Ascending frame indices; all frames where there are no more than the limit.

    Raises:
        CmrvlmError: There are more known phases than frames to keep.
    """
    if frame_count <= limit:
        return list(range(frame_count))
    selected = [round(i * frame_count / limit) for i in range(limit)]
    phase_frames = sorted(set(phases.values()))
    if len(phase_frames) > limit:
        raise CmrvlmError(
            f"{limit} frame cannot hold {' and '.join(phases)}, which are known of the cine",
            field="frames",
            remedy=f"Set transform.preprocessing.steps.frames.frames to {len(phase_frames)} "
            "or more.",
        )
    for frame in phase_frames:
        if frame in selected:
            continue
        replaceable = [i for i, index in enumerate(selected) if index not in phase_frames]
        distances = [abs(selected[i] - frame) for i in replaceable]
        nearest = replaceable[distances.index(min(distances))]
        selected[nearest] = frame
    return sorted(set(selected))


class SampleFrames(Step):
    """Keep at most `frames` frames of every cine.

    Args:
        frames: Largest number of frames.

    Raises:
        CmrvlmError: No frame would be kept.
    """

    def __init__(self, frames: int = 10) -> None:
        if frames < 1:
            raise CmrvlmError(
                f"{frames} frames are no cine", field="frames", remedy="Keep at least one."
            )
        self.frames = frames

    def __call__(self, study: Study) -> Study:
        """Return the study with fewer frames; phases, times and masks follow."""
        sampled = {name: self._sample(series) for name, series in study.series.items()}
        return study.with_series(sampled)

    def _sample(self, series: Series) -> Series:
        """Return the series with the selected frames."""
        frame_count = series.image.shape[1]
        kept = frames_to_keep(frame_count, self.frames, dict(series.phases))
        if len(kept) == frame_count:
            return series

        mask = series.mask
        if mask is not None:
            mask = np.ascontiguousarray(mask[:, kept])
        times = series.frame_times_ms
        if times is not None:
            times = tuple(times[frame] for frame in kept)
        return replace(
            series,
            image=np.ascontiguousarray(series.image[:, kept]),
            mask=mask,
            frame_times_ms=times,
            phases={phase: kept.index(frame) for phase, frame in series.phases.items()},
        )
