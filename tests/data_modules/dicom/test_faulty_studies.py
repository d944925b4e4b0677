"""An archive of studies with one fault each: all that should come in does, and nothing else."""

import csv
import json
from collections import Counter

import numpy as np
import pytest

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.atomic_files import write_json
from cmrvlm.study.files import read_study
from data_modules.dicom.deidentify import Pseudonyms, read_key
from data_modules.dicom.ingest import Ingest
from tests.data_modules.dicom.archive import Archive
from tests.data_modules.dicom.faulty_studies import FAULTS, FRAMES, SLICES, retag, study

EXPECTED = 100 + 10 * np.arange(SLICES)[:, None] + np.arange(FRAMES)[None]
# Faults that change grey values of the short axis: a repeated slice is brighter.
OTHER_PIXELS = {"repeated", "repeated_series", "single_slice", "late_alone_without_time"}


def ingest(source, out, **settings):
    """Ingest an archive; returns the content of `ingest.json` and the results by study id."""
    ingestion = Ingest(
        str(source), str(out), str(source.parent / "key"), **{"workers": 1, **settings}
    )
    archive = ingestion.find_files()
    ingested = list(ingestion.run(archive))
    summary = ingestion.summary(ingested, archive.left_out, out)
    write_json(out / "ingest.json", summary)
    return summary, {result.study_id: result for result in ingested}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """All studies in one archive, each of its own patient, read once."""
    root = tmp_path_factory.mktemp("faulty")
    save = Archive.save
    for number, (name, fault) in enumerate(FAULTS.items()):

        def save_as_own(self, image, name=None, number=number):
            image.StudyInstanceUID = f"1.9.{number}"
            image.PatientID = f"Meier{number}"
            return save(self, image, name)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Archive, "save", save_as_own)
            fault.write(root / "archive" / name)
    summary, results = ingest(root / "archive", root / "out")
    pseudonyms = Pseudonyms(read_key(root / "key"))
    ids = {name: pseudonyms.study(f"1.9.{number}") for number, name in enumerate(FAULTS)}
    return root, summary, {name: results.get(study_id) for name, study_id in ids.items()}


@pytest.mark.parametrize("name", FAULTS)
def test_all_that_should_come_in_does_and_nothing_else(archive, name):
    root, summary, results = archive
    fault, result = FAULTS[name], results[name]
    assert result is not None
    found = {}
    for sequence in ("sax", "lax_4ch", "lge"):
        if result.row is not None and result.row[sequence]:
            series = read_study(root / "out" / result.study_id).series[sequence]
            found[sequence] = series.image.shape[:2]
    assert found == fault.series, (result.problem, result.decisions)
    ambiguous = {one["sequence"] for one in result.decisions if one["ambiguous"]}
    assert set(fault.ambiguous) <= ambiguous
    told = json.dumps([result.decisions, result.doubts, summary["files_left_out"]])
    assert fault.reason in told


@pytest.mark.parametrize("name", [name for name in FAULTS if name not in OTHER_PIXELS])
def test_frames_lie_at_their_place_and_time(archive, name):
    root, _, results = archive
    series = read_study(root / "out" / results[name].study_id).series["sax"]
    means = np.median(series.image, axis=(2, 3))
    order = np.argsort(means[:, 0])
    lost = np.abs(means[order] - EXPECTED) > 0.01
    # A frame that is interpolated between its neighbours is near them; the last and the first of
    # a beat are not in these phantoms.
    inner = lost[:, 1:-1]
    assert not inner.any()
    assert lost.sum() <= 1


def test_studies_that_need_a_look_are_told(archive):
    _, summary, results = archive
    assert summary["partial"]
    for name in ("anonymous", "two_patients", "late_alone_without_time", "patient_nowhere"):
        assert results[name].doubts
    assert not results["underscores"].doubts
    patients = [results[name].row["patient_id"] for name in FAULTS]
    assert max(Counter(patients).values()) == 1


def test_no_identifier_is_told(archive):
    root, summary, _ = archive
    for text in (json.dumps(summary), (root / "out" / "manifest.csv").read_text()):
        assert "Meier" not in text
        assert "1.9." not in text
        assert ".dcm" not in text


