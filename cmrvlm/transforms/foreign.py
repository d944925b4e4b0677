"""Make images without a heart from a study's series, to train and to score what is said of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cmrvlm.study.study import Series, Study, StudyLabels

Image = NDArray[np.float32]
# Blocks along rows and columns that are exchanged.
_BLOCKS = 8


def _noise(image: Image, rng: np.random.Generator) -> Image:
    """Return the noise (Z, T, H, W) of a magnitude image of nothing."""
    return rng.rayleigh(1.0, image.shape).astype(np.float32)


def _blank(image: Image, rng: np.random.Generator) -> Image:
    """Return an image (Z, T, H, W) of one grey value with a little noise."""
    return (100 + rng.normal(0, 1, image.shape)).astype(np.float32)


def _clouds(image: Image, rng: np.random.Generator) -> Image:
    """Return smooth random fields (Z, T, H, W), which have the softness of tissue."""
    field = gaussian_filter(rng.normal(0, 1, image.shape), (0.5, 1.0, 4.0, 4.0))
    return field.astype(np.float32)


def _ramp(image: Image, rng: np.random.Generator) -> Image:
    """Return a ramp (Z, T, H, W) across the picture, as of a coil's sensitivity."""
    rows, columns = _grid(image)
    slope = rng.uniform(-1, 1)
    return np.broadcast_to(rows + slope * columns, image.shape).astype(np.float32)


def _bottle(image: Image, rng: np.random.Generator) -> Image:
    """Return a bright disk (Z, T, H, W), as of a bottle in the scanner."""
    rows, columns = _grid(image)
    radius = rng.uniform(0.5, 0.9)
    disk = (rows**2 + columns**2 < radius**2) + 0.05 * rng.random(rows.shape)
    return np.broadcast_to(disk, image.shape).astype(np.float32)


def _shuffled(image: Image, rng: np.random.Generator) -> Image:
    """Return the image (Z, T, H, W) with its blocks exchanged: tissue, and no organ."""
    z, t, h, w = image.shape
    height, width = h // _BLOCKS, w // _BLOCKS
    inner = image[:, :, : height * _BLOCKS, : width * _BLOCKS]
    blocks = inner.reshape(z, t, _BLOCKS, height, _BLOCKS, width)
    blocks = blocks[:, :, rng.permutation(_BLOCKS)][:, :, :, :, rng.permutation(_BLOCKS)]
    result = np.zeros_like(image)
    result[:, :, : height * _BLOCKS, : width * _BLOCKS] = blocks.reshape(inner.shape)
    return result


def _grid(image: Image) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return rows and columns (H, W) of a picture, from -1 to 1."""
    h, w = image.shape[2:]
    rows, columns = np.meshgrid(np.linspace(-1, 1, h), np.linspace(-1, 1, w), indexing="ij")
    return rows, columns


FOREIGN: dict[str, Callable[[Image, np.random.Generator], Image]] = {
    "noise": _noise,
    "blank": _blank,
    "clouds": _clouds,
    "ramp": _ramp,
    "bottle": _bottle,
    "shuffled": _shuffled,
}


def foreign_study(study: Study, kind: str, seed: int | np.random.Generator = 0) -> Study:
    """Return a study with images without a heart in place of its own, without masks and labels.

    Args:
        study: Study on any grid.
        kind: Key of `FOREIGN`.
        seed: Seed of what is drawn, or the generator that it is drawn from.
    """
    rng = np.random.default_rng(seed)
    series: dict[str, Series] = {}
    for name, own in study.series.items():
        image = FOREIGN[kind](np.asarray(own.image, dtype=np.float32), rng)
        series[name] = replace(own, image=image, mask=None, phases={}, levels=(), drawn=())
    return replace(study, series=series, labels=StudyLabels())
