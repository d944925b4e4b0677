"""Whose study a study is, and which files are one visit, by what headers state."""

import pytest

from data_modules.dicom.scan import files_of, scan
from data_modules.dicom.studies import studies_of
from tests.data_modules.dicom.archive import Archive
from tests.data_modules.dicom.faulty_studies import retag


def studies(folder, visits):
    """Write a study of one slice for each visit, given by its tags, and group the files."""
    for number, tags in enumerate(visits):
        Archive(folder / str(number)).stills(1)
        retag(folder / str(number), **{"StudyInstanceUID": f"1.6.{number}", **tags})
    return studies_of(scan(files_of(folder)))


@pytest.mark.parametrize("name", ["ANON0001", "Pseudonym_17", "anon-3", "Patient 12", "X7"])
def test_a_word_with_a_number_is_an_identifier(tmp_path, name):
    found = studies(tmp_path, [{"PatientID": name, "PatientName": "A^B"}] * 2)
    assert [one.patient for one in found] == [name, name]
    assert not any(one.notes for one in found)


@pytest.mark.parametrize("name", ["ANON", "Anonymous", "pseudonymized", "anonymous_", "0000"])
def test_a_word_alone_is_nobody(tmp_path, name):
    found = studies(tmp_path, [{"PatientID": name}] * 2)
    assert len({one.patient for one in found}) == 2
    assert all("stands for nobody" in one.notes[0] for one in found)


@pytest.mark.parametrize(
    ("tag", "values"),
    [
        ("PatientName", ("Meier^Anna", "Schmidt^Ida", "Lang^Eva")),
        ("PatientBirthDate", ("19500101", "19610202", "19720303")),
        ("PatientSex", ("M", "F", "M")),
    ],
)
def test_a_numbered_word_of_several_people_is_nobodys(tmp_path, tag, values):
    found = studies(tmp_path, [{"PatientID": "ANON0001", tag: value} for value in values])
    assert len({one.patient for one in found}) == 3
    assert all("several people" in one.notes[0] for one in found)


@pytest.mark.parametrize("patient", ["P1", "ANON0001", "0012345"])
def test_days_part_visits_without_an_identifier(tmp_path, patient):
    tags = {"PatientID": patient, "StudyInstanceUID": None}
    days = ("20200101", "20200101", "20210202")
    found = studies(tmp_path, [{**tags, "StudyDate": day} for day in days])
    assert [len(one.images) for one in found] == [2, 1]
    assert [one.patient for one in found] == [patient, patient]
    assert all("no file states a study" in one.notes[0] for one in found)


@pytest.mark.parametrize("patient", ["0012345", "P17", "MRN-99"])
def test_names_do_not_part_an_ordinary_identifier(tmp_path, patient):
    names = ("Meier^Anna", "Anna Meier", "Schulze^Anna")
    found = studies(tmp_path, [{"PatientID": patient, "PatientName": name} for name in names])
    assert {one.patient for one in found} == {patient}
