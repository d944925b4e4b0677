"""A seeded campaign of damaged files: each is refused by a clear error, or read as an independent library reads it."""

import csv
import io
import logging
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from nibabel.filebasedimages import ImageFileError

from cmrvlm.runs.checkpoint_files import CheckpointFiles
from cmrvlm.runs.fingerprints import write_fingerprints
from cmrvlm.runs.run_folder import load_run
from cmrvlm.study.files import read_study
from data_modules.dicom.ingest import Ingest
from data_modules.tables.read_table import read_table
from tests.conftest import ROOT
from tests.damage import mutations
from tests.damage.outcomes import REFUSED, RIGHT, outcome
from tests.data_modules.dicom.archive import Archive

log = logging.getLogger(__name__)
RUN = ROOT / "tests" / "runs" / "run_before_moves"
# Files of each kind in the whole campaign, and in the sample of every test run.
COUNTS = {
    "nifti": (400, 12),
    "dicom": (400, 3),
    "table": (100, 12),
    "run": (50, 6),
    "checkpoint": (50, 6),
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Sound files of each kind."""
    root = tmp_path_factory.mktemp("sound")
    values = np.random.default_rng(0).integers(1, 900, (40, 36, 6, 5)).astype(np.int16)
    image = nib.Nifti1Image(values, np.diag([5.0, 5.0, 10.0, 1.0]))
    image.header.set_xyzt_units("mm", "msec")
    image.header.set_zooms((5.0, 5.0, 10.0, 40.0))
    (root / "sax.nii").write_bytes(image.to_bytes())
    Archive(root / "dicom").cine(3, 8)
    run = shutil.copytree(RUN, root / "run")
    write_fingerprints(run)
    load_run(run)
    content = {
        "state_dict": {"model.a": torch.arange(6.0), "model.b": torch.ones(2, 3)},
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}}],
        "lr_schedulers": [],
        "epoch": 0,
        "global_step": 3,
        "pytorch-lightning_version": "2.6.0",
    }
    CheckpointFiles().save_checkpoint(content, root / "last.ckpt")
    return root


def _nifti(sources: Path, folder: Path, random: np.random.Generator) -> tuple:
    path = folder / random.choice(["sax.nii", "sax.nii.gz"])
    mutations.nifti(path, (sources / "sax.nii").read_bytes(), random)

    def read() -> bool:
        image = read_study(path).series["sax"].image
        try:
            expected = nib.load(path).get_fdata()
        except (OSError, ValueError, ImageFileError, EOFError):
            return False
        finite = np.isfinite(expected).all()
        return bool(finite) and np.allclose(np.sort(image, axis=None), np.sort(expected, axis=None))

    return read, path.stat().st_size


def _dicom(sources: Path, folder: Path, random: np.random.Generator) -> tuple:
    archive = shutil.copytree(sources / "dicom", folder / "archive")
    mutations.dicom(archive, random)

    def read() -> bool:
        ingestion = Ingest(str(archive), str(folder / "out"), str(folder / "key"), workers=1)
        files = ingestion.find_files()
        ingested = list(ingestion.run(files))
        ingestion.summary(ingested, files.left_out, folder / "out")
        written = [nib.load(path) for path in (folder / "out").rglob("sax.nii.gz")]
        # Of 24 images at most four are damaged: the others are still a cine.
        return bool(written) and all(_holds_these(image, _planes(archive)) for image in written)

    return read, 10_000_000


def _planes(archive: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Position (3,) in mm (LPS) and pixels of each file, as far as pydicom alone can read them."""
    planes = []
    for path in archive.iterdir():
        try:
            data = pydicom.dcmread(path)
            position = np.array([float(value) for value in data.ImagePositionPatient]).reshape(3)
            planes.append((position, data.pixel_array))
        # Whatever pydicom says of a damaged file.
        except Exception:  # noqa: BLE001
            continue
    return planes


def _holds_these(image: nib.Nifti1Image, planes: list) -> bool:
    """Whether each slice holds values of the files that lie there; lost frames are between others."""
    values = image.get_fdata()
    normal = image.affine[:3, 2] / np.linalg.norm(image.affine[:3, 2])
    for index in range(values.shape[2]):
        corner = (image.affine @ [0, 0, index, 1])[:3]
        pixels = [
            plane.ravel()
            for position, plane in planes
            if abs((position * [-1, -1, 1] - corner) @ normal) < 1
        ]
        if not pixels:
            return False
        there = np.concatenate(pixels)
        inside = values[:, :, index]
        # Stored as whole numbers, an average is rounded.
        if inside.min() < there.min() - 0.5 or inside.max() > there.max() + 0.5:
            return False
    return True


_ROWS = [["study_id", "patient_id", "lvef", "report"]] + [
    [f"s{i}", f"p{i}", str(40 + i), f"Normal volumes, part {i}."] for i in range(12)
]


def _table(sources: Path, folder: Path, random: np.random.Generator) -> tuple:
    path = folder / "table.csv"
    text = io.StringIO()
    csv.writer(text).writerows(_ROWS)
    mutations.table(path, text.getvalue(), random)

    def read() -> bool:
        found = [list(row.texts.values()) for row in read_table(path, ["study_id"])]
        return any(found == lines for lines in _readings(path.read_bytes()))

    return read, path.stat().st_size


_BLANK = " \t\r\n\ufeff"


def _readings(content: bytes) -> Iterator[list[list[str]]]:
    """Yield what Python's own reader finds below the header, by encoding and delimiter."""
    for encoding in ("utf-8-sig", "utf-16", "cp1252", "latin-1", "cp437", "gb18030", "big5"):
        try:
            text = content.decode(encoding)
        except UnicodeError:
            continue
        for delimiter in ",;\t|":
            try:
                lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
            except csv.Error:
                continue
            # A mark of byte order within a text shows nothing.
            cells = [[cell.strip(_BLANK) for cell in line] for line in lines[1:]]
            cells = [[cell for cell in line if cell] for line in cells]
            yield [line for line in cells if line]


def _run(sources: Path, folder: Path, random: np.random.Generator) -> tuple:
    run = shutil.copytree(sources / "run", folder / "run")
    mutations.run_folder(run, random)
    # Half of them as if their author had written the fingerprints too.
    is_sealed = random.random() < 0.5
    if is_sealed:
        (run / "fingerprints.json").unlink(missing_ok=True)

    def read() -> bool:
        load_run(run)
        return is_sealed or _content(run) == _content(sources / "run")

    return read, 10_000_000


def _content(run: Path) -> dict:
    return {path.name: path.read_bytes() for path in run.rglob("*.*") if path.suffix != ".yaml"}


def _checkpoint(sources: Path, folder: Path, random: np.random.Generator) -> tuple:
    path = Path(shutil.copy(sources / "last.ckpt", folder / "last.ckpt"))
    is_sealed = not mutations.checkpoint(path, random)

    def read() -> bool:
        found = CheckpointFiles().load_checkpoint(path)
        if not is_sealed:
            return str(found) == str(torch.load(sources / "last.ckpt", weights_only=True))
        return all(isinstance(weight, torch.Tensor) for weight in found["state_dict"].values())

    return read, path.stat().st_size


KINDS = {"nifti": _nifti, "dicom": _dicom, "table": _table, "run": _run, "checkpoint": _checkpoint}


def campaign(kind: str, count: int, sources: Path, root: Path) -> list[str]:
    """Read damaged files of a kind, log how often each outcome came, and return those that are bad."""
    counts: Counter = Counter()
    bad = []
    for seed in range(count):
        folder = root / f"{kind}-{seed}"
        folder.mkdir()
        read, size = KINDS[kind](sources, folder, np.random.default_rng([seed, *kind.encode()]))
        end, said = outcome(read, size)
        counts[end] += 1
        if end not in (REFUSED, RIGHT):
            bad.append(f"{kind} {seed}: {end}\n{said}")
        shutil.rmtree(folder)
    log.warning("%s: %s", kind, dict(counts))
    return bad


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_of_damaged_files_is_refused_or_read_right(kind, sources, tmp_path):
    assert campaign(kind, COUNTS[kind][1], sources, tmp_path) == []


@pytest.mark.slow  # a thousand files
@pytest.mark.parametrize("kind", KINDS)
def test_all_damaged_files_are_refused_or_read_right(kind, sources, tmp_path):
    bad = campaign(kind, COUNTS[kind][0], sources, tmp_path)
    assert not bad, "\n".join(bad)
