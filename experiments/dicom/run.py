"""Real DICOM studies: what is made of them, and whether contours that others drew fall where they belong.

    python -m experiments.dicom.run root=<folder with bivme_siemens, sunnybrook_ge and sunnybrook_scout>

Unpacks the archives into a temporary folder, decides about every stack as `cmrvlm.ingest` does, and draws the contours
that come with the data over the images: guide points in patient coordinates for the Siemens study, contours in pixels
for the GE study. Writes `metrics.json`, `siemens.png` and `ge.png` here.
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
ACROSS_MM = 3.0  # how far inwards and outwards of the endocardium blood and wall are looked for
Points = Mapping[str, NDArray[np.float64]]  # name to (n, 2) points (column, row)


def decided(folder: Path) -> tuple[list[Decision], list[LeftOut]]:
    """Decisions about the stacks of a folder, and the files that are no images."""
    images: list[Image] = []
    left_out = []
    for found in scan(files_of(folder)):
        if isinstance(found, LeftOut):
            left_out.append(found)
        else:
            images += found
    return recognise(stacks_of(images)), left_out


def guide_points(folder: Path, frame: int, series: Series) -> list[Points]:
    """Points (LPS, in mm) of a frame's file by slice, as pixels of the series."""
    with (folder / f"GPFile_{frame:03d}.txt").open() as file:
        rows = [
            row for row in csv.DictReader(file, delimiter="\t") if row["contour type"] in CONTOURS
        ]
    lps = np.array([[float(row[axis]) for axis in "xyz"] for row in rows])
    ras = np.c_[lps * (-1, -1, 1), np.ones(len(lps))]
    voxels = (ras @ np.linalg.inv(series.affine).T)[:, :3]  # (w, h, z)
    names = np.array([CONTOURS[row["contour type"]] for row in rows])
    return [
        {name: voxels[(names == name) & (np.abs(voxels[:, 2] - z) < 0.3), :2] for name in COLORS}
        for z in range(len(series.image))
    ]


def drawn_contours(folder: Path, stack: Stack, frame: int) -> list[Points]:
    """Contours of a frame by slice, in pixels; files are named after the number of the image."""
    kinds = {"endocardium": "icontour", "epicardium": "ocontour"}
    found = []
    for images in stack.frames:
        number = int("".join(one for one in images[frame].path.stem if one.isdigit()))
        paths = {
            name: next(folder.glob(f"IM-*-{number:04d}-{kind}-*.txt"))
            for name, kind in kinds.items()
        }
        found.append({name: np.loadtxt(path, ndmin=2) for name, path in paths.items()})
    return found


def brighter_inside(series: Series, contours: Sequence[Points], frame: int) -> tuple[float, int]:
    """Share of endocardial points that have blood (bright) inwards and wall (dark) outwards, and their number."""
    right = total = 0
    for plane, points in zip(series.image[:, frame], contours, strict=True):
        edge = points["endocardium"]
        if len(edge) < 3:
            continue
        away = edge - edge.mean(axis=0)
        step = ACROSS_MM / series.spacing_mm[1] * away / np.linalg.norm(away, axis=1, keepdims=True)
        inner, outer = (
            map_coordinates(plane, (edge + sign * step).T[::-1], order=1) for sign in (-1, 1)
        )
        right, total = right + int((inner > outer).sum()), total + len(edge)
    return right / total, total


def draw(
    series: Series,
    frames: Mapping[str, tuple[int, Sequence[Points]]],
    slices: Sequence[int],
    path: Path,
    half: int,
) -> None:
    """Slices in columns, frames in rows, with the points over them, cut out about the ventricle."""
    figure = Figure(figsize=(2.0 * len(slices), 2.15 * len(frames)), layout="constrained")
    axes = figure.subplots(len(frames), len(slices), squeeze=False)
    for row, (name, (frame, contours)) in enumerate(frames.items()):
        center = np.concatenate([one["endocardium"] for one in contours]).mean(axis=0)
        for column, index in enumerate(slices):
            axis, plane = axes[row, column], series.image[index, frame]
            axis.imshow(plane, cmap="gray", vmax=float(np.quantile(plane, 0.995)))
            for kind, points in contours[index].items():
                axis.plot(points[:, 0], points[:, 1], ".", ms=1.5, color=COLORS[kind])
            axis.set_xlim(center[0] - half, center[0] + half)
            axis.set_ylim(center[1] + half, center[1] - half)
            axis.set_title(f"{name}, slice {index}", fontsize=7)
            axis.axis("off")
    save(figure, path, dpi=100)


def facts(decisions: Sequence[Decision], left_out: Sequence[LeftOut]) -> dict[str, Any]:
    """What was decided, in numbers."""
    return {
        "stacks": [
            {
                "sequence": one.sequence or None,
                "slices": one.stack.slices,
                "phases": one.stack.phases,
                "series": one.stack.first.path.parent.name,
                "ambiguous": one.ambiguous,
                "gaps_mm": np.diff(one.stack.slice_positions_mm()).round(2).tolist()
                if one.sequence
                else None,
                "reasons": list(one.reasons),
            }
            for one in decisions
        ],
        "files_left_out": len(left_out),
    }


def main() -> None:
    """Ingest, draw, and keep numbers and pictures."""
    root = Path(
        given({"root": ""})["root"] or sys.exit("root=<folder of the DICOM studies> is missing")
    )
    content: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name, archives in ARCHIVES.items():
            for number, archive in enumerate(archives):
                kind = "images" if number == 0 else "points"
                shutil.unpack_archive(root / archive, Path(temporary) / name / kind)
            folder = Path(temporary) / name
            decisions, left_out = decided(folder / "images")
            stack = next(one.stack for one in decisions if one.sequence == "sax")
            series = series_of(stack)
            half_cycle = stack.phases // 3
            if name == "siemens":
                points = folder / "points" / "patient1"
                frames = {
                    f"frame {t}": (t, guide_points(points, t, series)) for t in (0, half_cycle)
                }
            else:
                points = next(folder.rglob("lvContours"))
                frames = {
                    f"frame {t}": (t, drawn_contours(points, stack, t)) for t in (0, half_cycle)
                }
            slices = (
                np.linspace(0, stack.slices - 1, min(6, stack.slices)).round().astype(int).tolist()
            )
            draw(series, frames, slices, HERE / f"{name}.png", half=52)
            shares = {
                key: brighter_inside(series, own, frame) for key, (frame, own) in frames.items()
            }
            content[name] = facts(decisions, left_out) | {"blood_inside_wall_outside": shares}
        decisions, left_out = decided(root / "sunnybrook_scout")
        content["scout"] = facts(decisions, left_out)
    (HERE / "metrics.json").write_text(json.dumps(content, indent=1))
    for name, one in content.items():
        CONSOLE.print(name, one.get("blood_inside_wall_outside", ""), markup=False)
        for stack_facts in one["stacks"]:
            CONSOLE.print(stack_facts, markup=False)


if __name__ == "__main__":
    main()
