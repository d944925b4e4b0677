"""Learning-rate schedules over a known number of steps."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warmup_cosine(
    optimizer: Optimizer, total_steps: int, warmup_share: float = 0.05, floor: float = 0.02
) -> LambdaLR:
    """Warm up linearly, then follow half a cosine down to a floor (Loshchilov and Hutter, SGDR, ICLR 2017).

    Args:
        optimizer: Its learning rates are the peak.
        total_steps: Optimizer steps of the run.
        warmup_share: Share of the steps that warm up.
        floor: Last rate relative to the peak.
    """
    warmup = max(1, round(total_steps * warmup_share))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = min(1.0, (step - warmup) / max(1, total_steps - warmup))
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))

    return LambdaLR(optimizer, factor)


def constant(optimizer: Optimizer, total_steps: int) -> LambdaLR:
    """Keep the rate as it is throughout.

    Args:
        optimizer: Its learning rates are kept.
        total_steps: Not needed; every schedule takes it.
    """
    return LambdaLR(optimizer, lambda step: 1.0)
