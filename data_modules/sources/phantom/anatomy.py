"""Analytic heart: every surface is a formula, so volumes and masks have a known truth.

Heart frame in mm: z runs along the long axis from the base (0) to the apex (`length_mm`), x from
the septum (negative, where the right ventricle lies) to the lateral wall, y completes a
right-handed frame. Angles are those of (x, y): 0 lateral, pi septal. Functions broadcast over
arrays with axes `(Z, T, H, W)`; `tau` is time as a share of the R-R interval.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

# Share of the R-R interval at which contraction peaks.
END_SYSTOLE = 0.35

REGION_ANGLES = {"lateral": 0.0, "anterior": np.pi / 2, "septal": np.pi, "inferior": -np.pi / 2}


@dataclass(frozen=True)
class Patch:
    """A region of the left ventricular wall.

    Attributes:
        angle: Centre angle in radians.
        width: Half width in radians; 4 or more is the whole circumference.
        s_range: Extent along the long axis, 0 base to 1 apex.
        depth: Transmural extent, 0 endocardium to 1 epicardium (scars only).
    """

    angle: float
    width: float
    s_range: tuple[float, float] = (0.0, 1.1)
    depth: tuple[float, float] = (0.0, 1.0)

    def core(self) -> Patch:
        """Return the inner part of the patch, where microvascular obstruction sits."""
        return Patch(
            self.angle,
            self.width * 0.55,
            (self.s_range[0] + 0.1, self.s_range[1] - 0.25),
            self.depth,
        )

    def weight(self, theta: Array, s: Array) -> Array:
        """Compute the smooth membership of points in the patch.

        Args:
            theta: Angles in radians, broadcastable to `(Z, T, H, W)`.
            s: Positions along the long axis, 0 base to 1 apex, broadcastable to `(Z, T, H, W)`.

        Returns:
            Membership in [0, 1], `(Z, T, H, W)`.
        """
        distance = _angular_distance(theta, self.angle)
        around = np.clip((self.width - distance) / 0.25 + 0.5, 0, 1)
        low, high = self.s_range
        along = np.clip(np.minimum(s - low, high - s) / 0.08 + 0.5, 0, 1)
        return np.asarray(around * along, dtype=np.float32)


def _angular_distance(theta: Array, angle: float) -> Array:
    """Return how far angles `(Z, T, H, W)` are from another, in [0, pi]."""
    return np.asarray(np.abs((theta - angle + np.pi) % (2 * np.pi) - np.pi))


@dataclass
class Heart:
    """Parameters of one subject's heart and its disease; lengths in mm, contraction as shares.

    The left ventricular cavity is a half ellipsoid of `length_mm` and `radius_mm`; the wall has
    `wall_mm` at the base and keeps its cross-section while the cavity shrinks, so it thickens.

    Attributes:
        contraction: Share of the radius that is lost at end-systole.
        descent_mm: Path of the base towards the apex.
        septal_bulge: Extra thickness of the septum as a share of `wall_mm`.
        septal_flattening: Flattening of a D-shaped septum as a share of the radius.
        dyssynchrony: Lead of the septum over the lateral wall as a share of R-R.
        motion_patches: Patches with the share of contraction that is lost there.
        thin_patches: Patches with the share of the wall that is lost there.
        trabeculation: Share of the radius that is trabeculated in apex and lateral wall.
        dark_blood: Whether blood is nulled abnormally on LGE, as in amyloidosis.
    """

    length_mm: float = 83.0
    radius_mm: float = 27.5
    wall_mm: float = 8.0
    contraction: float = 0.32
    descent_mm: float = 13.0
    septal_bulge: float = 0.0
    septal_flattening: float = 0.0
    dyssynchrony: float = 0.0
    motion_patches: list[tuple[Patch, float]] = field(default_factory=list)
    thin_patches: list[tuple[Patch, float]] = field(default_factory=list)
    rv_half_width_mm: float = 36.0
    rv_half_height_mm: float = 43.0
    rv_center_mm: float = -30.0
    rv_contraction: float = 0.2
    rv_wall_mm: float = 3.0
    la_radius_mm: float = 18.0
    ra_radius_mm: float = 18.0
    trabeculation: float = 0.0
    mitral_jet: float = 0.0
    tricuspid_jet: float = 0.0
    aortic_jet: float = 0.0
    septal_defect_mm: float = 0.0
    effusion_mm: float = 0.0
    pleural_mm: float = 0.0
    pericardium_mm: float = 0.0
    thrombus_mm: float = 0.0
    rv_fat: float = 0.0
    mass_mm: float = 0.0
    mass_center_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scars: list[Patch] = field(default_factory=list)
    no_reflow: bool = False
    rv_scar: bool = False
    dark_blood: bool = False
    lge_pattern: str = "none"
    lge_region: str = ""
    motion: str = "normal"

    @property
    def other_pattern(self) -> str:
        """Code of `vocabulary.OTHER_PATTERNS` that the heart shows, or an empty text."""
        sizes = {
            "mass": self.mass_mm,
            "septal_defect": self.septal_defect_mm,
            "hypertrabeculation": self.trabeculation,
            "septal_flattening": self.septal_flattening,
        }
        return next((code for code, size in sizes.items() if size > 0), "")

    def contraction_curve(self, tau: Array) -> Array:
        """Compute the activation in [0, 1] at times `tau`, in the shape of `tau`.

        It rises to end-systole, then relaxes.
        """
        tau = np.asarray(tau % 1.0, dtype=np.float32)
        rise = np.sin(np.pi / 2 * tau / END_SYSTOLE) ** 2
        fall = 0.5 * (1 + np.cos(np.pi * np.clip((tau - END_SYSTOLE) / 0.4, 0, 1)))
        return np.asarray(np.where(tau < END_SYSTOLE, rise, fall), dtype=np.float32)

    def base_mm(self, tau: Array) -> Array:
        """Compute the z of the valve plane in mm at times `tau`, in the shape of `tau`."""
        return np.asarray(self.descent_mm * self.contraction_curve(tau), dtype=np.float32)

    def long_axis_position(self, z: Array, tau: Array) -> Array:
        """Compute the position along the long axis at height `z` and times `tau`, `(Z, T, H, W)`.

        It is 0 at the valve plane and 1 at the endocardial apex.
        """
        base = self.base_mm(tau)
        return np.asarray((z - base) / (self.length_mm - base), dtype=np.float32)

    def _local_contraction(self, theta: Array, z: Array, tau: Array) -> Array:
        """Compute the share of the radius that is lost at points and times, `(Z, T, H, W)`."""
        s0 = z / self.length_mm
        amplitude = np.full(
            np.broadcast_shapes(theta.shape, z.shape), self.contraction, dtype=np.float32
        )
        for patch, loss in self.motion_patches:
            amplitude = amplitude - self.contraction * np.float32(loss) * patch.weight(theta, s0)
        if self.dyssynchrony == 0:
            return np.asarray(amplitude * self.contraction_curve(tau), dtype=np.float32)
        septal = np.asarray(0.5 * (1 - np.cos(theta)), dtype=np.float32)
        leading = self.contraction_curve(tau + self.dyssynchrony)
        lagging = self.contraction_curve(tau - self.dyssynchrony * 0.5)
        activation = lagging + septal * (leading - lagging)
        return np.asarray(amplitude * activation, dtype=np.float32)

    def _outline_factor(self, theta: Array) -> Array | float:
        """Compute the factor on the radius at angles `(Z, T, H, W)` by which the septum is flat."""
        if self.septal_flattening == 0:
            return 1.0
        gap = np.abs((theta + 2 * np.pi) % (2 * np.pi) - np.pi)
        return np.asarray(
            1 - self.septal_flattening * np.exp(-((gap / 0.6) ** 2)), dtype=np.float32
        )

    def endo_radius_mm(self, theta: Array, z: Array, tau: Array) -> Array:
        """Compute the endocardial radius in mm at angles, heights and times, `(Z, T, H, W)`.

        It is 0 above the valve plane and below the apex.
        """
        s = self.long_axis_position(z, tau)
        profile = np.sqrt(np.clip(1 - s * s, 0, None)) * (s >= 0)
        radius = self.radius_mm * profile * (1 - self._local_contraction(theta, z, tau))
        return np.asarray(radius * self._outline_factor(theta), dtype=np.float32)

    def wall_thickness_mm(self, theta: Array, z: Array) -> Array:
        """Compute the end-diastolic wall thickness in mm at angles and heights, `(Z, T, H, W)`.

        The wall is thinner towards the apex.
        """
        s0 = np.clip(z / self.length_mm, 0, 1)
        thickness = self.wall_mm * (1 - 0.35 * s0)
        if self.septal_bulge:
            # The bulge is anteroseptal.
            distance = _angular_distance(theta, 2.6)
            thickness = thickness * (1 + self.septal_bulge * np.exp(-((distance / 0.9) ** 2)))
        for patch, loss in self.thin_patches:
            thickness = thickness * (1 - loss * patch.weight(theta, z / self.length_mm))
        return np.asarray(thickness, dtype=np.float32)

    def epi_radius_mm(self, theta: Array, z: Array, tau: Array, endo: Array) -> Array:
        """Compute the epicardial radius in mm, `(Z, T, H, W)`.

        The wall's cross-section is that of end-diastole, stretched as the long axis shortens. Below
        the endocardial apex a cap closes the wall.

        Args:
            theta: Angles in radians.
            z: Heights in mm.
            tau: Times.
            endo: Endocardial radius in mm at the same points, `(Z, T, H, W)`.
        """
        zero = np.zeros((1,) * 4, dtype=np.float32)
        thickness = self.wall_thickness_mm(theta, z)
        endo_ed = self.endo_radius_mm(theta, z, zero)
        area = (endo_ed + thickness) ** 2 - endo_ed**2
        stretch = self.length_mm / (self.length_mm - self.base_mm(tau))
        s = self.long_axis_position(z, tau)
        below = np.clip((s - 1) * self.length_mm / np.maximum(thickness, 1e-3), 0, 1)
        radius = np.sqrt((endo * endo + area * stretch) * (1 - below * below))
        return np.asarray(radius * (s >= 0), dtype=np.float32)

    def rv_distance_mm(self, x: Array, y: Array, z: Array, tau: Array) -> Array:
        """Compute a distance-like value to the right ventricular outline in mm, `(Z, T, H, W)`.

        It is positive inside. The left ventricle, which bounds the cavity on the septal side, is
        not taken out of it.
        """
        s = self.long_axis_position(z, tau)
        taper = np.sqrt(np.clip(1 - (s / 0.92) ** 2, 1e-4, None))
        scale = np.asarray(
            taper * (1 - self.rv_contraction * self.contraction_curve(tau)), dtype=np.float32
        )
        half_width, half_height = self.rv_half_width_mm * scale, self.rv_half_height_mm * scale
        center = self.rv_center_mm * (0.35 + 0.65 * taper)
        ellipse = np.sqrt(((x - center) / half_width) ** 2 + (y / half_height) ** 2)
        inside = (1 - ellipse) * np.minimum(half_width, half_height)
        valid = (s >= 0) & (s < 0.92)
        return np.asarray(np.where(valid, inside, -50.0), dtype=np.float32)
