"""Images of the analytic heart: bSSFP-like cine and inversion-recovery LGE, with their masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmrvlm.study.vocabulary import STRUCTURES
from data_modules.sources.phantom.anatomy import Array, Heart
from data_modules.sources.phantom.surfaces import Plane, Surfaces, evaluate_surfaces

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
ATRIAL_WALL_MM = 2


@dataclass(frozen=True)
class Scanner:
    """A scanner, which turns tissue into grey values.

    Attributes:
        noise: Standard deviation of the noise relative to blood.
        shading: Largest share by which the coil brightens or darkens a border.
        contrast_jitter: Standard deviation of the share by which each tissue's value varies between
            subjects.
        gamma: Exponent on grey values; 1 leaves them.
    """

    noise: float = 0.04
    shading: float = 0.25
    contrast_jitter: float = 0.06
    gamma: float = 1.0


class _Canvas:
    """An image that structures are painted on in order, with edges softened over one pixel.

    Args:
        shape: Shape `(Z, T, H, W)`.
        pixel_mm: Size of a pixel.
        value: Grey value of the background.
    """

    def __init__(self, shape: tuple[int, ...], pixel_mm: float, value: float) -> None:
        self.image = np.full(shape, value, dtype=np.float32)
        self.pixel_mm = np.float32(pixel_mm)

    def paint(self, distance_mm: Array, value: float, strength: Array | float = 1.0) -> None:
        """Paint a structure.

        Args:
            distance_mm: Signed distance `(Z, T, H, W)` to its border, positive inside.
            value: Its grey value.
            strength: Opacity in [0, 1], broadcastable to `(Z, T, H, W)`.
        """
        alpha = np.clip(distance_mm / self.pixel_mm + np.float32(0.5), 0, 1) * strength
        self.image += alpha * (np.float32(value) - self.image)


def _paint_background(canvas: _Canvas, plane: Plane, tissue: dict[str, float]) -> None:
    """Paint the chest with fat, muscle, liver and descending aorta."""
    x, y, z = plane.x, plane.y, plane.z
    chest = 1 - np.sqrt(((x + 15) / 125) ** 2 + ((y + 8) / 98) ** 2)
    canvas.paint(np.asarray(-chest * 100, dtype=np.float32), tissue["fat"])
    canvas.paint(np.asarray((0.12 - np.abs(chest - 0.1)) * 60, dtype=np.float32), tissue["muscle"])
    liver = np.minimum(-y - 42 + 0.25 * x, z - 10)
    canvas.paint(np.asarray(np.minimum(liver, chest * 100), dtype=np.float32), tissue["liver"])
    aorta = 11 - np.sqrt((x - 42) ** 2 + (y + 48) ** 2)
    canvas.paint(np.asarray(aorta, dtype=np.float32), tissue["blood"])


def _paint_pericardium(
    canvas: _Canvas, heart: Heart, surfaces: Surfaces, plane: Plane, tissue: dict[str, float]
) -> None:
    """Paint the pericardium, its fat, and effusions around heart and lung."""
    ventricles = np.maximum(surfaces.epi, surfaces.rv + heart.rv_wall_mm)
    outline = np.maximum(ventricles, np.maximum(surfaces.la, surfaces.ra) + ATRIAL_WALL_MM)
    thickness_mm = heart.pericardium_mm or NORMAL_PERICARDIUM_MM
    pericardium = tissue["pericardium"] if heart.pericardium_mm else 0.15
    canvas.paint(outline + heart.effusion_mm + thickness_mm + 4, tissue["fat"])
    canvas.paint(outline + heart.effusion_mm + thickness_mm, pericardium)
    if heart.effusion_mm:
        canvas.paint(outline + heart.effusion_mm, tissue["effusion"])
    if heart.pleural_mm:
        dorsal = np.minimum(-plane.y - 62 + heart.pleural_mm, plane.x + 10)
        pleura = np.minimum(dorsal, -outline - 12)
        canvas.paint(np.asarray(pleura, dtype=np.float32), tissue["effusion"])


def _paint_chambers(
    canvas: _Canvas, heart: Heart, surfaces: Surfaces, plane: Plane, tissue: dict[str, float]
) -> None:
    """Paint walls and blood of the four chambers."""
    rv_outline = surfaces.rv + heart.rv_wall_mm
    canvas.paint(rv_outline, tissue["myo"])
    if heart.rv_fat or heart.rv_scar:
        free_wall = np.asarray(np.clip((-plane.x - 25) / 10, 0, 1), dtype=np.float32)
        rim = np.minimum(rv_outline + 1.5, -surfaces.rv + 1.5)
        rim_value = tissue["rv_fat"] if heart.rv_fat else tissue["rv_scar"]
        canvas.paint(rim, rim_value, free_wall)
        # On a cine the scar is as dark as the wall and is not seen.
        if heart.rv_scar and tissue["rv_scar"] > 0.5:
            canvas.paint(rim - 1, tissue["rv_scar"], free_wall)
    atria = np.maximum(surfaces.la, surfaces.ra)
    canvas.paint(atria + ATRIAL_WALL_MM, tissue["myo"])
    canvas.paint(atria, tissue["blood"])
    canvas.paint(surfaces.rv, tissue["blood"])
    canvas.paint(surfaces.epi, tissue["myo"])
    canvas.paint(surfaces.endo, tissue["blood"])


def _paint_lesions(
    canvas: _Canvas,
    heart: Heart,
    surfaces: Surfaces,
    plane: Plane,
    tau: Array,
    tissue: dict[str, float],
) -> None:
    """Paint trabeculae, thrombus, mass, jets and septal defect, as far as the heart has them."""
    if heart.trabeculation:
        _paint_trabeculae(canvas, heart, surfaces, plane, tissue)
    x, y, z = plane.x, plane.y, plane.z
    if heart.thrombus_mm:
        distance = np.sqrt(x**2 + y**2 + (z - heart.length_mm * 0.82) ** 2)
        thrombus = np.minimum(heart.thrombus_mm - distance, surfaces.endo)
        canvas.paint(thrombus, tissue["thrombus"])
    if heart.mass_mm:
        x_mm, y_mm, z_mm = heart.mass_center_mm
        distance = np.sqrt((x - x_mm) ** 2 + (y - y_mm) ** 2 + (z - z_mm) ** 2)
        canvas.paint(np.asarray(heart.mass_mm - distance, dtype=np.float32), tissue["mass"])
    _paint_jets(canvas, heart, plane, tau, tissue)
    if heart.septal_defect_mm:
        height = z - heart.base_mm(tau) + heart.ra_radius_mm
        septum_x_mm = -heart.la_radius_mm * 0.65 - 1.5
        hole = heart.septal_defect_mm / 2 - np.sqrt(height**2 + y**2)
        defect = np.minimum(hole, 9 - np.abs(x - septum_x_mm))
        canvas.paint(np.asarray(defect, dtype=np.float32), tissue["blood"])


def _paint_trabeculae(
    canvas: _Canvas, heart: Heart, surfaces: Surfaces, plane: Plane, tissue: dict[str, float]
) -> None:
    """Paint muscle and blood in turns on the inner layer of the apical and lateral wall."""
    spokes = 0.5 + 0.5 * np.sin(surfaces.theta * 14 + plane.z * 0.35)
    share = 1 - heart.trabeculation
    inner = surfaces.endo - (1 - share) * (surfaces.endo + np.sqrt(plane.x**2 + plane.y**2))
    layer = np.minimum(surfaces.endo, -inner)
    apical = np.clip(plane.z / heart.length_mm * 2 - 0.4, 0, 1)
    lateral = np.clip(0.6 + np.cos(surfaces.theta), 0, 1)
    strength = spokes * (apical * lateral)
    canvas.paint(layer, tissue["myo"], np.asarray(strength, dtype=np.float32))


def _paint_jets(
    canvas: _Canvas, heart: Heart, plane: Plane, tau: Array, tissue: dict[str, float]
) -> None:
    """Paint the dark jets of regurgitant valves, in systole or for the aortic valve after it."""
    base = heart.base_mm(tau)
    systole = heart.contraction_curve(tau)
    ra_x_mm = -heart.la_radius_mm * 0.65 - 3 - heart.ra_radius_mm
    jets = (
        (heart.mitral_jet, heart.la_radius_mm * 0.35, -1.0, systole),
        (heart.tricuspid_jet, ra_x_mm, -1.0, systole),
        (heart.aortic_jet, -6.0, 1.0, 1 - systole),
    )
    for strength, x_mm, direction, timing in jets:
        if not strength:
            continue
        along = (plane.z - base) * direction
        cone = 4.5 + 0.12 * along - np.sqrt((plane.x - x_mm) ** 2 + plane.y**2)
        jet = np.minimum(cone, np.minimum(along + 2, 30 - along))
        opacity = np.float32(strength) * timing
        canvas.paint(np.asarray(jet, dtype=np.float32), tissue["jet"], opacity)


def _locate_scar(
    heart: Heart, surfaces: Surfaces, plane: Plane
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the voxels of scar and of the no-reflow core in it, both `(Z, T, H, W)`."""
    wall = (surfaces.epi > 0) & (surfaces.endo <= 0)
    scar = np.zeros(wall.shape, dtype=bool)
    core = np.zeros(wall.shape, dtype=bool)
    s0 = plane.z / heart.length_mm
    for patch in heart.scars:
        inside = patch.weight(surfaces.theta, s0) > 0.5
        scar |= (
            wall & inside & (surfaces.depth >= patch.depth[0]) & (surfaces.depth <= patch.depth[1])
        )
        if heart.no_reflow:
            small = patch.core().weight(surfaces.theta, s0) > 0.5
            core |= wall & small & (surfaces.depth > 0.15) & (surfaces.depth < 0.55)
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
    """Render one stack.

    Args:
        heart: The subject.
        plane: Pixel positions, broadcastable to `(Z, 1, H, W)`.
        tau: Times as shares of the R-R interval, `(1, T, 1, 1)`.
        scanner: Noise, shading and contrast.
        rng: Source of noise and contrast variation.
        lge: Whether to use inversion-recovery contrast with scars instead of cine contrast.
        atria: Whether to label the atria too, as is done on long axes alone.

    Returns:
        Grey values `(Z, T, H, W)` and canonical structure values on the same grid.
    """
    table = dict(LGE_TISSUE if lge else CINE_TISSUE)
    if lge and heart.dark_blood:
        table.update(blood=0.22, myo=0.34, jet=0.22)
    tissue = {
        name: value * float(1 + scanner.contrast_jitter * rng.standard_normal())
        for name, value in table.items()
    }
    surfaces = evaluate_surfaces(heart, plane, tau)
    canvas = _Canvas(surfaces.epi.shape, plane.pixel_mm, tissue["lung"])
    _paint_background(canvas, plane, tissue)
    _paint_pericardium(canvas, heart, surfaces, plane, tissue)
    _paint_chambers(canvas, heart, surfaces, plane, tissue)
    mask = np.zeros(surfaces.epi.shape, dtype=np.uint8)
    if atria:
        mask[surfaces.la > 0] = STRUCTURES["la"]
        mask[surfaces.ra > 0] = STRUCTURES["ra"]
    mask[surfaces.rv > 0] = STRUCTURES["rv"]
    mask[surfaces.epi > 0] = STRUCTURES["myo"]
    mask[surfaces.endo > 0] = STRUCTURES["lv"]
    if lge and heart.scars:
        scar, core = _locate_scar(heart, surfaces, plane)
        canvas.image[scar] = tissue["scar"]
        canvas.image[core] = tissue["no_reflow"]
        mask[scar] = STRUCTURES["scar"]
        mask[core] = STRUCTURES["no_reflow"]
    _paint_lesions(canvas, heart, surfaces, plane, tau, tissue)
    return _scan(canvas.image, scanner, rng), mask


def _scan(image: Array, scanner: Scanner, rng: np.random.Generator) -> Array:
    """Apply coil shading, gamma and noise to tissue values `(Z, T, H, W)`.

    Returns:
        Magnitude of the noisy signal, as scanners store it, in the same shape.
    """
    height, width = image.shape[-2:]
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    linear_y, linear_x, quadratic = (scanner.shading * rng.uniform(-1, 1, 3)).astype(np.float32)
    field = 1 + linear_y * rows + linear_x * columns
    field = field + quadratic * (rows**2 + columns**2 - 0.7)
    if scanner.gamma != 1.0:
        image = np.power(np.clip(image, 0, None), np.float32(scanner.gamma))
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(scanner.noise)
    return np.abs(image * np.clip(field, 0.3, None) + noise) * np.float32(1000)
