"""The left ventricle in AHA segments: angles about its axis, thickness of its wall, and scar in it.

Seventeen-segment model of Cerqueira et al., Circulation 2002;105:539, without the apex itself (17), which short-axis
slices do not show: six segments each at the base and the middle, four at the apex. A slice belongs to a level by its
place among those with a wall: thirds from base to apex.

Anterior and inferior are told apart by the scanner's orientation. Files that have lost it, as those of ACDC, are taken
to show their pictures as a scanner does, seen from the apex: with the septum left, anterior is on top.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cmrvlm.quantification.ventricles import WALL
from cmrvlm.study.orientation import levels_run_to_apex, runs_to_apex
from cmrvlm.study.structures import STRUCTURE_VALUES
from cmrvlm.study.study import Series
from cmrvlm.study.vocabulary import LEVELS, STRUCTURES

FloatArray = NDArray[np.float64]
# Centre of each segment in degrees, from the direction of the right ventricle towards the inferior wall.
CENTRES = {
    "basal": {2: 330, 3: 30, 4: 90, 5: 150, 6: 210, 1: 270},
    "mid": {8: 330, 9: 30, 10: 90, 11: 150, 12: 210, 7: 270},
    "apical": {14: 0, 15: 90, 16: 180, 13: 270},
}
NAMES = {
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
_ENCLOSED = 0.95  # of the cavity
SCAR = STRUCTURE_VALUES["scar"]


@dataclass(frozen=True)
class Sector:
    """Part of one slice that belongs to one segment, in one frame.

    Attributes:
        segment: Number of the AHA segment.
        slice: Slice.
        width_rad: Angle that it spans.
        areas_mm2: Structure value to its area in it.
    """

    segment: int
    slice: int
    width_rad: float
    areas_mm2: dict[int, float]

    @property
    def cavity_mm2(self) -> float:
        """Area of the cavity."""
        return self.areas_mm2.get(STRUCTURES["lv"], 0.0)

    @property
    def wall_mm2(self) -> float:
        """Area of the wall, scar with it."""
        return sum(self.areas_mm2.get(value, 0.0) for value in WALL)

    @property
    def scar_mm2(self) -> float:
        """Area of the scar, no-reflow with it."""
        return sum(self.areas_mm2.get(value, 0.0) for value in SCAR)

    @property
    def radius_mm(self) -> float:
        """Radius of the cavity: that of a circle's sector with its area."""
        return float(np.sqrt(2 * self.cavity_mm2 / self.width_rad))

    @property
    def thickness_mm(self) -> float:
        """Thickness of the wall: between the radii of two circles' sectors with the areas without and with it."""
        return (
            float(np.sqrt(2 * (self.cavity_mm2 + self.wall_mm2) / self.width_rad)) - self.radius_mm
        )


