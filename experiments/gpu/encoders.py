"""Time the encoders, each with images of the sequence that it is made for."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch import Tensor

from cmrvlm.config.build import build
from cmrvlm.encoders.base import Encoder
from experiments.gpu.bench import Bench, Case, Row, counted_flop

_SETTINGS = Path(__file__).parents[2] / "conf" / "encoder"
# Slices and frames of a series.
_SHAPES = {
    "swin4d": (9, 15),
    "swin3d_cine": (1, 15),
    "swin3d_stack": (9, 1),
    "conv": (9, 15),
    "unet": (9, 15),
}
_SIZE = 192
_BATCHES = (1, 2, 4, 8, 16)


def encoders(bench: Bench) -> Iterator[Case]:
    """Yield a case for each encoder, batch size, and direction."""
    size = 32 if bench.small else _SIZE
    batches = (1,) if bench.small else _BATCHES
    for name, (slices, frames) in _SHAPES.items():
        torch.manual_seed(0)
        encoder: Encoder = build(
            OmegaConf.to_container(OmegaConf.load(_SETTINGS / f"{name}.yaml")), "encoders.sax"
        )
        encoder = encoder.to(bench.device)
        for batch in batches:
            shape = (batch, 1, slices, frames, size, size)
            if bench.small:
                shape = (batch, 1, min(slices, 2), min(frames, 3), size, size)
            for learns in (False, True):
                direction = "forward and backward" if learns else "forward"
                work = partial(_measure, bench, encoder, shape, learns)
                yield Case(f"{name}, batch {batch}, {direction}", work)


def _measure(bench: Bench, encoder: Encoder, shape: tuple[int, ...], learns: bool) -> Row:
    """Time an encoder in mixed precision.

    Args:
        bench: Where and how long is measured.
        encoder: Encoder on the device.
        shape: (N, 1, Z, T, H, W) of the images.
        learns: With gradients and the backward pass.
    """
    images = torch.rand(shape, device=bench.device)
    encoder.train(learns)

    def compute() -> Tensor:
        with torch.set_grad_enabled(learns), bench.autocast():
            encoded = encoder(images)
            tokens: Tensor = encoder.tokens_of_series(encoded.grid)
            total = tokens.float().sum()
            for level in encoded.pyramid[1:]:
                total = total + level.float().mean()
        if learns:
            encoder.zero_grad()
            total.backward()
        return total

    with bench.peak_memory() as memory:
        seconds = bench.seconds(compute)
    flop = counted_flop(compute)
    return {
        "images": list(shape),
        "ms": 1000 * seconds,
        "studies_per_s": shape[0] / seconds,
        **bench.rates(flop, seconds),
        **memory,
    }
