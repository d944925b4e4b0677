"""Artefacts of MRI that a configuration can add to the augmentation, made by TorchIO.

They change grey values alone: masks, boxes and the numbers in texts stay true. Each is drawn once
for a series and is the same in all its frames.
"""

from __future__ import annotations

import torchio as tio


class Artefact:
    """A random change of grey values. A subclass names the settings of one TorchIO transform.

    Args:
        transform: Draws from the global generator of torch, which `Augment` seeds.
    """

    def __init__(self, transform: tio.IntensityTransform) -> None:
        self.transform = transform


class BiasField(Artefact):
    """Smooth shading, as coils that are near to some tissue and far from other cause it.

    Args:
        probability: Share of series that are shaded.
        coefficient: Largest coefficient of the polynomial that is the logarithm of the shading.
        order: Order of the polynomial.
    """

    def __init__(self, probability: float = 0.5, coefficient: float = 0.3, order: int = 3) -> None:
        super().__init__(
            tio.RandomBiasField(coefficients=coefficient, order=order, p=probability, copy=False)
        )


class Blur(Artefact):
    """Gaussian blur in plane, as a lower resolution of the scan causes it.

    Args:
        probability: Share of series that are blurred.
        std_mm: Largest standard deviation along H and along W, in mm.
    """

    def __init__(self, probability: float = 0.5, std_mm: float = 2.0) -> None:
        in_plane = (0.0, std_mm)
        across = (0.0, 0.0)
        super().__init__(
            tio.RandomBlur(std=(*in_plane, *in_plane, *across), p=probability, copy=False)
        )


class Ghosting(Artefact):
    """Fainter copies along H or W, as breathing causes them along the phase encoding.

    Args:
        probability: Share of series that have ghosts.
        ghosts: Smallest and largest number of ghosts.
        intensity: Largest strength of the ghosts; 1 is about as strong as the image.
    """

    def __init__(
        self,
        probability: float = 0.5,
        ghosts: tuple[int, int] = (2, 6),
        intensity: float = 0.5,
    ) -> None:
        super().__init__(
            tio.RandomGhosting(
                num_ghosts=(ghosts[0], ghosts[1]),
                axes=(0, 1),
                intensity=(0.0, intensity),
                p=probability,
                copy=False,
            )
        )
