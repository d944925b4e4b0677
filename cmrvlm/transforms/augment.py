"""Training augmentation. Every draw comes from the generator that is passed in.

There are no flips: reports speak of septal and lateral walls, and a mirrored heart would make them wrong. There is no
scaling either: diameters and volumes in the text would no longer be those of the picture.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from monai.transforms import Affine

from cmrvlm.study.study import Series, Study


class Augment:
    """Rotation and shift in plane, the same for all slices and frames of a series, then contrast and noise.

    Args:
        rotation_degrees: Largest rotation.
        shift_pixels: Largest shift along H and W.
        gamma: Range of the exponent on grey values is [1 / (1 + gamma), 1 + gamma].
        brightness: Largest share by which grey values are scaled.
        noise: Largest standard deviation of added noise.
        geometry_probability: Share of series that are moved.
    """

    def __init__(
        self,
        rotation_degrees: float = 15.0,
        shift_pixels: float = 5.0,
        gamma: float = 0.3,
        brightness: float = 0.1,
        noise: float = 0.03,
        geometry_probability: float = 0.5,
    ) -> None:
        self.rotation_degrees, self.shift_pixels = rotation_degrees, shift_pixels
        self.gamma, self.brightness, self.noise = gamma, brightness, noise
        self.geometry_probability = geometry_probability

    def __call__(self, study: Study, rng: np.random.Generator) -> Study:
        """An augmented copy of a preprocessed study (grey values in [0, 1])."""
        return study.with_series(
            {name: self._one(series, rng) for name, series in study.series.items()}
        )

    def _one(self, series: Series, rng: np.random.Generator) -> Series:
        image = np.asarray(series.image, dtype=np.float32)
        mask = series.mask
        if rng.random() < self.geometry_probability:
            image, mask = self._move(image, mask, rng)
        exponent = float((1 + self.gamma) ** rng.uniform(-1, 1))
        scale = np.float32(1 + self.brightness * rng.uniform(-1, 1))
        sigma = np.float32(self.noise * rng.random())
        changed = np.power(image, np.float32(exponent)) * scale
        changed += rng.standard_normal(image.shape, dtype=np.float32) * sigma
        return replace(series, image=changed, mask=mask)

    def _move(
        self, image: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray | None]:
        angle = np.deg2rad(self.rotation_degrees) * rng.uniform(-1, 1)
        shift = (self.shift_pixels * rng.uniform(-1, 1, 2)).tolist()
        affine = Affine(
            rotate_params=float(angle),
            translate_params=shift,
            padding_mode="border",
            image_only=True,
        )
        height, width = image.shape[-2:]
        flat = torch.from_numpy(image.reshape(-1, height, width))  # (Z*T, H, W)
        moved = torch.as_tensor(affine(flat, mode="bilinear")).numpy().reshape(image.shape)
        if mask is None:
            return moved, None
        values = torch.from_numpy(
            np.ascontiguousarray(mask).reshape(-1, height, width).astype(np.float32)
        )
        turned = torch.as_tensor(affine(values, mode="nearest")).numpy().round().astype(np.uint8)
        return moved, turned.reshape(mask.shape)
