"""Our model's label maps, from what it answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cmrvlm.inference import answer_batch
from cmrvlm.labels import NOT_ANNOTATED
from cmrvlm.predict import label_map
from cmrvlm.stages.run_folder import TrainedRun
from cmrvlm.study import Study
from cmrvlm.tasks.segmentation import SegmentTask
from experiments.segmentation.scores import LabelMap


def label(run: TrainedRun, study: Study, sequence: str, structures: Sequence[str]) -> LabelMap:
    """Canonical values (Z, T, H, W); frames without annotation are 255."""
    tasks = [SegmentTask(one, sequence) for one in structures]
    asked = [task.word(study, case, "en") for task in tasks for case in task.cases(study, [sequence])]
    series = study.series[sequence]
    batch = run.collator([(study.with_series({sequence: series}), asked)])
    answers = answer_batch(run.model, run.collator, batch, 40)
    result = np.full(series.image.shape, NOT_ANNOTATED, dtype=np.uint8)
    frames = list(asked[0].case.mask.frames) if asked and asked[0].case.mask else []
    labels = label_map(answers, sequence)
    result[:, frames] = 0 if labels is None else labels
    return result
