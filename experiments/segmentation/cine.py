"""A run trained on ACDC, applied to a DICOM cine of another scanner: contours in every frame, volumes, a bull's eye.

    python -m experiments.segmentation.cine run=<run> archive=<bivme_siemens/patient1.tar.gz>

Takes the archive in as a user would, predicts masks of the whole cycle, and keeps the pictures and the numbers of
`cmrvlm.predict` here as `cine.webp`, `cine_volumes.png`, `cine_wall_thickness.png` and `cine.json`.
"""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

from experiments.commands import CONSOLE, given, run

HERE = Path(__file__).parent
KEPT = {"contours.webp": "cine.webp", "volumes.png": "cine_volumes.png",
        "wall_thickness.png": "cine_wall_thickness.png"}  # fmt: skip


def main() -> None:
    """Ingest, predict, keep."""
    settings = given({"run": "", "archive": ""})
    if not (settings["run"] and settings["archive"]):
        sys.exit("give run=<run> and archive=<patient1.tar.gz>")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        with tarfile.open(settings["archive"]) as archive:
            archive.extractall(place / "dicom", filter="data")
        run(
            "cmrvlm.ingest", f"source={place / 'dicom'}", f"out={place / 'studies'}", f"ingest.key_file={place / 'key'}"
        )
        (study,) = (one.parent for one in (place / "studies").rglob("sax.nii.gz"))
        run("cmrvlm.predict", f"run={settings['run']}", f"study={study}", f"out={place / 'prediction'}")
        for name, kept in KEPT.items():
            shutil.copyfile(place / "prediction" / name, HERE / kept)
        told = json.loads((place / "prediction" / "prediction.json").read_text())["from_masks"]
    (HERE / "cine.json").write_text(json.dumps(told, indent=1))
    CONSOLE.print(told)


if __name__ == "__main__":
    main()
