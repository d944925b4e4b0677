"""Surfaces of the analytic heart at the pixels of an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_modules.sources.phantom.anatomy import Array, Heart


@dataclass(frozen=True)
class Plane:
    """Positions of the pixels of a stack in the heart frame.

    Attributes:
        x: From septum to lateral wall in mm, broadcastable to `(Z, 1, H, W)`; so are the others.
        y: Completes the frame.
        z: From base to apex in mm.
        pixel_mm: Size of a pixel.
    """

    x: Array
    y: Array
    z: Array
    pixel_mm: float


@dataclass(frozen=True)
class Surfaces:
    """Surfaces of the heart at the pixels of a plane and at some times, axes `(Z, T, H, W)`.

    Attributes:
        theta: Angle in radians.
        endo: Signed distance to the endocardium in mm, positive inside; so are the next four.
        epi: To the epicardium.
        rv: To the right ventricular cavity.
        la: To the left atrium.
        ra: To the right atrium.
        depth: Transmural position, 0 endocardium to 1 epicardium.
    """

    theta: Array
    endo: Array
    epi: Array
    rv: Array
    la: Array
    ra: Array
    depth: Array


def evaluate_surfaces(heart: Heart, plane: Plane, tau: Array) -> Surfaces:
    """Evaluate the surfaces of a heart at the pixels of a plane.

    Args:
        heart: The subject.
        plane: Pixel positions.
        tau: Times `(1, T, 1, 1)` as shares of the R-R interval.
    """
    rho = np.sqrt(plane.x**2 + plane.y**2).astype(np.float32)
    theta = np.arctan2(plane.y, plane.x).astype(np.float32)
    endo_radius = heart.endo_radius_mm(theta, plane.z, tau)
    epi_radius = heart.epi_radius_mm(theta, plane.z, tau, endo_radius)
    base = heart.base_mm(tau)
    # Atria fill while the ventricles contract.
    filling = 1 + 0.12 * heart.contraction_curve(tau)

    def atrium(x_mm: float, radius_mm: float) -> Array:
        """Return the signed distance to a sphere above the valve plane, `(Z, T, H, W)`."""
        height = plane.z - base + radius_mm * 1.05
        distance = np.sqrt((plane.x - x_mm) ** 2 + plane.y**2 + height**2)
        return np.asarray(radius_mm * filling - distance, dtype=np.float32)

    rv = heart.rv_distance_mm(plane.x, plane.y, plane.z, tau)
    return Surfaces(
        theta=theta,
        endo=endo_radius - rho,
        epi=epi_radius - rho,
        rv=rv,
        la=atrium(heart.la_radius_mm * 0.35, heart.la_radius_mm),
        ra=atrium(-heart.la_radius_mm * 0.65 - 3 - heart.ra_radius_mm, heart.ra_radius_mm),
        depth=(rho - endo_radius) / np.maximum(epi_radius - endo_radius, 1e-3),
    )