def level_of_slices(series: Series, frame: int) -> list[str | None]:
    """`basal`, `mid` or `apical` for each slice: what the series says, else thirds of those with a wall, base first.

    The base is the end at which the ventricles are wider. Fewer than three slices with a wall have no thirds.
    """
    assert series.mask is not None
    if series.levels:
        return list(series.levels)
    mask = series.mask[:, frame]
    wall = np.flatnonzero(np.isin(mask, WALL).any(axis=(1, 2)))
    levels: list[str | None] = [None] * len(mask)
    if len(wall) < len(LEVELS):
        return levels
    areas = np.isin(mask, (*WALL, STRUCTURES["lv"], STRUCTURES["rv"])).sum(axis=(1, 2))[wall]
    half = len(wall) // 2
    from_base = wall if areas[:half].sum() >= areas[len(wall) - half :].sum() else wall[::-1]
    for place, index in enumerate(from_base):
        levels[int(index)] = LEVELS[min(2, 3 * place // len(wall))]
    return levels


def sectors(
    series: Series, frame: int, reference: int | None = None, septum: FloatArray | None = None
) -> Iterator[Sector]:
    """The segments' sectors in each slice whose cavity the wall goes all around.

    Angles are taken in world mm about the centre of the left ventricle, from the direction of the right one; both are
    those of the reference frame, so that a segment is the same piece of wall at end-diastole and at end-systole. Slices
    without both ventricles take the direction of the nearest slice that has them, without any that of another series of
    the study; without that there is no sector.

    Args:
        series: With masks; slices go from base to apex in the direction of the affine or against it.
        frame: Whose areas are taken.
        reference: Whose angles are taken; None for the same frame.
        septum: World direction from the left ventricle to the right one, where the series itself shows no right one.
    """
    assert series.mask is not None
    at = frame if reference is None else reference
    levels, septal = level_of_slices(series, at), _septal_directions(series, at, septum)
    to_apex = _to_apex(series, levels)
    pixel_mm2 = float(np.linalg.norm(np.cross(series.affine[:3, 0], series.affine[:3, 1])))
    for index, level in enumerate(levels):
        mask = series.mask[index, frame]
        points, right = (
            _world(series, np.argwhere(series.mask[index, at] == STRUCTURES["lv"])),
            septal[index],
        )
        if level is None or right is None or not len(points) or not _closed(mask):
            continue
        inferior = np.cross(to_apex, right)
        rows = np.argwhere(np.isin(mask, (*WALL, STRUCTURES["lv"])))
        gap = _world(series, rows) - points.mean(axis=0)
        degrees = np.rad2deg(np.arctan2(gap @ inferior, gap @ right)) % 360
        own = mask[tuple(rows.T)]
        width = 360 / len(CENTRES[level])
        for segment, centre in CENTRES[level].items():
            inside = (degrees - centre + width / 2) % 360 < width
            areas = {
                int(value): float(count) * pixel_mm2
                for value, count in zip(*np.unique(own[inside], return_counts=True), strict=True)
            }
            yield Sector(segment, index, float(np.deg2rad(width)), areas)


def _closed(mask: NDArray[np.uint8]) -> bool:
    """Whether the wall goes all around the cavity, which it does not at the outflow tract; specks do not count."""
    inside = mask == STRUCTURES["lv"]
    within = ndimage.binary_fill_holes(np.isin(mask, WALL))
    return bool(inside.any() and (inside & within).sum() >= _ENCLOSED * inside.sum())


def _world(series: Series, rows: NDArray[np.intp]) -> FloatArray:
    """World mm (n, 3) of places (n, 2) in a slice's plane, up to a shift."""
    return np.asarray(rows @ series.affine[:3, [1, 0]].T)


def _to_apex(series: Series, levels: list[str | None]) -> FloatArray:
    """Unit vector from base to apex: along the slices, or out of the pictures where the scanner's orientation is lost.

    The levels tell which way along the slices, else the affine does. Without an orientation neither tells a left hand
    from a right one, so that whoever looks at the pictures is taken to stand at the apex.
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
    return np.asarray(direction / np.linalg.norm(direction))


def septum_direction(series: Series, frame: int) -> FloatArray | None:
    """World unit vector from the left ventricle to the right one, over all slices; None where none shows both."""
    known = [one for one in _septal_directions(series, frame, None) if one is not None]
    if not known:
        return None
    mean = np.mean(known, axis=0)
    return np.asarray(mean / np.linalg.norm(mean))


def _septal_directions(
    series: Series, frame: int, elsewhere: FloatArray | None
) -> list[FloatArray | None]:
    """For each slice the unit vector from the left ventricle to the right one; the nearest slice's if it lacks one.

    Without any it is that of elsewhere, in the plane of the slices.
    """
    assert series.mask is not None
    found: dict[int, FloatArray] = {}
    for index, mask in enumerate(series.mask[:, frame]):
        left, right = (
            _world(series, np.argwhere(mask == STRUCTURES[name])) for name in ("lv", "rv")
        )
        if len(left) and len(right):
            gap = right.mean(axis=0) - left.mean(axis=0)
            found[index] = gap / np.linalg.norm(gap)
    if not found and elsewhere is not None:
        normal = series.affine[:3, 2] / np.linalg.norm(series.affine[:3, 2])
        flat = elsewhere - normal * float(elsewhere @ normal)
        found[0] = flat / np.linalg.norm(flat)
    return [
        found[min(found, key=lambda one: abs(one - index))] if found else None
        for index in range(len(series.mask))
    ]


def thickness_mm(series: Series, frame: int, reference: int | None = None) -> dict[int, float]:
    """Segment to the thickness of its wall, the mean over its slices; segments that no slice shows are absent."""
    return _mean_by_segment(
        [(one.segment, one.thickness_mm) for one in sectors(series, frame, reference)]
    )


def thickening_percent(series: Series, ed: int, es: int) -> dict[int, float]:
    """Segment to the systolic thickening of its wall in %, over slices that show it at both times."""
    before, after = (
        {(one.segment, one.slice): one.thickness_mm for one in sectors(series, frame, reference=ed)}
        for frame in (ed, es)
    )
    both = sorted(before.keys() & after.keys())
    thick, thicker = (
        _mean_by_segment([(segment, own[segment, index]) for segment, index in both])
        for own in (before, after)
    )
    return {
        segment: 100 * (thicker[segment] - value) / value
        for segment, value in thick.items()
        if value > 0
    }


def transmurality_percent(
    series: Series, frame: int = 0, septum: FloatArray | None = None
) -> dict[int, float]:
    """Segment to the share of its wall that is scar, by area (as in Kim et al., N Engl J Med 2000;343:1445).

    Args:
        series: With masks.
        frame: Whose.
        septum: See `sectors`.
    """
    scar: dict[int, float] = {}
    wall: dict[int, float] = {}
    for one in sectors(series, frame, septum=septum):
        scar[one.segment] = scar.get(one.segment, 0.0) + one.scar_mm2
        wall[one.segment] = wall.get(one.segment, 0.0) + one.wall_mm2
    return {
        segment: 100 * scar[segment] / area for segment, area in sorted(wall.items()) if area > 0
    }


def _mean_by_segment(pairs: list[tuple[int, float]]) -> dict[int, float]:
    values: dict[int, list[float]] = {}
    for segment, value in pairs:
        values.setdefault(segment, []).append(value)
    return {segment: float(np.mean(own)) for segment, own in sorted(values.items())}
