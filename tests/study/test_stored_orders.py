"""Predictions of one heart in all orders of its axes, and of one DICOM study by two paths, are equal."""

import itertools
import json
import shutil
from collections import defaultdict

import nibabel as nib
import numpy as np
import pydicom
import pytest

from cmrvlm.inference.cmrvlm import CMRVLM
from cmrvlm.study.files import write_study
from data_modules.dicom.ingest import Ingest
from tests.study.storing import stored_in_order

MOST_DEVIATION = 0.005
LEAST_DICE = 0.99
ORDERS = [
    np.array(list(zip(axes, signs, strict=True)), dtype=float)
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def name_of(order):
    return "".join(f"{'-' if sign < 0 else '+'}{'xyz'[int(axis)]}" for axis, sign in order)


# In the quick run, where `test_orientation` has more: slices first, columns reversed.
QUICK = {"+z-x+y"}
ALL_ORDERS = [
    pytest.param(
        order,
        id=name_of(order),
        marks=() if name_of(order) in QUICK else pytest.mark.slow,
    )
    for order in ORDERS
]


@pytest.fixture(scope="module")
def model(stage3_run):
    """A model whose gate is open: it saw too few studies to know what is unlike them."""
    return CMRVLM.from_pretrained(stage3_run, max_new_tokens=24, gate=False)


def oblique(directions_of, spacing_mm):
    """Return an affine of a heart in its usual place, with the directions of another one."""
    affine = directions_of.copy()
    affine[:3, :3] *= np.asarray(spacing_mm) / np.linalg.norm(affine[:3, :3], axis=0)
    return affine


@pytest.fixture(scope="module")
def phantom(tmp_path_factory, source):
    folder = tmp_path_factory.mktemp("phantom") / "study"
    write_study(source.load(source.study_ids()[3]), folder)
    return folder


@pytest.fixture(scope="module")
def patient(tmp_path_factory, phantom, real_data):
    """Two frames of an ACDC patient with a scanner's orientation, which ACDC has lost."""
    folder = tmp_path_factory.mktemp("patient") / "study"
    folder.mkdir()
    stem = real_data / "acdc" / "training" / "patient001" / "patient001_frame"
    frames = [nib.load(f"{stem}{number}.nii.gz") for number in ("01", "12")]
    cine = np.stack([np.asarray(frame.dataobj) for frame in frames], axis=3)
    directions = nib.load(phantom / "sax.nii.gz").affine
    affine = oblique(directions, frames[0].header.get_zooms()[:3])
    nib.save(nib.Nifti1Image(cine, affine), folder / "sax.nii.gz")
    return folder


def check_equal(first, second, where="prediction"):
    """Check that texts are identical and numbers within half a percent."""
    assert type(first) is type(second), where
    if isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key, value in first.items():
            check_equal(value, second[key], f"{where}.{key}")
    elif isinstance(first, list):
        assert len(first) == len(second), where
        for index, value in enumerate(first):
            check_equal(value, second[index], f"{where}.{index}")
    elif isinstance(first, float):
        assert second == pytest.approx(first, rel=MOST_DEVIATION, abs=1e-6), where
    else:
        assert first == second, where


def check_masks(first, second, images):
    """Check that masks lie on the grids of their files and, in one grid, on one another."""
    names = sorted(path.name for path in first.glob("*_mask.nii.gz"))
    assert names
    for name in names:
        mask = nib.load(second / name)
        image = nib.load(images / name.replace("_mask", ""))
        assert mask.shape == image.shape
        np.testing.assert_allclose(mask.affine, image.affine, atol=1e-4)
        one, other = (nib.as_closest_canonical(nib.load(path / name)) for path in (first, second))
        np.testing.assert_allclose(one.affine, other.affine, atol=2e-2)
        labels, other_labels = one.get_fdata(), other.get_fdata()
        for value in np.union1d(np.unique(labels), np.unique(other_labels)):
            a = labels == value
            b = other_labels == value
            assert 2 * (a & b).sum() >= LEAST_DICE * (a.sum() + b.sum()), (name, value)


def predict(model, study, out):
    return model.predict(study, out, question="What is the diagnosis?", frames="ed_es")


@pytest.fixture(scope="module", params=["phantom", "patient"])
def expected(request, model, tmp_path_factory):
    """A study, its prediction and the folder of it."""
    folder = request.getfixturevalue(request.param)
    out = tmp_path_factory.mktemp("expected") / "out"
    return folder, predict(model, folder, out), out


@pytest.mark.parametrize("order", ALL_ORDERS)
def test_each_order_of_axes_has_the_same_prediction(model, expected, tmp_path, order):
    folder, prediction, out = expected
    other = stored_in_order(folder, order, tmp_path / "study")
    check_equal(prediction, predict(model, other, tmp_path / "out"))
    check_masks(out, tmp_path / "out", other)


def unpacked(archive, folder):
    shutil.unpack_archive(archive, folder)
    return folder


def short_axis_by_hand(files, path):
    """Write a short axis with pydicom and nibabel alone: slices first, rows reversed."""
    slices = defaultdict(list)
    for file in files:
        header = pydicom.dcmread(file)
        directions = np.array(header.ImageOrientationPatient, dtype=float).reshape(2, 3)
        height = np.cross(*directions) @ np.array(header.ImagePositionPatient, dtype=float)
        slices[round(height, 1)].append((float(header.TriggerTime), header))
    stacks = [sorted(slices[height], key=lambda entry: entry[0]) for height in sorted(slices)]
    headers = [[header for _, header in stack] for stack in stacks]
    volume = np.array([[header.pixel_array for header in stack] for stack in headers])
    first, last = headers[0][0], headers[-1][0]
    across, down = np.array(first.ImageOrientationPatient, dtype=float).reshape(2, 3)
    start, end = (np.array(each.ImagePositionPatient, dtype=float) for each in (first, last))
    row_mm, column_mm = map(float, first.PixelSpacing)
    rows = volume.shape[2]
    affine = np.eye(4)
    # Axes are slices, reversed rows, columns.
    affine[:3, 0] = (end - start) / (len(headers) - 1)
    affine[:3, 1] = -down * row_mm
    affine[:3, 2] = across * column_mm
    affine[:3, 3] = start + down * row_mm * (rows - 1)
    affine[:2] *= -1
    cine = volume[:, :, ::-1].transpose(0, 2, 3, 1)  # (slices, rows, columns, frames)
    image = nib.Nifti1Image(cine.astype(np.int16), affine)
    times_ms = [[time for time, _ in stack] for stack in stacks]
    image.header["pixdim"][4] = np.diff(times_ms, axis=1).mean()
    image.header.set_xyzt_units("mm", "msec")
    nib.save(image, path)


DICOM_STUDIES = {
    "siemens": ("bivme_siemens/patient1.tar.gz", ("Se11", "Se1", "Se2", "Se3", "Se4", "Se5")),
    "ge": ("sunnybrook_ge/E774S5-shortAxis_lvContours.tar.gz", None),
}


def dicom_files(folder, series):
    """Return MR images with a trigger time, of some folders or of all."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    if series is not None:
        return [path for path in files if path.parent.name in series]
    return [path for path in files if pydicom.misc.is_dicom(path)]


@pytest.mark.slow
@pytest.mark.parametrize("study", DICOM_STUDIES)
def test_dicom_by_two_paths_has_the_same_prediction(model, tmp_path, real_data, study):
    archive, series = DICOM_STUDIES[study]
    source = unpacked(real_data / "dicom" / archive, tmp_path / "in")
    ingestion = Ingest(str(source), str(tmp_path / "out"), str(tmp_path / "key"), workers=1)
    (result,) = ingestion.run(ingestion.find_files())
    ingested, by_hand = tmp_path / "ingested", tmp_path / "by_hand"
    for folder in (ingested, by_hand):
        folder.mkdir()
    shutil.copy(tmp_path / "out" / result.study_id / "sax.nii.gz", ingested)
    short_axis_by_hand(dicom_files(source, series), by_hand / "sax.nii.gz")
    outs = [tmp_path / "first", tmp_path / "second"]
    predictions = [
        predict(model, folder, out) for folder, out in zip((ingested, by_hand), outs, strict=True)
    ]
    check_equal(*predictions)
    check_masks(*outs, by_hand)


@pytest.mark.slow
@pytest.mark.parametrize("is_diagonal", [True, False], ids=["diagonal", "none"])
def test_a_file_without_orientation_is_left_as_it_is_and_that_is_said(
    model, phantom, tmp_path, is_diagonal
):
    image = nib.load(phantom / "sax.nii.gz")
    affine = np.diag([*image.header.get_zooms()[:3], 1.0]) if is_diagonal else None
    bare = nib.Nifti1Image(np.asarray(image.dataobj), affine, dtype=np.float32)
    bare.header.set_zooms(image.header.get_zooms())
    bare.header.set_xyzt_units("mm", "msec")
    nib.save(bare, tmp_path / "sax.nii.gz")
    predict(model, tmp_path / "sax.nii.gz", tmp_path / "out")
    said = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert "no scanner orientation" in said["layout"]["sax"]
    mask = nib.load(tmp_path / "out" / "sax_mask.nii.gz")
    assert mask.shape == image.shape
