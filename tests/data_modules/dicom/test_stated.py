"""What headers state of patients: the first file that states it, and nothing that cannot be."""

import pytest

from data_modules.dicom.scan import files_of, scan
from data_modules.dicom.stated import stated_of
from data_modules.dicom.studies import studies_of
from tests.data_modules.dicom.archive import Archive
from tests.data_modules.dicom.faulty_studies import retag

NOTHING = dict.fromkeys(("PatientSex", "PatientAge", "PatientSize", "PatientWeight"))


def stated(folder, *series):
    """Return what is stated by series with these tags, the first of them without any other."""
    for number, tags in enumerate(series):
        part = folder / str(number)
        Archive(part).stills(2, series=f"1.4.{number}")
        retag(part, **{**NOTHING, **tags})
    (study,) = studies_of(scan(files_of(folder)))
    return stated_of(study)


@pytest.mark.parametrize("missing", [None, ""])
def test_the_first_file_that_states_it_tells(tmp_path, missing):
    nothing = {**dict.fromkeys(NOTHING, missing), "StudyDate": missing, "Manufacturer": missing}
    found = stated(
        tmp_path,
        {**nothing, "MagneticFieldStrength": None},
        {"PatientSex": "M", "PatientSize": 1.8},
        {"PatientAge": "063Y", "PatientWeight": 80, "PatientSex": "F"},
    )
    expected = {"sex": "m", "age_years": 63.0, "height_cm": 180.0, "weight_kg": 80.0}
    assert found.person == expected
    assert (found.day, found.scanner) == ("20200102", {"maker": "siemens", "field_t": 1.5})
    assert not found.doubts


def test_another_file_of_the_series_tells(tmp_path):
    Archive(tmp_path / "in").stills(3)
    retag(tmp_path / "in", PatientAge=None)
    Archive(tmp_path / "z").stills(1, SliceLocation=5.0)
    (study,) = studies_of(scan(files_of(tmp_path)))
    assert stated_of(study).person["age_years"] == 47.0


@pytest.mark.parametrize(
    ("text", "years"), [("63Y", 63), ("063Y", 63), ("7Y", 7), ("18M", 2), ("95Y", 90), ("104W", 2)]
)
def test_ages_of_fewer_digits_are_ages(tmp_path, text, years):
    assert stated(tmp_path, {"PatientAge": text}).person["age_years"] == years


@pytest.mark.parametrize(
    ("size", "is_known"),
    [
        ({"PatientSize": 1.75}, False),
        ({"PatientWeight": 70}, False),
        ({}, False),
        ({"PatientSize": 0.62, "PatientWeight": 6.1}, True),
    ],
)
def test_an_age_of_nobody_is_unknown(tmp_path, size, is_known):
    found = stated(tmp_path, {"PatientAge": "000Y", **size})
    assert ("age_years" in found.person) == is_known
    assert any("age of 0" in doubt for doubt in found.doubts) != is_known


def test_a_number_that_can_be_goes_before_one_that_cannot(tmp_path):
    found = stated(tmp_path, {"PatientSize": 180.0}, {"PatientSize": 1.8})
    assert found.person == {"height_cm": 180.0}
    assert not found.doubts
