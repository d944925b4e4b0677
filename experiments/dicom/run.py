"""Ingest real DICOM studies, and draw contours that others made over them.

    python -m experiments.dicom.run root=<folder with bivme_siemens, sunnybrook_ge and
        sunnybrook_scout>

Unpacks the archives into a temporary folder, decides about every stack as `cmrvlm.ingest` does,
and draws the contours that come with the data over the images: guide points in patient
coordinates for the Siemens study, contours in pixels for the GE study. Shows whether geometry is
right: contours must fall on the borders of the ventricles. Writes `metrics.json`, `siemens.png`
and `ge.png` here.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from cmrvlm.study.drawing import save
from cmrvlm.study.study import Series
from data_modules.dicom.image import Image
from data_modules.dicom.recognise import Decision, recognise
from data_modules.dicom.scan import LeftOut, files_of, scan
from data_modules.dicom.stacks import Stack, stacks_of
from data_modules.dicom.volumes import series_of
from experiments.commands import CONSOLE, given

HERE = Path(__file__).parent
ARCHIVES = {
    "siemens": ("bivme_siemens/patient1.tar.gz", "bivme_siemens/patient1_guidepoints.tar.gz"),
    "ge": ("sunnybrook_ge/E774S5-shortAxis_lvContours.tar.gz",),
}
COLORS = {"endocardium": "#e6194b", "epicardium": "#ffe119", "right ventricle": "#4363d8"}
CONTOURS = {
    "SAX_LV_ENDOCARDIAL": "endocardium",
    "SAX_LV_EPICARDIAL": "epicardium",
    "SAX_RV_FREEWALL": "right ventricle",
    "SAX_RV_SEPTUM": "right ventricle",
}
# How far inwards and outwards of the endocardium blood and wall are looked for.
ACROSS_MM = 3.0
# Guide points lie on a slice of the stack when they are less than this many slices away from it.
NEAR_SLICES = 0.3
# Contour to points (N, 2), each (column, row).
Points = Mapping[str, NDArray[np.float64]]


def decided(folder: Path) -> tuple[list[Decision], list[LeftOut]]:
    """Return decisions about the stacks of a folder, and the files that are no images."""
    images: list[Image] = []
    left_out = []
    for scanned in scan(files_of(folder)):
        if isinstance(scanned, LeftOut):
            left_out.append(scanned)
        else:
            images += scanned
    return recognise(stacks_of(images).stacks), left_out


def guide_points(folder: Path, frame: int, series: Series) -> list[Points]:
    """Read a frame's guide points, and return them by slice, in pixels of the series.

    Args:
        folder: Files of guide points, in mm along LPS.
        frame: Number of the frame.
        series: Series with Z slices, whose affine is in mm along RAS.
    """
    with (folder / f"GPFile_{frame:03d}.txt").open() as file:
        rows = [
            row for row in csv.DictReader(file, delimiter="\t") if row["contour type"] in CONTOURS
        ]
    lps = np.array([[float(row[axis]) for axis in "xyz"] for row in rows])
    ras = np.c_[lps * (-1, -1, 1), np.ones(len(lps))]
    # Voxel positions (N, 3) as (column, row, slice).
    voxels = (ras @ np.linalg.inv(series.affine).T)[:, :3]
    names = np.array([CONTOURS[row["contour type"]] for row in rows])
    by_slice: list[Points] = []
    for z in range(len(series.image)):
        in_slice = np.abs(voxels[:, 2] - z) < NEAR_SLICES
        by_slice.append({name: voxels[(names == name) & in_slice, :2] for name in COLORS})
    return by_slice


def drawn_contours(folder: Path, stack: Stack, frame: int) -> list[Points]:
    """Read the contours of a frame by slice, in pixels.

    Their files are named after the number of the image.
    """
    file_kinds = {"endocardium": "icontour", "epicardium": "ocontour"}
    by_slice: list[Points] = []
    for images in stack.frames:
        digits = "".join(filter(str.isdigit, images[frame].path.stem))
        number = int(digits)
        contours = {}
        for name, file_kind in file_kinds.items():
            path = next(folder.glob(f"IM-*-{number:04d}-{file_kind}-*.txt"))
            contours[name] = np.loadtxt(path, ndmin=2)
        by_slice.append(contours)
    return by_slice


def brighter_inside(series: Series, contours: Sequence[Points], frame: int) -> tuple[float, int]:
    """Compare the image on both sides of the endocardium.

    Args:
        series: Series with image (Z, T, H, W).
        contours: Contours of each slice, in pixels.
        frame: Number of the frame.

    Returns:
        Share of endocardial points with blood (bright) inwards and wall (dark) outwards, and the
        number of points.
    """
    right = 0
    total = 0
    for plane, points in zip(series.image[:, frame], contours, strict=True):
        edge = points["endocardium"]
        # Fewer points have no centre that lies inside.
        if len(edge) < 3:
            continue
        away = edge - edge.mean(axis=0)
        step = ACROSS_MM / series.spacing_mm[1] * away / np.linalg.norm(away, axis=1, keepdims=True)
        inner = map_coordinates(plane, (edge - step).T[::-1], order=1)
        outer = map_coordinates(plane, (edge + step).T[::-1], order=1)
        right += int((inner > outer).sum())
        total += len(edge)
    return right / total, total


def draw(
    series: Series,
    frames: Mapping[str, tuple[int, Sequence[Points]]],
    slices: Sequence[int],
    path: Path,
    half: int,
) -> None:
    """Draw slices in columns and frames in rows with the points over them, about the ventricle.

    Args:
        series: Series with image (Z, T, H, W).
        frames: Title to frame and contours of each slice.
        slices: Slices to draw.
        path: File to write.
        half: Half of the side of the square that is cut out, in pixels.
    """
    figure = Figure(figsize=(2.0 * len(slices), 2.15 * len(frames)), layout="constrained")
    axes = figure.subplots(len(frames), len(slices), squeeze=False)
    for row, (name, (frame, contours)) in enumerate(frames.items()):
        edges = [points["endocardium"] for points in contours]
        center = np.concatenate(edges).mean(axis=0)
        for column, index in enumerate(slices):
            axis = axes[row, column]
            plane = series.image[index, frame]
            axis.imshow(plane, cmap="gray", vmax=float(np.quantile(plane, 0.995)))
            for structure, points in contours[index].items():
                axis.plot(points[:, 0], points[:, 1], ".", ms=1.5, color=COLORS[structure])
            axis.set_xlim(center[0] - half, center[0] + half)
            axis.set_ylim(center[1] + half, center[1] - half)
            axis.set_title(f"{name}, slice {index}", fontsize=7)
            axis.axis("off")
    save(figure, path, dpi=100)


def facts(decisions: Sequence[Decision], left_out: Sequence[LeftOut]) -> dict[str, Any]:
    """Return the decisions in numbers, and the number of files that were left out."""
    stacks: list[dict[str, Any]] = []
    for decision in decisions:
        stack = decision.stack
        gaps_mm = None
        if decision.sequence:
            gaps_mm = np.diff(stack.slice_positions_mm()).round(2).tolist()
        stacks.append(
            {
                "sequence": decision.sequence or None,
                "slices": stack.slices,
                "phases": stack.phases,
                "series": stack.first.path.parent.name,
                "ambiguous": decision.ambiguous,
                "gaps_mm": gaps_mm,
                "reasons": list(decision.reasons),
            }
        )
    return {"stacks": stacks, "files_left_out": len(left_out)}


def main() -> None:
    """Ingest, draw, and keep numbers and pictures."""
    settings = given({"root": ""})
    if not settings["root"]:
        sys.exit("root=<folder of the DICOM studies> is missing")
    root = Path(settings["root"])
    content: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name, archives in ARCHIVES.items():
            folder = Path(temporary) / name
            # The second archive, where there is one, holds points.
            for archive, subfolder in zip(archives, ("images", "points"), strict=False):
                shutil.unpack_archive(root / archive, folder / subfolder)
            decisions, left_out = decided(folder / "images")
            stack = next(decision.stack for decision in decisions if decision.sequence == "sax")
            series, _ = series_of(stack)
            # About end-systole.
            late_frame = stack.phases // 3
            frames: dict[str, tuple[int, list[Points]]] = {}
            if name == "siemens":
                points = folder / "points" / "patient1"
                for t in (0, late_frame):
                    frames[f"frame {t}"] = (t, guide_points(points, t, series))
            else:
                points = next(folder.rglob("lvContours"))
                for t in (0, late_frame):
                    frames[f"frame {t}"] = (t, drawn_contours(points, stack, t))
            positions = np.linspace(0, stack.slices - 1, min(6, stack.slices))
            slices = positions.round().astype(int).tolist()
            draw(series, frames, slices, HERE / f"{name}.png", half=52)
            shares = {
                title: brighter_inside(series, contours, frame)
                for title, (frame, contours) in frames.items()
            }
            content[name] = facts(decisions, left_out) | {"blood_inside_wall_outside": shares}
        decisions, left_out = decided(root / "sunnybrook_scout")
        content["scout"] = facts(decisions, left_out)
    (HERE / "metrics.json").write_text(json.dumps(content, indent=1))
    for name, study_facts in content.items():
        CONSOLE.print(name, study_facts.get("blood_inside_wall_outside", ""), markup=False)
        for stack_facts in study_facts["stacks"]:
            CONSOLE.print(stack_facts, markup=False)


if __name__ == "__main__":
    main()
