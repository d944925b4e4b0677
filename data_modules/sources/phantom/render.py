"""Pictures of the analytic heart: bSSFP-like cine and inversion-recovery LGE, with their masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmrvlm.study.vocabulary import STRUCTURES
from data_modules.sources.phantom.anatomy import Array, Heart

# Relative grey values of tissues; blood of the cine is 1.
CINE_TISSUE = {
    "blood": 1.0,
    "myo": 0.38,
    "fat": 0.92,
    "lung": 0.06,
    "liver": 0.5,
    "muscle": 0.33,
    "effusion": 1.2,
    "pericardium": 0.12,
    "thrombus": 0.28,
    "mass": 0.6,
    "jet": 0.4,
    "rv_fat": 0.85,
    "scar": 0.38,
    "no_reflow": 0.38,
    "rv_scar": 0.38,
}
LGE_TISSUE = {
    "blood": 0.55,
    "myo": 0.1,
    "fat": 0.8,
    "lung": 0.05,
    "liver": 0.3,
    "muscle": 0.2,
    "effusion": 0.14,
    "pericardium": 0.95,
    "thrombus": 0.02,
    "mass": 0.75,
    "jet": 0.55,
    "rv_fat": 0.8,
    "scar": 1.0,
    "no_reflow": 0.06,
    "rv_scar": 0.95,
}
NORMAL_PERICARDIUM_MM = 1.2


@dataclass(frozen=True)
class Plane:
    """Where the pixels lie in the heart frame: x, y, z in mm, broadcastable to (Z, 1, H, W), and the pixel size."""

    x: Array
    y: Array
    z: Array
    pixel_mm: float


@dataclass(frozen=True)
class Scanner:
    """How a scanner turns tissue into grey values.

    Attributes:
        noise: Standard deviation of the noise relative to blood.
        shading: Largest share by which the coil brightens or darkens a border.
        contrast_jitter: Standard deviation of the share by which each tissue's value varies between subjects.
        gamma: Exponent on grey values; 1 leaves them.
    """

    noise: float = 0.04
    shading: float = 0.25
    contrast_jitter: float = 0.06
    gamma: float = 1.0


class _Canvas:
    """An image that structures are painted on in order, with edges softened over one pixel."""

    def __init__(self, shape: tuple[int, ...], pixel_mm: float, value: float) -> None:
        self.image = np.full(shape, value, dtype=np.float32)
        self.pixel_mm = np.float32(pixel_mm)

    def paint(self, distance_mm: Array, value: float, strength: Array | float = 1.0) -> None:
        alpha = np.clip(distance_mm / self.pixel_mm + np.float32(0.5), 0, 1) * strength
        self.image += alpha * (np.float32(value) - self.image)


@dataclass(frozen=True)
class Surfaces:
    """Signed distances in mm, positive inside, for one plane and the given times; axes (Z, T, H, W)."""

    theta: Array
    endo: Array
    epi: Array
    rv: Array
    la: Array
    ra: Array
    depth: Array  # transmural position: 0 endocardium, 1 epicardium


def surfaces(heart: Heart, plane: Plane, tau: Array) -> Surfaces:
    """Evaluate the heart's surfaces at the plane's pixels and at times `tau`, shape (1, T, 1, 1)."""
    rho = np.sqrt(plane.x**2 + plane.y**2).astype(np.float32)
    theta = np.arctan2(plane.y, plane.x).astype(np.float32)
    endo_radius = heart.endo_radius_mm(theta, plane.z, tau)
    epi_radius = heart.epi_radius_mm(theta, plane.z, tau, endo_radius)
    base = heart.base_mm(tau)
    filling = 1 + 0.12 * heart.contraction_curve(tau)

    def atrium(x_mm: float, radius_mm: float) -> Array:
        away = np.sqrt(
            (plane.x - x_mm) ** 2 + plane.y**2 + (plane.z - base + radius_mm * 1.05) ** 2
        )
        return np.asarray(radius_mm * filling - away, dtype=np.float32)

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


def _background(canvas: _Canvas, plane: Plane, tissue: dict[str, float]) -> None:
    x, y, z = plane.x, plane.y, plane.z
    chest = 1 - np.sqrt(((x + 15) / 125) ** 2 + ((y + 8) / 98) ** 2)
    canvas.paint(np.asarray(-chest * 100, dtype=np.float32), tissue["fat"])
    canvas.paint(np.asarray((0.12 - np.abs(chest - 0.1)) * 60, dtype=np.float32), tissue["muscle"])
    liver = np.minimum(-y - 42 + 0.25 * x, z - 10)
    canvas.paint(np.asarray(np.minimum(liver, chest * 100), dtype=np.float32), tissue["liver"])
    aorta = 11 - np.sqrt((x - 42) ** 2 + (y + 48) ** 2)
    canvas.paint(np.asarray(aorta, dtype=np.float32), tissue["blood"])


def _around_heart(
    canvas: _Canvas, heart: Heart, shape: Surfaces, plane: Plane, tissue: dict[str, float]
) -> None:
    wall = np.maximum(
        np.maximum(shape.epi, shape.rv + heart.rv_wall_mm), np.maximum(shape.la, shape.ra) + 2
    )
    thick = heart.pericardium_mm or NORMAL_PERICARDIUM_MM
    pericardium = tissue["pericardium"] if heart.pericardium_mm else 0.15
    canvas.paint(wall + heart.effusion_mm + thick + 4, tissue["fat"])
    canvas.paint(wall + heart.effusion_mm + thick, pericardium)
    if heart.effusion_mm:
        canvas.paint(wall + heart.effusion_mm, tissue["effusion"])
    if heart.pleural_mm:
        pleura = np.minimum(np.minimum(-plane.y - 62 + heart.pleural_mm, plane.x + 10), -wall - 12)
        canvas.paint(np.asarray(pleura, dtype=np.float32), tissue["effusion"])


def _chambers(
    canvas: _Canvas, heart: Heart, shape: Surfaces, plane: Plane, tissue: dict[str, float]
) -> None:
    rv_free = shape.rv + heart.rv_wall_mm
    canvas.paint(rv_free, tissue["myo"])
    if heart.rv_fat or heart.rv_scar:
        lateral = np.asarray(np.clip((-plane.x - 25) / 10, 0, 1), dtype=np.float32)
        rim = np.minimum(rv_free + 1.5, -shape.rv + 1.5)
        canvas.paint(rim, tissue["rv_fat"] if heart.rv_fat else tissue["rv_scar"], lateral)
        if heart.rv_scar:
            canvas.paint(rim - 1, tissue["rv_scar"], lateral * (tissue["rv_scar"] > 0.5))
    canvas.paint(np.maximum(shape.la, shape.ra) + 2, tissue["myo"])
    canvas.paint(np.maximum(shape.la, shape.ra), tissue["blood"])
    canvas.paint(shape.rv, tissue["blood"])
    canvas.paint(shape.epi, tissue["myo"])
    canvas.paint(shape.endo, tissue["blood"])


def _lesions(
    canvas: _Canvas,
    heart: Heart,
    shape: Surfaces,
    plane: Plane,
    tau: Array,
    tissue: dict[str, float],
) -> None:
    x, y, z = plane.x, plane.y, plane.z
    base, squeeze = heart.base_mm(tau), heart.contraction_curve(tau)
    if heart.trabeculation:
        spokes = 0.5 + 0.5 * np.sin(shape.theta * 14 + z * 0.35)
        share = 1 - heart.trabeculation
        inner = shape.endo - (1 - share) * (shape.endo + np.sqrt(x**2 + y**2))
        layer = np.minimum(shape.endo, -inner)
        where = np.clip(z / heart.length_mm * 2 - 0.4, 0, 1) * np.clip(
            0.6 + np.cos(shape.theta), 0, 1
        )
        canvas.paint(layer, tissue["myo"], np.asarray(spokes * where, dtype=np.float32))
    if heart.thrombus_mm:
        away = np.sqrt(x**2 + y**2 + (z - heart.length_mm * 0.82) ** 2)
        canvas.paint(np.minimum(heart.thrombus_mm - away, shape.endo), tissue["thrombus"])
    if heart.mass_mm:
        cx, cy, cz = heart.mass_center_mm
        away = np.sqrt((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2)
        canvas.paint(np.asarray(heart.mass_mm - away, dtype=np.float32), tissue["mass"])
    ra_center = -heart.la_radius_mm * 0.65 - 3 - heart.ra_radius_mm
    jets = (
        (heart.mitral_jet, heart.la_radius_mm * 0.35, -1.0, squeeze),
        (heart.tricuspid_jet, ra_center, -1.0, squeeze),
        (heart.aortic_jet, -6.0, 1.0, 1 - squeeze),
    )
    for strength, x_mm, direction, timing in jets:
        if strength:
            along = (z - base) * direction
            cone = 4.5 + 0.12 * along - np.sqrt((x - x_mm) ** 2 + y**2)
            inside = np.minimum(cone, np.minimum(along + 2, 30 - along))
            canvas.paint(
                np.asarray(inside, dtype=np.float32), tissue["jet"], np.float32(strength) * timing
            )
    if heart.septal_defect_mm:
        height = z - base + heart.ra_radius_mm
        middle = -heart.la_radius_mm * 0.65 - 1.5
        hole = heart.septal_defect_mm / 2 - np.sqrt(height**2 + y**2)
        gap = np.minimum(hole, 9 - np.abs(x - middle))
        canvas.paint(np.asarray(gap, dtype=np.float32), tissue["blood"])


def _scar_membership(
    heart: Heart, shape: Surfaces, plane: Plane
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    wall = (shape.epi > 0) & (shape.endo <= 0)
    scar = np.zeros(wall.shape, dtype=bool)
    core = np.zeros(wall.shape, dtype=bool)
    s0 = plane.z / heart.length_mm
    for patch in heart.scars:
        inside = patch.weight(shape.theta, s0) > 0.5
        scar |= wall & inside & (shape.depth >= patch.depth[0]) & (shape.depth <= patch.depth[1])
        if heart.no_reflow:
            small = patch.core().weight(shape.theta, s0) > 0.5
            core |= wall & small & (shape.depth > 0.15) & (shape.depth < 0.55)
    return scar, core & scar


def render(
    heart: Heart,
    plane: Plane,
    tau: Array,
    scanner: Scanner,
    rng: np.random.Generator,
    *,
    lge: bool,
    atria: bool,
) -> tuple[Array, NDArray[np.uint8]]:
    """Draw one stack.

    Args:
        heart: The subject.
        plane: Pixel positions, broadcastable to (Z, 1, H, W).
        tau: Times as shares of the R-R interval, (1, T, 1, 1).
        scanner: Noise, shading and contrast.
        rng: Source of noise and contrast variation.
        lge: Inversion-recovery contrast with scars instead of cine contrast.
        atria: Label the atria too, as is done on long axes alone.

    Returns:
        Grey values (Z, T, H, W) and canonical structure values on the same grid.
    """
    table = dict(LGE_TISSUE if lge else CINE_TISSUE)
    if lge and heart.dark_blood:
        table.update(blood=0.22, myo=0.34, jet=0.22)
    tissue = {
        name: value * float(1 + scanner.contrast_jitter * rng.standard_normal())
        for name, value in table.items()
    }
    shape = surfaces(heart, plane, tau)
    canvas = _Canvas(shape.epi.shape, plane.pixel_mm, tissue["lung"])
    _background(canvas, plane, tissue)
    _around_heart(canvas, heart, shape, plane, tissue)
    _chambers(canvas, heart, shape, plane, tissue)
    mask = np.zeros(shape.epi.shape, dtype=np.uint8)
    if atria:
        mask[shape.la > 0] = STRUCTURES["la"]
        mask[shape.ra > 0] = STRUCTURES["ra"]
    mask[shape.rv > 0] = STRUCTURES["rv"]
    mask[shape.epi > 0] = STRUCTURES["myo"]
    mask[shape.endo > 0] = STRUCTURES["lv"]
    if lge and heart.scars:
        scar, core = _scar_membership(heart, shape, plane)
        canvas.image[scar] = tissue["scar"]
        canvas.image[core] = tissue["no_reflow"]
        mask[scar] = STRUCTURES["scar"]
        mask[core] = STRUCTURES["no_reflow"]
    _lesions(canvas, heart, shape, plane, tau, tissue)
    return _scan(canvas.image, scanner, rng), mask


def _scan(image: Array, scanner: Scanner, rng: np.random.Generator) -> Array:
    """Coil shading, gamma and noise; the magnitude of a noisy signal, as scanners store it."""
    height, width = image.shape[-2:]
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    a, b, c = (scanner.shading * rng.uniform(-1, 1, 3)).astype(np.float32)
    field = 1 + a * rows + b * columns + c * (rows**2 + columns**2 - 0.7)
    if scanner.gamma != 1.0:
        image = np.power(np.clip(image, 0, None), np.float32(scanner.gamma))
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(scanner.noise)
    return np.abs(image * np.clip(field, 0.3, None) + noise) * np.float32(1000)