def test_one_identifier_of_several_people_is_nobodys(tmp_path):
    for number, birth_date in enumerate(("19500101", "19610202", "19720303")):
        folder = tmp_path / "in" / str(number)
        study(folder, chambers=False, enhancement=False)
        retag(
            folder,
            StudyInstanceUID=f"1.5.{number}",
            PatientID=" 0012345 ",
            PatientBirthDate=birth_date,
        )
    _, results = ingest(tmp_path / "in", tmp_path / "out")
    assert len({one.row["patient_id"] for one in results.values()}) == 3
    assert all("several people" in one.doubts[0] for one in results.values())


def test_blanks_around_an_identifier_are_no_part_of_it(tmp_path):
    for number, name in enumerate(("0012345", " 0012345 ", "0012345 ")):
        folder = tmp_path / "in" / str(number)
        study(folder, chambers=False, enhancement=False)
        retag(folder, StudyInstanceUID=f"1.5.{number}", PatientID=name)
    _, results = ingest(tmp_path / "in", tmp_path / "out")
    assert len({one.row["patient_id"] for one in results.values()}) == 1


@pytest.mark.parametrize("content", [None, "readme.txt"])
def test_an_archive_without_anything_is_no_success(tmp_path, content):
    (tmp_path / "in").mkdir()
    if content is None:
        with pytest.raises(CmrvlmError, match="no file"):
            ingest(tmp_path / "in", tmp_path / "out")
        return
    (tmp_path / "in" / content).write_text("hello")
    summary, results = ingest(tmp_path / "in", tmp_path / "out")
    assert summary["partial"]
    assert not results


@pytest.mark.parametrize(
    ("tag", "value", "column"),
    [
        ("PatientSize", 170.0, "height_cm"),
        ("PatientSize", 0.017, "height_cm"),
        ("PatientWeight", 70000.0, None),
        ("PatientWeight", 800.0, "weight_kg"),
    ],
)
def test_a_number_of_nobody_is_unknown_and_told(tmp_path, tag, value, column):
    study(tmp_path / "in", chambers=False, enhancement=False)
    retag(tmp_path / "in", **{tag: value})
    _, results = ingest(tmp_path / "in", tmp_path / "out")
    (result,) = results.values()
    assert "height_cm" not in result.row
    assert "weight_kg" not in result.row
    assert read_study(tmp_path / "out" / result.study_id).series.keys() == {"sax"}
    assert column is None or any(column in doubt for doubt in result.doubts)


def test_a_rule_of_the_user_wins(tmp_path):
    study(tmp_path / "in", sax="protocol 7", lax_4ch="protocol 9", lge="weird")
    rules = {r"protocol 7": "lax_4ch", r"protocol 9": "none", "weird": "none"}
    _, results = ingest(tmp_path / "in", tmp_path / "out", rules=rules)
    (result,) = results.values()
    assert [name for name in ("sax", "lax_4ch", "lge") if result.row[name]] == ["lax_4ch"]
    for wrong in ({"(": "sax"}, {"a": "short axis"}):
        with pytest.raises(CmrvlmError, match=r"ingest\.rules"):
            ingest(tmp_path / "in", tmp_path / "b", rules=wrong)


def test_more_words_are_those_of_the_user(tmp_path):
    study(tmp_path / "in", lge="nachbild", chambers=False)
    retag(tmp_path / "in", InversionTime=None)
    _, results = ingest(tmp_path / "in", tmp_path / "a")
    assert next(iter(results.values())).row["lge"] is None
    _, results = ingest(tmp_path / "in", tmp_path / "b", words={"lge": ["Nachbild"]})
    assert next(iter(results.values())).row["lge"]


@pytest.mark.parametrize("policy", ["drop", "error"])
def test_a_slice_with_other_frames_is_dropped_or_refused(tmp_path, policy):
    FAULTS["lost_in_the_middle"].write(tmp_path / "in")
    _, results = ingest(tmp_path / "in", tmp_path / "out", uneven_frames=policy)
    (result,) = results.values()
    if policy == "error":
        assert result.row["sax"] is None
        assert "slice 2 has 6 frames" in json.dumps(result.decisions)
    else:
        shape = read_study(tmp_path / "out" / result.study_id).series["sax"].image.shape
        assert shape[:2] == (SLICES - 1, FRAMES)


