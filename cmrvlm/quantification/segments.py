"""Left ventricle in AHA segments: sectors about its axis, thickness of its wall, and scar in it.

Seventeen-segment model of Cerqueira et al., Circulation 2002;105:539, without the apex itself (17),
which short-axis slices do not show: six segments each at the base and the middle, four at the apex.
A slice belongs to a level by its position among the slices that show the wall: thirds from base to
apex.

Anterior and inferior are told apart by the scanner's orientation. Files that have lost it, such as
those of ACDC, are taken to show their pictures as a scanner does, seen from the apex: with the
septum left, anterior is on top.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cmrvlm.quantification.volumes import SCAR, WALL, mask_of
from cmrvlm.study.orientation import levels_run_to_apex, runs_to_apex
from cmrvlm.study.study import Series
from cmrvlm.study.vocabulary import LEVELS, STRUCTURES

FloatArray = NDArray[np.float64]
LV = STRUCTURES["lv"]
RV = STRUCTURES["rv"]
# Level to segment to its centre in degrees, from the direction of the right ventricle towards the
# inferior wall.
CENTRES = {
    "basal": {2: 330, 3: 30, 4: 90, 5: 150, 6: 210, 1: 270},
    "mid": {8: 330, 9: 30, 10: 90, 11: 150, 12: 210, 7: 270},
    "apical": {14: 0, 15: 90, 16: 180, 13: 270},
}
# Segment to its English and Chinese name.
SEGMENT_NAMES = {
    1: ("basal anterior", "基底段前壁"),
    2: ("basal anteroseptal", "基底段前间隔"),
    3: ("basal inferoseptal", "基底段下间隔"),
    4: ("basal inferior", "基底段下壁"),
    5: ("basal inferolateral", "基底段下侧壁"),
    6: ("basal anterolateral", "基底段前侧壁"),
    7: ("mid anterior", "中间段前壁"),
    8: ("mid anteroseptal", "中间段前间隔"),
    9: ("mid inferoseptal", "中间段下间隔"),
    10: ("mid inferior", "中间段下壁"),
    11: ("mid inferolateral", "中间段下侧壁"),
    12: ("mid anterolateral", "中间段前侧壁"),
    13: ("apical anterior", "心尖段前壁"),
    14: ("apical septal", "心尖段间隔"),
    15: ("apical inferior", "心尖段下壁"),
    16: ("apical lateral", "心尖段侧壁"),
}
# Least share of the cavity that a closed wall surrounds.
_ENCLOSED = 0.95


@dataclass(frozen=True)
class Sector:
    """Part of one slice that belongs to one segment, in one frame.

    Attributes:
        segment: Number of the AHA segment.
        slice: Index of the slice.
        width_rad: Angle that it spans.
        areas_mm2: Mask value to its area in the sector.
    """

    segment: int
    slice: int
    width_rad: float
    areas_mm2: dict[int, float]

    @property
    def cavity_mm2(self) -> float:
        """Area of the cavity."""
        return self._area_mm2((LV,))

    @property
    def wall_mm2(self) -> float:
        """Area of the wall, scar included."""
        return self._area_mm2(WALL)

    @property
    def scar_mm2(self) -> float:
        """Area of the scar, no-reflow included."""
        return self._area_mm2(SCAR)

    @property
    def radius_mm(self) -> float:
        """Radius of the circle whose sector has the area of the cavity."""
        return self._radius_mm(self.cavity_mm2)

    @property
    def thickness_mm(self) -> float:
        """Thickness of the wall in mm.

        It is the difference of the radii of two circles: whose sectors have the area of cavity and
        wall, and that of the cavity alone.
        """
        return self._radius_mm(self.cavity_mm2 + self.wall_mm2) - self.radius_mm

    def _area_mm2(self, values: tuple[int, ...]) -> float:
        """Return the area that mask values have together."""
        return sum((self.areas_mm2.get(value, 0.0) for value in values), 0.0)

    def _radius_mm(self, area_mm2: float) -> float:
        """Return the radius of the circle whose sector of this width has an area."""
        return float(np.sqrt(2 * area_mm2 / self.width_rad))


def level_of_slices(series: Series, frame: int) -> list[str | None]:
    """Return `basal`, `mid`, `apical` or None for each slice of a series with masks.

    These are the levels that the series states, else thirds of the slices that show the wall. The
    base is the end at which the ventricles are wider. Fewer than three slices with a wall have no
    levels.
    """
    if series.levels:
        return list(series.levels)
    mask = mask_of(series)[:, frame]
    levels: list[str | None] = [None] * len(mask)
    wall_slices = np.flatnonzero(np.isin(mask, WALL).any(axis=(1, 2)))
    if len(wall_slices) < len(LEVELS):
        return levels

    heart_areas = np.isin(mask, (*WALL, LV, RV)).sum(axis=(1, 2))[wall_slices]
    half = len(wall_slices) // 2
    base_is_first = heart_areas[:half].sum() >= heart_areas[-half:].sum()
    from_base = wall_slices if base_is_first else wall_slices[::-1]
    for position, index in enumerate(from_base):
        levels[int(index)] = LEVELS[3 * position // len(wall_slices)]
    return levels


def sectors(
    series: Series, frame: int, reference: int | None = None, septum: FloatArray | None = None
) -> Iterator[Sector]:
    """Yield the sectors of the segments in each slice whose cavity is surrounded by the wall.

    Angles are measured in world coordinates about the centre of the left ventricle, from the
    direction of the right ventricle. Both are taken from the reference frame, so that a segment is
    the same piece of wall at end-diastole and at end-systole. Slices without both ventricles take
    the direction of the nearest slice that shows both, else that of another series of the study;
    there is no sector where neither is known.

    Args:
        series: Series with masks; slices go from base to apex in the direction of the affine or
            against it.
        frame: Frame whose areas are measured.
        reference: Frame whose angles are used; None for the same frame.
        septum: (3,) world direction from the left ventricle to the right one, for a series that
            shows no right one.
    """
    mask = mask_of(series)
    angle_frame = frame if reference is None else reference
    levels = level_of_slices(series, angle_frame)
    septal_directions = _septal_directions(series, angle_frame, septum)
    to_apex = _base_to_apex(series, levels)
    pixel_mm2 = float(np.linalg.norm(np.cross(series.affine[:3, 0], series.affine[:3, 1])))

    for index, level in enumerate(levels):
        plane = mask[index, frame]
        cavity_mm = _plane_to_world(series, np.argwhere(mask[index, angle_frame] == LV))
        septal = septal_directions[index]
        if level is None or septal is None or not len(cavity_mm) or not _is_closed(plane):
            continue
        pixels = np.argwhere(np.isin(plane, (*WALL, LV)))  # (N, 2)
        values = plane[tuple(pixels.T)]  # (N,)
        from_centre = _plane_to_world(series, pixels) - cavity_mm.mean(axis=0)  # (N, 3)
        inferior = np.cross(to_apex, septal)
        degrees = np.rad2deg(np.arctan2(from_centre @ inferior, from_centre @ septal)) % 360

        width = 360 / len(CENTRES[level])
        for segment, centre in CENTRES[level].items():
            inside = (degrees - centre + width / 2) % 360 < width
            areas_mm2 = _areas_mm2(values[inside], pixel_mm2)
            yield Sector(segment, index, float(np.deg2rad(width)), areas_mm2)


def _areas_mm2(values: NDArray[np.uint8], pixel_mm2: float) -> dict[int, float]:
    """Return mask value to area, for the values (N,) of pixels."""
    present, counts = np.unique(values, return_counts=True)
    return {
        int(value): float(count) * pixel_mm2 for value, count in zip(present, counts, strict=True)
    }


def _is_closed(plane: NDArray[np.uint8]) -> bool:
    """Return whether the wall surrounds the cavity in a slice (H, W), specks of it left aside.

    It does not at the outflow tract.
    """
    cavity = plane == LV
    filled = ndimage.binary_fill_holes(np.isin(plane, WALL))
    return bool(cavity.any() and (cavity & filled).sum() >= _ENCLOSED * cavity.sum())


def _plane_to_world(series: Series, pixels: NDArray[np.intp]) -> FloatArray:
    """Convert pixel positions (N, 2) in a slice to world mm (N, 3), up to a shift."""
    return np.asarray(pixels @ series.affine[:3, [1, 0]].T)


def _base_to_apex(series: Series, levels: list[str | None]) -> FloatArray:
    """Return the unit vector (3,) from base to apex in world coordinates.

    It runs along the slices, in the direction that their levels tell, else the affine. Without a
    scanner's orientation neither tells a left hand from a right one; pictures are then taken to be
    seen from the apex.
    """
    columns, rows, slices = series.affine[:3, :3].T
    forward = runs_to_apex(series.affine)
    if forward is None:
        direction = -np.cross(columns, rows)
    else:
        by_levels = levels_run_to_apex(levels)
        if by_levels is not None:
            forward = by_levels
        direction = slices if forward else -slices
    return _unit(direction)


def _unit(vector: FloatArray) -> FloatArray:
    """Return a vector (3,) scaled to length one."""
    return np.asarray(vector / np.linalg.norm(vector))


def septum_direction(series: Series, frame: int) -> FloatArray | None:
    """Return the mean world direction (3,) from the left ventricle to the right one.

    None where no slice shows both ventricles.
    """
    directions = [
        direction
        for direction in _septal_directions(series, frame, elsewhere=None)
        if direction is not None
    ]
    return _unit(np.mean(directions, axis=0)) if directions else None


def _septal_directions(
    series: Series, frame: int, elsewhere: FloatArray | None
) -> list[FloatArray | None]:
    """Return for each slice the unit vector (3,) from the left ventricle to the right one.

    Args:
        series: Series with masks.
        frame: Index of the frame.
        elsewhere: (3,) direction in another series of the study; its part in the plane of the
            slices is used where no slice shows both ventricles.

    Returns:
        Z directions. A slice that does not show both ventricles has that of the nearest slice that
        does.
    """
    masks = mask_of(series)[:, frame]
    known: dict[int, FloatArray] = {}
    for index, plane in enumerate(masks):
        left_mm = _plane_to_world(series, np.argwhere(plane == LV))
        right_mm = _plane_to_world(series, np.argwhere(plane == RV))
        if len(left_mm) and len(right_mm):
            known[index] = _unit(right_mm.mean(axis=0) - left_mm.mean(axis=0))
    if not known and elsewhere is not None:
        normal = _unit(series.affine[:3, 2])
        known[0] = _unit(elsewhere - normal * float(elsewhere @ normal))
    if not known:
        return [None] * len(masks)

    directions: list[FloatArray | None] = []
    for index in range(len(masks)):
        nearest = min(known, key=lambda other: abs(other - index))
        directions.append(known[nearest])
    return directions


def thickness_mm(series: Series, frame: int, reference: int | None = None) -> dict[int, float]:
    """Return segment to wall thickness, the mean over the slices that show it."""
    pairs = [(sector.segment, sector.thickness_mm) for sector in sectors(series, frame, reference)]
    return _mean_by_segment(pairs)


def thickening_percent(series: Series, ed: int, es: int) -> dict[int, float]:
    """Return segment to wall thickening in %, over the slices that show it in both frames."""
    diastolic = _thickness_by_sector(series, ed, reference=ed)
    systolic = _thickness_by_sector(series, es, reference=ed)
    both = sorted(diastolic.keys() & systolic.keys())
    before = _mean_by_segment([(segment, diastolic[segment, index]) for segment, index in both])
    after = _mean_by_segment([(segment, systolic[segment, index]) for segment, index in both])
    return {
        segment: 100 * (after[segment] - thickness) / thickness
        for segment, thickness in before.items()
        if thickness > 0
    }


def _thickness_by_sector(
    series: Series, frame: int, reference: int
) -> dict[tuple[int, int], float]:
    """Return (segment, slice) to thickness of the wall in mm."""
    return {
        (sector.segment, sector.slice): sector.thickness_mm
        for sector in sectors(series, frame, reference)
    }


def transmurality_percent(
    series: Series, frame: int = 0, septum: FloatArray | None = None
) -> dict[int, float]:
    """Return segment to the share of its wall area that is scar, in %.

    As in Kim et al., N Engl J Med 2000;343:1445.

    Args:
        series: Series with masks.
        frame: Index of the frame.
        septum: (3,) world direction, see `sectors`.
    """
    scar_mm2: dict[int, float] = {}
    wall_mm2: dict[int, float] = {}
    for sector in sectors(series, frame, septum=septum):
        segment = sector.segment
        scar_mm2[segment] = scar_mm2.get(segment, 0.0) + sector.scar_mm2
        wall_mm2[segment] = wall_mm2.get(segment, 0.0) + sector.wall_mm2
    return {
        segment: 100 * scar_mm2[segment] / area
        for segment, area in sorted(wall_mm2.items())
        if area > 0
    }


def _mean_by_segment(pairs: Iterable[tuple[int, float]]) -> dict[int, float]:
    """Return segment to the mean of its values, in ascending order of segments."""
    values: dict[int, list[float]] = {}
    for segment, value in pairs:
        values.setdefault(segment, []).append(value)
    return {segment: float(np.mean(items)) for segment, items in sorted(values.items())}
