"""From an archive of DICOM files to a training as a user does it, and no trace of the patients."""

import gzip
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.data_modules.dicom.archive import Archive
from tests.data_modules.dicom.test_dicom import IDENTIFYING, SECRET

BIRTH = "19430719"
# This is no valid UID: libraries complain of such values, and quote them.
ODD = "1.2.0840.77"
FAST = (
    "+experiment=stage3",
    "trainer.max_steps=-1",
    "trainer.max_epochs=1",
    "trainer.limit_val_batches=0",
    "trainer.log_every_n_steps=1",
    "data.shares={val: 0.0, test: 0.0}",
    "data.batch_size=1",
    "transform.preprocessing.steps.grid.size=[null,48,48]",
    "transform.preprocessing.steps.grid.spacing_mm=[null,4.0,4.0]",
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Two patients whose name stands in tags, file names and folder names."""
    root = tmp_path_factory.mktemp("archive")
    for number in (1, 2):
        study = Archive(root / SECRET / f"{SECRET}_{number}")

        def plant(image, s, t, number=number):
            image.StudyInstanceUID = f"1.2.3.{number}"
            for tag in IDENTIFYING:
                setattr(image, tag, f"{SECRET}{number} sax")
            image.PatientBirthDate = BIRTH
            image.SeriesInstanceUID = f"{ODD}.{number}"

        study.cine(slices=3, frames=6, series=f"1.2.3.1.{number}", change=plant)
        for path in list(study.folder.iterdir()):
            path.rename(study.folder / f"{SECRET}_{path.name}")
    return root


def run(folder, module, *arguments):
    """Run a command that succeeds and return its output."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout + done.stderr


@pytest.mark.slow
def test_no_planted_identifier_is_left_after_ingest_training_and_check(archive, tmp_path):
    output = run(
        tmp_path,
        "cmrvlm.ingest",
        f"source={archive}",
        "out=studies",
        f"ingest.key_file={tmp_path / 'key'}",
    )
    data = ("data=manifest", "data.path=studies/manifest.csv", "paths.cache=cache")
    output += run(tmp_path, "cmrvlm.train", *data, *FAST, "out=run")
    output += run(tmp_path, "cmrvlm.check", *data, "out=check", "run=run")
    assert (tmp_path / "run" / "checkpoints").is_dir()
    assert (tmp_path / "check" / "check.html").is_file()
    searched = {"output": output.encode()}
    for path in tmp_path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            name = str(path.relative_to(tmp_path))
            searched[name] = name.encode() + (
                gzip.decompress(content) if path.suffix == ".gz" else content
            )
    assert len(searched) > 10
    for secret in (SECRET, BIRTH, "1943-07-19", ODD):
        assert not [name for name, content in searched.items() if secret.encode() in content]
