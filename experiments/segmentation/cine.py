"""A run trained on ACDC, applied to a DICOM cine of another scanner: contours in every frame, volumes, a bull's eye.

    python -m experiments.segmentation.cine run=<run> root=<bivme_siemens>

Takes the archive in as a user would, predicts masks of the whole cycle, and keeps the pictures and the numbers of
`cmrvlm.predict` here as `cine.webp`, `cine_volumes.png`, `cine_wall_thickness.png` and `cine.json`. The left ventricle
is compared with the endocardial points that come with the study, frame by frame.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cmrvlm.metrics.segmentation import dice
from cmrvlm.study.files import read_image, read_study
from cmrvlm.study.study import Series
from cmrvlm.study.vocabulary import STRUCTURES
from experiments.commands import CONSOLE, given, run
from experiments.dicom.run import guide_points

HERE = Path(__file__).parent
KEPT = {
    "contours.webp": "cine.webp",
    "volumes.png": "cine_volumes.png",
    "wall_thickness.png": "cine_wall_thickness.png",
}


def cavity(edge: NDArray[np.float64], height: int, width: int) -> NDArray[np.bool_]:
    """(H, W) inside of endocardial points (n, 2) (column, row), taken in turn about their centre; none for under 3."""
    drawn = Image.new("1", (width, height))
    if len(edge) >= 3:
        around = edge - edge.mean(axis=0)
        turn = np.argsort(np.arctan2(around[:, 1], around[:, 0]))
        ImageDraw.Draw(drawn).polygon([tuple(one) for one in edge[turn].tolist()], fill=1)
    return np.asarray(drawn)


def against_points(series: Series, folder: Path) -> dict[str, float | int | list[float | None]]:
    """Dice of the left ventricle with the inside of the points, in the slices that have any, by frame."""
    assert series.mask is not None
    z, frames, h, w = series.mask.shape
    found, slices = [], set()
    for frame in range(frames):
        truth = np.stack(
            [cavity(one["endocardium"], h, w) for one in guide_points(folder, frame, series)]
        )
        shown = truth.any(axis=(1, 2))
        slices |= set(np.flatnonzero(shown).tolist())
        said = series.mask[:, frame] == STRUCTURES["lv"]
        found.append(dice(said[shown], truth[shown]))
    known = [one for one in found if one is not None]
    return {
        "lv_dice": round(float(np.mean(known)), 3),
        "frames": len(known),
        "slices_with_points": len(slices),
        "slices": z,
        "lv_dice_by_frame": [None if one is None else round(one, 3) for one in found],
    }


def main() -> None:
    """Ingest, predict, compare, keep."""
    settings = given({"run": "", "root": ""})
    if not (settings["run"] and settings["root"]):
        sys.exit(
            "give run=<run> and root=<folder with patient1.tar.gz and patient1_guidepoints.tar.gz>"
        )
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name, where in (("patient1", "dicom"), ("patient1_guidepoints", "points")):
            shutil.unpack_archive(Path(settings["root"]) / f"{name}.tar.gz", place / where)
        run(
            "cmrvlm.ingest",
            f"source={place / 'dicom'}",
            f"out={place / 'studies'}",
            f"ingest.key_file={place / 'key'}",
        )
        (study,) = (one.parent for one in (place / "studies").rglob("sax.nii.gz"))
        run(
            "cmrvlm.predict",
            f"run={settings['run']}",
            f"study={study}",
            f"out={place / 'prediction'}",
        )
        for name, kept in KEPT.items():
            (HERE / kept).unlink(
                missing_ok=True
            )  # where there is no volume, there is no picture of it
            if (place / "prediction" / name).is_file():
                shutil.copyfile(place / "prediction" / name, HERE / kept)
        native = read_study(study).series["sax"]
        labels, _ = read_image(place / "prediction" / "sax_mask.nii.gz", "sax")
        told = json.loads((place / "prediction" / "prediction.json").read_text())["from_masks"]
        told["against_points"] = against_points(
            replace(native, mask=labels), place / "points" / "patient1"
        )
    (HERE / "cine.json").write_text(json.dumps(told, indent=1))
    CONSOLE.print(told)


if __name__ == "__main__":
    main()
