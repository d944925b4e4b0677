"""DICOM studies with the faults that archives have, and two real studies."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEG2000Lossless, RLELossless

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.files import read_study
from data_modules.dicom.ingest import Ingest
from data_modules.dicom.recognise import recognise
from data_modules.dicom.scan import LeftOut, files_of, scan
from data_modules.dicom.stacks import stacks_of
from data_modules.dicom.volumes import series_of
from data_modules.sources.manifest import ManifestSource
from data_modules.sources.nifti import NiftiSource
from tests.conftest import ROOT
from tests.data_modules.dicom.archive import (
    GAP_MM,
    TO_APEX,
    Archive,
    base_dataset,
    clock,
    enhanced,
    set_pixels,
)

warnings.filterwarnings("ignore", category=UserWarning, module="pydicom")
T = np.arange(25)


def expected_pixels(slices=4, frames=25):
    return 100 + 10 * np.arange(slices)[:, None] + np.arange(frames)[None]


def decided(folder, **settings):
    """Return the decisions about a folder, and the files that are left out."""
    images, left_out = [], []
    for file_images in scan(files_of(Path(folder))):
        if isinstance(file_images, LeftOut):
            left_out.append(file_images)
        else:
            images += file_images
    return recognise(stacks_of(images, **settings).stacks), left_out


def stack_of(decisions, name="sax"):
    """Return the stack that is a sequence."""
    return next(decision.stack for decision in decisions if decision.sequence == name)


def means(series):
    """Return the mean (Z, T) of each frame of each slice."""
    return series.image.mean(axis=(2, 3))


@pytest.mark.parametrize("order", ["slice", "frame"])
def test_slices_and_frames_follow_geometry_and_not_instance_numbers(tmp_path, order):
    Archive(tmp_path).cine(slices=12, order=order)
    decisions, _ = decided(tmp_path)
    series = series_of(stack_of(decisions))[0]
    assert (means(series) == expected_pixels(12)).all()
    assert series.frame_times_ms == tuple(30.0 * t for t in range(25))


def test_distance_of_slices_is_that_of_their_positions(tmp_path):
    Archive(tmp_path).cine(change=lambda image, s, t: setattr(image, "SpacingBetweenSlices", 8.0))
    series = series_of(stack_of(decided(tmp_path)[0]))[0]
    assert np.allclose(series.spacing_mm, (GAP_MM, 1.5, 1.25))
    assert series.voxel_volume_ml * 1000 == pytest.approx(18.75)
    corner = series.affine @ [0, 0, 3, 1]
    assert np.allclose(corner[:3], TO_APEX * 30 * [-1, -1, 1])


@pytest.mark.parametrize(
    "faults", [("TriggerTime",), ("TriggerTime", "ContentTime", "AcquisitionTime")]
)
def test_without_trigger_times_frames_follow_another_key(tmp_path, faults):
    Archive(tmp_path).cine(change=lambda image, s, t: [delattr(image, name) for name in faults])
    stack = stack_of(decided(tmp_path)[0])
    series = series_of(stack)[0]
    assert (means(series) == expected_pixels()).all()
    assert series.frame_times_ms is None
    assert stack.time_key == ("content_time_s" if len(faults) == 1 else "instance_number")


def test_a_key_that_never_changes_orders_no_frames(tmp_path):
    def fault(image, s, t):
        image.TemporalPositionIdentifier = 1
        del image.TriggerTime

    Archive(tmp_path).cine(change=fault)
    assert means(series_of(stack_of(decided(tmp_path)[0]))[0]).shape == (4, 25)


@pytest.mark.parametrize("series", ["1.2.3.1", "1.2.3.2"])
@pytest.mark.parametrize("keep", ["later", "first"])
def test_of_a_repeated_slice_the_chosen_acquisition_is_kept(tmp_path, keep, series):
    archive = Archive(tmp_path).cine()
    archive.cine(
        series=series,
        skip=[(s, None) for s in (0, 2, 3)],
        offset=1000,
        acquisition=2,
        start_s=37000.0,
    )
    stack = stack_of(decided(tmp_path, keep=keep)[0])
    values = means(series_of(stack)[0])
    assert values.shape == (4, 25)
    assert (values[1] >= 1100).all() == (keep == "later")
    assert (values[[0, 2, 3]] == expected_pixels()[[0, 2, 3]]).all()
    assert any("slice 1 was acquired 2 times" in note for note in stack.notes)


def test_one_acquisition_over_two_times_of_day_is_no_repeat(tmp_path):
    """Half of the frames of a slice carry another acquisition time, as on some GE scanners."""

    def late(image, s, t):
        image.AcquisitionTime = clock(40000 + 60 * (t >= 12))

    Archive(tmp_path).cine(change=late)
    stack = stack_of(decided(tmp_path)[0])
    assert (means(series_of(stack)[0]) == expected_pixels()).all()
    assert not any("acquired" in note for note in stack.notes)


def test_slices_go_from_base_to_apex_in_any_file_order(tmp_path):
    Archive(tmp_path / "a").cine()
    Archive(tmp_path / "b").cine(position=lambda index: (3 - index) * GAP_MM)
    first, second = (series_of(stack_of(decided(tmp_path / name)[0]))[0] for name in "ab")
    assert np.allclose(first.affine, second.affine)
    assert (means(second) == expected_pixels()[::-1]).all()


def test_a_mixed_folder_is_told_apart(tmp_path):
    Archive(tmp_path).cine().stills().scout().junk()
    decisions, left_out = decided(tmp_path)
    assert (stack_of(decisions).slices, stack_of(decisions).phases) == (4, 25)
    assert stack_of(decisions, "lge").slices == 4
    assert series_of(stack_of(decisions))[0].image.max() < 3000
    assert sum(decision.reasons[0] == "localizer" for decision in decisions) == 3
    assert len(left_out) == 3


def test_series_are_told_apart_without_their_uid(tmp_path):
    Archive(tmp_path).cine(change=lambda image, s, t: delattr(image, "SeriesInstanceUID")).stills()
    decisions, _ = decided(tmp_path)
    assert (means(series_of(stack_of(decisions))[0]) == expected_pixels()).all()


def test_without_positions_a_spacing_must_be_given(tmp_path):
    def fault(image, s, t):
        del image.ImagePositionPatient
        image.SliceLocation = 10.0 * s

    Archive(tmp_path / "in").cine(change=fault)
    decisions, _ = decided(tmp_path / "in")
    assert not decisions
    result = ingested(tmp_path / "in", tmp_path / "out")
    assert "ImagePositionPatient" in result.problem
    assert "spacing_mm" in result.problem
    placed = ingested(tmp_path / "in", tmp_path / "placed", spacing_mm=[10.0, 1.5, 1.25])
    slices, frames, *in_plane = (
        read_study(tmp_path / "placed" / placed.study_id).series["sax"].image.shape
    )
    assert (slices, frames, sorted(in_plane)) == (4, 25, [24, 32])


def test_stacks_of_enhanced_files_keep_their_scales(tmp_path):
    Archive(tmp_path).save(enhanced())
    decisions, _ = decided(tmp_path)
    both = sorted(
        (series_of(decision.stack)[0] for decision in decisions),
        key=lambda series: float(series.image.mean()),
    )
    assert (means(both[0]) == expected_pixels(3, 5)).all()
    assert (means(both[1]) == 2 * expected_pixels(3, 5)).all()
    assert np.allclose([series.spacing_mm[0] for series in both], GAP_MM)


def test_each_image_is_rescaled_once_by_its_slope(tmp_path):
    def fault(image, s, t):
        image.PixelRepresentation = 1
        image.stored = -200
        image.RescaleSlope = 2.5 if s else 4.0
        image.RescaleIntercept = -10.0 if s else 0.0

    Archive(tmp_path).cine(change=fault)
    values = means(series_of(stack_of(decided(tmp_path)[0]))[0])
    assert (values[1:] == -510.0).all()
    assert (values[0] == -800.0).all()


def test_large_unsigned_values_do_not_wrap(tmp_path):
    Archive(tmp_path).cine(change=lambda image, s, t: setattr(image, "stored", 40000))
    image = series_of(stack_of(decided(tmp_path)[0]))[0].image
    assert image.max() == image.min() == 40000


def test_compressed_files_are_read_or_named(tmp_path):
    archive = Archive(tmp_path).cine(frames=6)
    for path in sorted(archive.folder.iterdir()):
        image = pydicom.dcmread(path)
        image.compress(RLELossless)
        image.save_as(path)
    assert (means(series_of(stack_of(decided(tmp_path)[0]))[0]) == expected_pixels(4, 6)).all()
    path = sorted(tmp_path.iterdir())[0]
    image = pydicom.dcmread(path)
    image.file_meta.TransferSyntaxUID = JPEG2000Lossless
    image.save_as(path)
    decisions, left_out = decided(tmp_path)
    names = [file.reason for file in left_out]
    if names:
        assert "JPEG 2000" in names[0]
        assert "pylibjpeg" in names[0] or "pillow" in names[0]
    else:
        series, stack = series_of(stack_of(decisions))
        assert len(stack.images) == 4 * 6 - 1
        assert "lost 1 images without pixels" in " ".join(stack.notes)
        # A lost first frame lies between the last and the second.
        assert np.allclose(means(series)[:, 1:], expected_pixels(4, 6)[:, 1:])


def test_a_gap_is_noted_and_time_never_becomes_depth(tmp_path):
    Archive(tmp_path).cine(position=lambda index: index * GAP_MM + 5 * (index >= 2))
    stack = stack_of(decided(tmp_path)[0])
    assert stack.irregular
    assert any("10.0, 15.0, 10.0" in note for note in stack.notes)
    series = series_of(stack)[0]
    assert series.image.shape[:2] == (4, 25)
    area_mm2 = 24 * 32 * 1.5 * 1.25
    assert series.slice_volumes_ml * 24 * 32 == pytest.approx(
        np.array([10, 12.5, 12.5, 10]) * area_mm2 / 1000
    )
    result = ingested(tmp_path, tmp_path.parent / "out of gap")
    (back,) = NiftiSource(str(tmp_path.parent / "out of gap")).study_ids()
    assert back == result.study_id
    manifest = ManifestSource(str(tmp_path.parent / "out of gap" / "manifest.csv"))
    for source in (manifest, NiftiSource(str(tmp_path.parent / "out of gap"))):
        assert np.allclose(
            source.load(back).series["sax"].slice_volumes_ml, series.slice_volumes_ml
        )


def test_archive_is_only_read_and_names_are_data(tmp_path):
    odd = tmp_path / "a; touch PWNED; b"
    Archive(odd).cine(frames=6).junk()
    before = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in odd.iterdir()}
    odd.chmod(0o555)
    try:
        ingested(odd, tmp_path / "out")
    finally:
        odd.chmod(0o755)
    assert {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in odd.iterdir()
    } == before
    assert not list(tmp_path.rglob("PWNED*"))
    with pytest.raises(CmrvlmError, match="inside the archive"):
        ingested(odd, odd / "out")


def test_one_slice_is_a_stack_of_one(tmp_path):
    Archive(tmp_path).cine(slices=1)
    series = series_of(stack_of(decided(tmp_path)[0]))[0]
    assert series.image.shape[:2] == (1, 25)
    assert series.spacing_mm[0] == pytest.approx(8.0)


def test_broken_files_are_counted_and_the_rest_is_read(tmp_path):
    archive = Archive(tmp_path / "in").cine(skip=[(3, 24)]).junk()
    (archive.folder / "zero.dcm").touch()
    whole = sorted(archive.folder.glob("*-0001.dcm"))[0].read_bytes()
    (archive.folder / "cut.dcm").write_bytes(whole[: len(whole) - 200])
    image = base_dataset(
        SeriesInstanceUID="1.2.3.1",
        SeriesDescription="cine sax",
        Rows=12,
        InstanceNumber=900,
        ImagePositionPatient=[0.0, 0.0, 0.0],
        TriggerTime=0.0,
    )
    set_pixels(image, 7)
    archive.save(image)
    decisions, left_out = decided(archive.folder)
    reasons = [file.reason for file in left_out]
    assert sorted(reasons) == [
        "AppleDouble file of macOS",
        "empty file",
        "no DICOM file",
        "no DICOM file",
        "truncated file",
    ]
    values = means(series_of(stack_of(decisions))[0])
    assert values.shape == (4, 25)
    assert (values[:3] == expected_pixels()[:3]).all()
    assert any(
        decision.stack.first.shape == (12, 32) and not decision.sequence for decision in decisions
    )


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"BurnedInAnnotation": "YES"},
        {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]},
        {"ImageType": ["DERIVED", "SECONDARY", "OTHER", "SAVE"]},
    ],
)
def test_captures_and_burnt_in_text_are_kept_out(tmp_path, tags):
    Archive(tmp_path).cine(frames=6).captured(**tags)
    decisions, left_out = decided(tmp_path)
    assert len(left_out) == 1
    assert [decision.sequence for decision in decisions] == ["sax"]


def ingested(source, out, **settings):
    """Ingest an archive of one study and return its result."""
    ingestion = Ingest(
        str(source), str(out), str(Path(out).parent / "keys" / "key"), workers=1, **settings
    )
    archive = ingestion.find_files()
    found = list(ingestion.run(archive))
    Path(out).mkdir(exist_ok=True)
    summary = ingestion.summary(found, archive.left_out, Path(out))
    (Path(out) / "ingest.json").write_text(json.dumps(summary))
    assert len(found) == 1
    return found[0]


SECRET = "Zxqv7Planted"
IDENTIFYING = (
    "PatientName",
    "PatientID",
    "OtherPatientNames",
    "PatientAddress",
    "PatientComments",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PerformingPhysicianName",
    "OperatorsName",
    "InstitutionName",
    "InstitutionAddress",
    "InstitutionalDepartmentName",
    "StationName",
    "StudyDescription",
    "StudyID",
    "RequestedProcedureDescription",
    "ImageComments",
    "AdditionalPatientHistory",
    "Manufacturer",
    "DeviceSerialNumber",
    "ProtocolName",
    "SeriesDescription",
)


def test_a_planted_identifier_is_found_nowhere(tmp_path):
    """In tags, file names and folder names: no byte of it is in the output."""
    archive = Archive(tmp_path / SECRET / f"{SECRET}_folder")

    def plant(image, s, t):
        for tag in IDENTIFYING:
            setattr(image, tag, f"{SECRET} sax")
        image.PatientBirthDate = "19430719"

    archive.cine(frames=6, change=plant)
    (archive.folder / f"{SECRET}.dcm").touch()
    result = ingested(tmp_path / SECRET, tmp_path / "out")
    assert result.row is not None
    for path in (tmp_path / "out").rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        for secret in (SECRET, "19430719", "20200102", "2020-01-02", "1.2.3", "P1"):
            assert secret not in str(path.relative_to(tmp_path))
            assert secret == "1.2.3" or secret.encode() not in content
    assert result.row["sex"] == "f"
    assert result.row["age_years"] == 47.0
    assert result.row["maker"] is None


def test_ids_and_shifts_follow_the_key_and_the_mapping_is_private(tmp_path):
    Archive(tmp_path / "in").cine(frames=6)
    mapping = tmp_path / "mapping.csv"
    first = ingested(tmp_path / "in", tmp_path / "a", mapping_file=str(mapping))
    second = ingested(tmp_path / "in", tmp_path / "b")
    assert first.row == second.row
    assert first.row["date"] < "2020-01-02"
    assert "P1,1.2.3," in mapping.read_text()
    for private in (mapping, tmp_path / "keys" / "key"):
        assert os.stat(private).st_mode & 0o077 == 0
    (tmp_path / "keys" / "key").unlink()
    other = ingested(tmp_path / "in", tmp_path / "c")
    assert other.study_id != first.study_id
    with pytest.raises(CmrvlmError, match="beside the de-identified"):
        ingested(tmp_path / "in", tmp_path / "d", mapping_file=str(tmp_path / "d" / "mapping.csv"))
    (tmp_path / "keys" / "key").write_text("no key")
    with pytest.raises(CmrvlmError, match="no key"):
        ingested(tmp_path / "in", tmp_path / "e")


def test_a_study_that_is_there_is_not_read_again(tmp_path, monkeypatch):
    Archive(tmp_path / "in").cine(frames=6)
    first = ingested(tmp_path / "in", tmp_path / "out")
    monkeypatch.setattr(
        "data_modules.dicom.ingest_study.series_of", lambda *a: pytest.fail("read again")
    )
    assert ingested(tmp_path / "in", tmp_path / "out").row == first.row


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "cmrvlm.ingest", *arguments],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_command_says_when_something_is_missing(tmp_path):
    archive = Archive(tmp_path / "in").cine(frames=6).scout()
    arguments = (
        f"source={tmp_path / 'in'}",
        f"out={tmp_path / 'out'}",
        f"ingest.key_file={tmp_path / 'key'}",
    )
    whole = command(*arguments)
    assert whole.returncode == 0, whole.stderr
    assert "sax" in whole.stdout
    assert "localizer" in whole.stdout
    (archive.folder / "zero.dcm").touch()
    partial = command(*arguments)
    assert partial.returncode == 3
    assert "1 files left out: empty file" in partial.stdout
    nothing = command(f"source={tmp_path / 'nowhere'}", *arguments[1:])
    assert nothing.returncode == 1
    assert "no such folder" in nothing.stderr


def unpacked(archive, tmp_path):
    shutil.unpack_archive(archive, tmp_path)
    return tmp_path


def test_siemens_study_with_a_series_for_each_slice(tmp_path, real_data):
    decisions, _ = decided(
        unpacked(real_data / "dicom" / "bivme_siemens" / "patient1.tar.gz", tmp_path)
    )
    sax = stack_of(decisions)
    assert (sax.slices, sax.phases) == (6, 25)
    assert np.allclose(np.diff(sax.slice_positions_mm()), 17.7, atol=0.01)
    assert [images[0].path.parent.name for images in sax.frames] == [
        "Se11",
        "Se1",
        "Se2",
        "Se3",
        "Se4",
        "Se5",
    ]
    assert stack_of(decisions, "lax_4ch").first.path.parent.name == "Se6"
    (seven,) = [
        decision for decision in decisions if decision.stack.first.path.parent.name == "Se7"
    ]
    assert seven.ambiguous
    assert not seven.sequence
    assert series_of(sax)[0].image.shape == (6, 25, 208, 256)


def test_ge_study_with_all_slices_in_one_series(tmp_path, real_data):
    archive = real_data / "dicom" / "sunnybrook_ge" / "E774S5-shortAxis_lvContours.tar.gz"
    decisions, _ = decided(unpacked(archive, tmp_path))
    sax = stack_of(decisions)
    assert (sax.slices, sax.phases, sax.first.shape) == (20, 20, (256, 256))
    assert np.allclose(np.diff(sax.slice_positions_mm()), 5.0, atol=0.01)


def test_a_localizer_is_no_cine(real_data):
    decisions, _ = decided(real_data / "dicom" / "sunnybrook_scout")
    assert decisions
    assert all(
        not decision.sequence and decision.reasons == ("localizer",) for decision in decisions
    )
