"""How often each class is positive among the studies of a training."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy import ma
from torch import Tensor

from cmrvlm.instructions.read_outs import READ_OUTS, study_targets
from cmrvlm.study.study import StudyLabels


def class_shares_of(labels: Iterable[StudyLabels]) -> dict[str, Tensor]:
    """Compute the share of positives of each class among some studies.

    Returns:
        Tensor `(classes,)` by read-out; a study counts for the classes that are known of it, and a
        class that is known of no study has NaN. Empty when there is no study.
    """
    targets = [study_targets(one) for one in labels]
    if not targets:
        return {}
    shares = {}
    for name in [name for name, record in READ_OUTS.items() if record.is_probability]:
        values = np.stack([target[name] for target in targets])  # (N, classes)
        means = ma.masked_invalid(values).mean(axis=0).filled(np.nan)
        shares[name] = torch.from_numpy(means.astype(np.float32))
    return shares