def test_two_parallel_cines_left_out_are_told(tmp_path):
    def sagittal(image, s, t):
        image.ImageOrientationPatient = [0.0, 1.0, 0, 0, 0, -1.0]
        image.ImagePositionPatient = [10.0 * s, 0.0, 0.0]

    archive = Archive(tmp_path / "in")
    archive.cine(2, FRAMES, series="1.2.3.1", description="a", change=sagittal)
    archive.cine(2, FRAMES, series="1.2.3.2", description="b", change=sagittal)
    summary, results = ingest(tmp_path / "in", tmp_path / "out")
    assert summary["partial"]
    assert "parallel" in " ".join(next(iter(results.values())).doubts)


def rows_of(path):
    with path.open(newline="") as file:
        return {row["study_id"]: row for row in csv.DictReader(file)}


def test_a_second_batch_keeps_rows_and_columns_of_the_user(tmp_path):
    study(tmp_path / "a", chambers=False)
    _, first = ingest(tmp_path / "a", tmp_path / "out")
    manifest = tmp_path / "out" / "manifest.csv"
    (study_id,) = first
    lines = manifest.read_text().splitlines()
    manifest.write_text(f"{lines[0]},diseases\n{lines[1]},DCM\n")
    study(tmp_path / "b", chambers=False)
    retag(tmp_path / "b", StudyInstanceUID="1.7.7")
    ingest(tmp_path / "b", tmp_path / "out")
    rows = rows_of(manifest)
    assert len(rows) == 2
    assert rows[study_id]["diseases"] == "DCM"
    # Reading the first again changes nothing.
    again, results = ingest(tmp_path / "a", tmp_path / "out")
    assert results[study_id].reused
    assert rows_of(manifest) == rows
    assert set(again["studies"]) == set(rows)


def test_a_late_series_and_another_setting_make_a_study_anew(tmp_path):
    study(tmp_path / "in", enhancement=False)
    _, first = ingest(tmp_path / "in", tmp_path / "out")
    (study_id,) = first
    assert not first[study_id].row["lge"]
    study(tmp_path / "in", cine=False, chambers=False)
    _, second = ingest(tmp_path / "in", tmp_path / "out")
    assert second[study_id].row["lge"]
    assert not second[study_id].reused
    assert ingest(tmp_path / "in", tmp_path / "out")[1][study_id].reused
    assert not ingest(tmp_path / "in", tmp_path / "out", keep="first")[1][study_id].reused
    assert rows_of(tmp_path / "out" / "manifest.csv")[study_id]["lge"]


def test_paths_behind_numbers_are_private(tmp_path):
    study(tmp_path / "in", enhancement=False, chambers=False)
    paths = tmp_path / "private" / "paths.csv"
    ingest(tmp_path / "in", tmp_path / "out", paths_file=str(paths))
    assert paths.stat().st_mode & 0o077 == 0
    assert paths.read_text().count(".dcm") == SLICES * FRAMES
    with pytest.raises(CmrvlmError, match="paths_file"):
        ingest(tmp_path / "in", tmp_path / "b", paths_file=str(tmp_path / "b" / "paths.csv"))


def test_workers_read_what_one_process_reads(tmp_path):
    for name in ("underscores", "copies", "no_rows", "lost_in_the_middle"):
        FAULTS[name].write(tmp_path / "in" / name)
    one, _ = ingest(tmp_path / "in", tmp_path / "one")
    two, _ = ingest(tmp_path / "in", tmp_path / "two", workers=2)
    assert one == two


@pytest.mark.parametrize("odd_slice", range(SLICES))
def test_a_slice_of_another_size_is_told_by_its_number(tmp_path, odd_slice):
    def larger(image, s, t):
        if s == odd_slice:
            image.Rows, image.Columns = 32, 40

    study(tmp_path / "in", change=larger, chambers=False)
    summary, results = ingest(tmp_path / "in", tmp_path / "out")
    (result,) = results.values()
    assert summary["partial"]
    assert f"sax lacks images at slice [{odd_slice}] that have 32 x 40 pixels" in result.doubts
