"""Apply a run trained on ACDC to a DICOM cine of another scanner: contours, volumes, a bull's eye.

    python -m experiments.segmentation.cine run=<run> root=<bivme_siemens>

Takes the archive in as a user would, predicts masks of the whole cycle, and keeps the pictures
and the numbers of `cmrvlm.predict` here as `cine.webp`, `cine_volumes.png`,
`cine_wall_thickness.png` and `cine.json`. The left ventricle is compared with the endocardial
points that come with the study, frame by frame.
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
from cmrvlm.study.files import read_study
from cmrvlm.study.series_files import read_image
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
    """Fill the polygon through endocardial points, ordered by their angle about the centre.

    Args:
        edge: (N, 2) points, each (column, row).
        height: H of the mask.
        width: W of the mask.

    Returns:
        Mask (H, W), empty for fewer than three points.
    """
    picture = Image.new("1", (width, height))
    if len(edge) >= 3:
        from_center = edge - edge.mean(axis=0)
        angles = np.arctan2(from_center[:, 1], from_center[:, 0])
        corners = edge[np.argsort(angles)].tolist()
        ImageDraw.Draw(picture).polygon([tuple(corner) for corner in corners], fill=1)
    return np.asarray(picture)


def against_points(series: Series, folder: Path) -> dict[str, float | int | list[float | None]]:
    """Compute the Dice of the left ventricle with the inside of endocardial points, by frame.

    Only slices with points count.

    Args:
        series: Series with the predicted mask (Z, T, H, W).
        folder: Files of the points.
    """
    assert series.mask is not None
    slice_count, frame_count, height, width = series.mask.shape
    dice_by_frame: list[float | None] = []
    slices_with_points: set[int] = set()
    for frame in range(frame_count):
        by_slice = guide_points(folder, frame, series)
        truth = np.stack([cavity(points["endocardium"], height, width) for points in by_slice])
        has_points = truth.any(axis=(1, 2))
        slices_with_points |= set(np.flatnonzero(has_points).tolist())
        predicted = series.mask[:, frame] == STRUCTURES["lv"]
        dice_by_frame.append(dice(predicted[has_points], truth[has_points]))
    known = [score for score in dice_by_frame if score is not None]
    return {
        "lv_dice": round(float(np.mean(known)), 3),
        "frames": len(known),
        "slices_with_points": len(slices_with_points),
        "slices": slice_count,
        "lv_dice_by_frame": [_rounded(score) for score in dice_by_frame],
    }


def _rounded(score: float | None) -> float | None:
    """Round a score to three digits; None stays None."""
    if score is None:
        return None
    return round(score, 3)


def main() -> None:
    """Ingest, predict, compare, keep."""
    settings = given({"run": "", "root": ""})
    if not (settings["run"] and settings["root"]):
        sys.exit(
            "give run=<run> and root=<folder with patient1.tar.gz and patient1_guidepoints.tar.gz>"
        )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, subfolder in (("patient1", "dicom"), ("patient1_guidepoints", "points")):
            shutil.unpack_archive(Path(settings["root"]) / f"{name}.tar.gz", folder / subfolder)
        run(
            "cmrvlm.ingest",
            f"source={folder / 'dicom'}",
            f"out={folder / 'studies'}",
            f"ingest.key_file={folder / 'key'}",
        )
        (image_path,) = (folder / "studies").rglob("sax.nii.gz")
        study = image_path.parent
        prediction = folder / "prediction"
        run(
            "cmrvlm.predict",
            f"run={settings['run']}",
            f"study={study}",
            f"out={prediction}",
        )
        for name, kept in KEPT.items():
            # An old picture must not stay where there is no volume to draw.
            (HERE / kept).unlink(missing_ok=True)
            if (prediction / name).is_file():
                shutil.copyfile(prediction / name, HERE / kept)
        native = read_study(study).series["sax"]
        labels, _ = read_image(prediction / "sax_mask.nii.gz", "sax")
        measured = json.loads((prediction / "prediction.json").read_text())["from_masks"]
        measured["against_points"] = against_points(
            replace(native, mask=labels), folder / "points" / "patient1"
        )
    (HERE / "cine.json").write_text(json.dumps(measured, indent=1))
    CONSOLE.print(measured)


if __name__ == "__main__":
    main()
