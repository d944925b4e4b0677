"""Augmentation of training images by TorchIO, drawn from the generator that is passed in.

There are no flips: reports speak of septal and lateral walls, and a mirrored heart would make them
wrong. There is no scaling either: diameters and volumes in the text would no longer be those of the
image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torchio as tio

from cmrvlm.study.study import Series, Study
from cmrvlm.study.vocabulary import NOT_ANNOTATED, STRUCTURES
from cmrvlm.transforms.artefacts import Artefact
from cmrvlm.transforms.geometry import box_mm
from cmrvlm.transforms.subject import from_subject, to_subject, torchio_scope

_BOX_SEQUENCE = "sax"


class Augment:
    """Rotate and shift in plane, then change contrast, add artefacts and noise.

    Geometry and grey values are drawn for each series by itself. Noise aside, they are the same for
    all its slices and frames. What comes in from outside the image is 0, and 255 (not annotated) in
    the mask, as in `ToGrid`.

    Args:
        rotation_degrees: Largest rotation.
        shift_pixels: Largest shift along H and W.
        gamma: Range of the exponent on grey values is [1 / (1 + gamma), 1 + gamma].
        brightness: Largest share by which grey values are scaled.
        noise: Largest standard deviation of added noise.
        geometry_probability: Share of series that are moved.
        extra: Name to artefact, added in this order after contrast and before noise; None leaves
            one out.
    """

    def __init__(
        self,
        rotation_degrees: float = 15.0,
        shift_pixels: float = 5.0,
        gamma: float = 0.3,
        brightness: float = 0.1,
        noise: float = 0.03,
        geometry_probability: float = 0.5,
        extra: Mapping[str, Artefact | None] | None = None,
    ) -> None:
        self.rotation_degrees = rotation_degrees
        self.shift_pixels = shift_pixels
        self.gamma = gamma
        self.brightness = brightness
        self.noise = noise
        self.geometry_probability = geometry_probability
        self.extra = [artefact for artefact in (extra or {}).values() if artefact is not None]

    def __call__(self, study: Study, rng: np.random.Generator) -> Study:
        """Return an augmented copy of a preprocessed study (grey values in [0, 1])."""
        changed = dict(study.series)
        for name, series in study.series.items():
            motion = self._draw_motion(series, rng)
            grey_values = self._draw_grey_values(rng)
            changed[name] = self._apply([*motion, *grey_values], series, rng)
            if motion and name == _BOX_SEQUENCE:
                boxes = _boxes_mm(changed[name], study.labels.boxes_mm)
                study = replace(study, labels=replace(study.labels, boxes_mm=boxes))
        return study.with_series(changed)

    def _draw_motion(self, series: Series, rng: np.random.Generator) -> list[tio.Transform]:
        """Draw a rotation and a shift; none for the share of series that stay where they are."""
        if rng.random() >= self.geometry_probability:
            return []
        degrees = self.rotation_degrees * rng.uniform(-1, 1)
        shift_h, shift_w = self.shift_pixels * rng.uniform(-1, 1, 2)
        _, spacing_h, spacing_w = series.spacing_mm
        return [in_plane_motion(degrees, (shift_h * spacing_h, shift_w * spacing_w))]

    def _draw_grey_values(self, rng: np.random.Generator) -> list[tio.Transform]:
        """Draw contrast, brightness and noise, with the artefacts between them."""
        exponent = float((1 + self.gamma) ** rng.uniform(-1, 1))
        scale = float(1 + self.brightness * rng.uniform(-1, 1))
        sigma = float(self.noise * rng.random())
        noise_seed = int(rng.integers(2**31))
        return [
            # RandomGamma would draw one exponent for each frame, and the cine would flicker.
            tio.Gamma(exponent, copy=False),
            tio.Lambda(lambda grey: grey * scale, types_to_apply=[tio.INTENSITY], copy=False),
            *(artefact.transform for artefact in self.extra),
            tio.Noise(mean=0.0, std=sigma, seed=noise_seed, copy=False),
        ]

    def _apply(
        self, transforms: list[tio.Transform], series: Series, rng: np.random.Generator
    ) -> Series:
        """Apply transforms in order; what they draw themselves follows from the generator."""
        change = tio.Compose(transforms, copy=False)
        with torchio_scope(int(rng.integers(2**31))):
            subject = change(to_subject(series))
        return from_subject(subject, series)


def in_plane_motion(degrees: float, shift_mm: tuple[float, float]) -> tio.Affine:
    """Build the transform that rotates a subject in plane about its centre and then shifts it.

    Args:
        degrees: Rotation from the axis of columns towards the axis of rows.
        shift_mm: Shift along (H, W).
    """
    return tio.Affine(
        scales=(1.0, 1.0, 1.0),
        degrees=(0.0, 0.0, degrees),
        translation=(shift_mm[1], shift_mm[0], 0.0),
        default_pad_value=0.0,
        default_pad_label=NOT_ANNOTATED,
        image_interpolation="linear",
        label_interpolation="nearest",
        copy=False,
    )


def _boxes_mm(
    series: Series, boxes: Mapping[str, tuple[float, ...]]
) -> dict[str, tuple[float, ...]]:
    """Return the boxes of the same structures in a series that was moved, by its mask.

    A box of a structure that the mask does not show at end-diastole is left out: it is unknown.
    """
    frame = series.phases.get("ed")
    if series.mask is None or frame is None:
        return {}
    moved: dict[str, tuple[float, ...]] = {}
    for structure in boxes:
        box = box_mm(series.mask[:, frame] == STRUCTURES[structure], series.affine)
        if box is not None:
            moved[structure] = box
    return moved
