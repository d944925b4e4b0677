"""Archives that come in several batches, or are read again after somebody worked on the table."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

from cmrvlm.errors import CmrvlmError
from data_modules.tables.read_table import read_table
from tests.data_modules.dicom.archive import Archive
from tests.data_modules.dicom.faulty_studies import FRAMES, SLICES, retag, sax, study
from tests.data_modules.dicom.test_faulty_studies import ingest, rows_of

ROOT = Path(__file__).parents[3]
PARTS = {
    "lge": {"cine": False, "chambers": False},
    "sax": {"chambers": False, "enhancement": False},
    "lax_4ch": {"cine": False, "enhancement": False},
}


def pixels(path):
    return np.asarray(nib.load(path).dataobj)


@pytest.mark.parametrize("late", PARTS)
def test_a_late_series_joins_those_of_the_first_batch(tmp_path, late):
    """The second batch is a folder of its own, which holds one series of the same study."""
    settings = {
        "cine": late != "sax",
        "chambers": late != "lax_4ch",
        "enhancement": late != "lge",
    }
    study(tmp_path / "i1", **settings)
    study(tmp_path / "i2", **PARTS[late])
    retag(tmp_path / "i1", PatientSize=1.7)
    retag(tmp_path / "i2", PatientAge=None, PatientSex=None, PatientID=None)
    out = tmp_path / "out"
    _, first = ingest(tmp_path / "i1", out)
    (study_id,) = first
    before = {path.name: pixels(path) for path in (out / study_id).glob("*.nii.gz")}
    (out / study_id / "notes.txt").write_text("mine")
    _, second = ingest(tmp_path / "i2", out)
    row = rows_of(out / "manifest.csv")[study_id]
    assert {name for name in PARTS if row[name]} == set(PARTS)
    for name, expected in before.items():
        np.testing.assert_array_equal(pixels(out / study_id / name), expected)
    assert row["patient_id"] == first[study_id].row["patient_id"]
    assert (row["age_years"], row["sex"], row["height_cm"]) == ("47.0", "f", "170.0")
    meta = json.loads((out / study_id / "study.json").read_text())
    assert set(meta["series"]) == set(PARTS)
    assert meta["labels"]["demographics"]["age_years"] == 47
    assert meta["patient_id"] == row["patient_id"]
    assert (out / study_id / "notes.txt").read_text() == "mine"
    assert not any("short-axis" in doubt for doubt in second[study_id].doubts)
    decided = {one["sequence"] for one in second[study_id].decisions}
    assert set(PARTS) <= decided
    # Whichever batch is read again, nothing goes.
    for source in ("i1", "i2"):
        assert ingest(tmp_path / source, out)[1][study_id].reused
    assert rows_of(out / "manifest.csv")[study_id] == row
    ingest(tmp_path / "i1", out, keep="first")
    assert rows_of(out / "manifest.csv")[study_id] == row


@pytest.mark.parametrize(("kind", "stays"), [("less", True), ("whole", False), ("aside", True)])
def test_a_series_of_other_files_replaces_only_what_it_covers(tmp_path, kind, stays):
    study(tmp_path / "i1", chambers=False, enhancement=False)

    def brighter(image, s, t):
        image.stored += 500
        if kind == "aside":
            normal = np.cross(image.ImageOrientationPatient[:3], image.ImageOrientationPatient[3:])
            place = np.array(image.ImagePositionPatient) + 80 * normal
            image.ImagePositionPatient = [float(value) for value in place]

    study(tmp_path / "i2", chambers=False, enhancement=False, change=brighter)
    if kind == "less":
        for path in sorted((tmp_path / "i2").iterdir()):
            if pydicom.dcmread(path).InstanceNumber > (SLICES - 1) * FRAMES:
                path.unlink()
    out = tmp_path / "out"
    ingest(tmp_path / "i1", out)
    summary, results = ingest(tmp_path / "i2", out)
    (study_id,) = results
    assert summary["partial"]
    doubts = " ".join(results[study_id].doubts)
    assert ("the earlier stays" in doubts) == stays
    assert (pixels(out / study_id / "sax.nii.gz").max() < 500) == stays
    assert rows_of(out / "manifest.csv")[study_id]["sax"]


def test_a_rule_takes_a_series_out_that_the_batch_holds(tmp_path):
    study(tmp_path / "in", chambers=False)
    _, results = ingest(tmp_path / "in", tmp_path / "out")
    (study_id,) = results
    _, results = ingest(tmp_path / "in", tmp_path / "out", rules={"cine": "none"})
    assert not results[study_id].row["sax"]
    assert not (tmp_path / "out" / study_id / "sax.nii.gz").exists()
    assert not rows_of(tmp_path / "out" / "manifest.csv")[study_id]["sax"]


def filled(text, delimiter):
    """Write a table as a spreadsheet of other countries does."""
    rows = list(csv.DictReader(io.StringIO(text)))
    for row in rows:
        row["Study ID"] = row.pop("study_id")
        row |= {"lge": "mine/lge.nii.gz", "lvef_percent": "55,5", "age_years": "48", "empty": ""}
        row["note, of me"] = "a,b;c"
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


@pytest.mark.parametrize(
    ("delimiter", "encoding"), [(";", "utf-8"), ("\t", "utf-8-sig"), (",", "utf-16")]
)
@pytest.mark.parametrize("is_reused", [True, False])
def test_what_somebody_wrote_into_the_table_stays(tmp_path, delimiter, encoding, is_reused):
    study(tmp_path / "in", chambers=False, enhancement=False)
    out = tmp_path / "out"
    _, results = ingest(tmp_path / "in", out)
    (study_id,) = results
    manifest = out / "manifest.csv"
    text = filled(manifest.read_text(), delimiter)
    manifest.write_text(text, encoding=encoding)
    before = read_table(manifest)[0]
    ingest(tmp_path / "in", out, keep="later" if is_reused else "first")
    after = read_table(manifest)[0]
    assert dict(after) == dict(before)
    assert list(after.names.values()) == list(before.names.values())
    assert after["study_id"] == study_id
    if delimiter != ",":
        assert after.read_number("lvef_percent") == 55.5
    # Another study is a row of the same table.
    study(tmp_path / "more", chambers=False, enhancement=False)
    retag(tmp_path / "more", StudyInstanceUID="1.8.8", PatientWeight=70)
    ingest(tmp_path / "more", out)
    first, second = read_table(manifest)
    assert dict(first) == dict(before)
    assert (second["weight_kg"], second["sax"][-10:]) == ("70.0", "sax.nii.gz")


@pytest.mark.parametrize("column", ["sax", "lge", "age_years"])
def test_what_nobody_changed_in_the_table_follows_the_files(tmp_path, column):
    study(tmp_path / "in", chambers=False)
    out = tmp_path / "out"
    _, results = ingest(tmp_path / "in", out)
    (study_id,) = results
    rules = {"sax": {"cine": "none"}, "lge": {"lge": "none"}}.get(column, {})
    if column == "age_years":
        retag(tmp_path / "in", PatientAge="051Y")
    ingest(tmp_path / "in", out, rules=rules)
    expected = "51.0" if column == "age_years" else ""
    assert rows_of(out / "manifest.csv")[study_id][column] == expected


@pytest.mark.parametrize("text", ["case,age\n1,2\n", "study_id,Study ID\na,b\n"])
def test_a_table_that_cannot_be_kept_is_refused_first(tmp_path, text):
    study(tmp_path / "in", chambers=False, enhancement=False)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.csv").write_text(text)
    with pytest.raises(CmrvlmError, match=r"manifest\.csv"):
        ingest(tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out" / "manifest.csv").read_text() == text


@pytest.mark.parametrize(
    "image_type",
    [
        ["DERIVED", "SECONDARY", "M", "NORM"],
        ["DERIVED", "SECONDARY"],
        ["DERIVED", "SECONDARY", "OTHER", "M"],
    ],
)
def test_images_that_were_computed_from_others_come_in(tmp_path, image_type):
    study(tmp_path / "in")
    retag(tmp_path / "in", ImageType=image_type)
    summary, results = ingest(tmp_path / "in", tmp_path / "out")
    (result,) = results.values()
    assert {name for name in PARTS if result.row[name]} == set(PARTS)
    assert not summary["files_left_out"]


def test_the_original_stays_beside_a_copy_that_was_computed(tmp_path):
    def brighter(image, s, t):
        image.stored += 500
        image.ImageType = ["DERIVED", "SECONDARY", "M", "NORM"]

    study(tmp_path / "in" / "a", chambers=False, enhancement=False)
    sax(Archive(tmp_path / "in" / "b"), brighter, series="1.2.3.77")
    _, results = ingest(tmp_path / "in", tmp_path / "out")
    (study_id,) = results
    assert pixels(tmp_path / "out" / study_id / "sax.nii.gz").shape[2:] == (SLICES, FRAMES)
    assert pixels(tmp_path / "out" / study_id / "sax.nii.gz").max() < 500


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "secondary capture"),
        ({"BurnedInAnnotation": "YES"}, "burnt-in annotation"),
        ({"Rows": None}, "Rows"),
    ],
)
def test_a_study_of_which_nothing_remains_is_told(tmp_path, tags, reason):
    study(tmp_path / "in" / "a", chambers=False, enhancement=False)
    study(tmp_path / "in" / "b", chambers=False, enhancement=False)
    retag(tmp_path / "in" / "b", StudyInstanceUID="1.8.8", **tags)
    summary, results = ingest(tmp_path / "in", tmp_path / "out")
    assert len(results) == 2
    assert summary["partial"]
    (problem,) = [one["problem"] for one in summary["studies"].values() if one["problem"]]
    assert reason in problem
    assert len(rows_of(tmp_path / "out" / "manifest.csv")) == 1


@pytest.mark.parametrize("source", ["nowhere", "file.txt", "empty"])
def test_a_wrong_source_leaves_nothing(tmp_path, source):
    (tmp_path / "file.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CmrvlmError, match=f"{source}.*(no such folder|holds no file)"):
        ingest(tmp_path / source, tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_wrong_source_is_one_error_of_the_command(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "cmrvlm.ingest", "source=nowhere", "out=x1", "ingest.key_file=k"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("error:") == 1
    assert "no such folder" in done.stderr
    assert not list(tmp_path.iterdir())
