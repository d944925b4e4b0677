"""Studies from a table: joined by id, with errors that name file, column and row."""

import csv
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.files import write_nifti
from cmrvlm.study.study import StudyLabels
from cmrvlm.study.vocabulary import STRUCTURES
from data_modules.sources.manifest import ManifestSource
from data_modules.tables.read_table import read_table
from data_modules.tables.text_files import read_text

AFFINE = np.diag([12.5, 15.0, 10.0, 1.0])


@pytest.fixture
def folder(tmp_path):
    """Two series and a mask."""
    image = np.arange(2 * 3 * 6 * 8, dtype=np.float32).reshape(2, 3, 6, 8)
    write_nifti(tmp_path / "sax.nii.gz", image, AFFINE)
    write_nifti(tmp_path / "lge.nii.gz", image[:, :1] + 1, AFFINE)
    write_nifti(tmp_path / "mask.nii.gz", (image % 4).astype(np.uint8), AFFINE)
    return tmp_path


def table(folder, *rows, name="studies.csv"):
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with (folder / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return folder / name


ROWS = (
    {
        "study_id": "007",
        "patient_id": "0012",
        "sax": "sax.nii.gz",
        "sax_mask": "mask.nii.gz",
        "sax_ed_frame": 0,
        "sax_es_frame": 2,
        "diseases": "DCM",
        "finding_thrombus": "no",
        "finding_lvef": "abnormal",
        "lvef_percent": 31.5,
        "sex": "F",
        "age_years": 61,
        "follow_up_months": 14,
        "event": "yes",
        "report_en": "Structure: LV dilated. Function: reduced.",
        "impression_zh": "扩张型心肌病。",
        "questions": json.dumps(
            [
                {
                    "category": "lge",
                    "language": "en",
                    "prompt": "Where?",
                    "answer": "septum",
                    "options": ["septum", "apex"],
                    "sequences": ["lge"],
                }
            ]
        ),
    },
    {"study_id": "7", "sax": "sax.nii.gz", "lge": "lge.nii.gz", "report_zh": "左心室增大"},
)


def test_everything_a_row_states_is_read_and_nothing_else(folder):
    source = ManifestSource(str(table(folder, *ROWS)))
    assert source.study_ids() == ["007", "7"]
    assert source.patient_ids() == ["0012", "7"]
    one, two = source.load("007"), source.load("7")
    assert one.labels.diseases == {"DCM"}
    assert one.labels.findings == {"thrombus": False, "lvef": True}
    assert one.labels.measurements == {"lvef_percent": 31.5}
    assert one.labels.demographics == {"sex": "f", "age_years": 61.0}
    assert one.labels.follow_up == {"months": 14.0, "event": 1.0}
    assert one.labels.report == {
        "en": {"structure": "LV dilated.", "function": "reduced."},
        "zh": {"impression": "扩张型心肌病。"},
    }
    assert one.labels.questions[0].options == ("septum", "apex")
    assert one.series["sax"].phases == {"ed": 0, "es": 2}
    assert (one.series["sax"].mask == one.series["sax"].image % 4).all()
    assert list(two.series) == ["sax", "lge"]
    assert two.labels.diseases is None
    assert not two.labels.findings
    assert two.labels.report == {"zh": {"other": "左心室增大"}}


def test_order_of_rows_changes_nothing(folder):
    a, b = (
        ManifestSource(str(table(folder, *rows, name=name)))
        for rows, name in ((ROWS, "a.csv"), (ROWS[::-1], "b.csv"))
    )
    assert a.study_ids() == b.study_ids()
    for study in a.study_ids():
        assert a.load(study).labels == b.load(study).labels


def test_every_kind_of_table_says_the_same(folder):
    rows = [{key: value for key, value in row.items() if key != "questions"} for row in ROWS]
    kinds = [table(folder, *rows)]
    (folder / "studies.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    kinds.append(folder / "studies.jsonl")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    pq.write_table(
        pa.table(
            {
                name: [None if (v := row.get(name)) is None else str(v) for row in rows]
                for name in columns
            }
        ),
        folder / "studies.parquet",
    )
    kinds.append(folder / "studies.parquet")
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(columns)
    for row in rows:
        book.active.append([row.get(name) for name in columns])
    book.save(folder / "studies.xlsx")
    kinds.append(folder / "studies.xlsx")
    first, *others = [ManifestSource(str(path)) for path in kinds]
    for other in others:
        assert [first.load(s).labels for s in first.study_ids()] == [
            other.load(s).labels for s in other.study_ids()
        ]


def test_text_is_read_in_the_encodings_that_are_used(tmp_path):
    text = "左心室增大, naïve"
    for encoding in ("utf-8", "utf-8-sig", "gb18030"):
        (tmp_path / "text").write_bytes(text.encode(encoding))
        assert read_text(tmp_path / "text") == text
    for text in ("Hypertrophie sévère du ventricule gauche", "Sex\xa0: M\r\nAge\xa0: 65"):
        (tmp_path / "text").write_bytes(text.encode("cp1252"))
        assert read_text(tmp_path / "text") == text


def read_all(path):
    source = ManifestSource(str(path))
    return [source.load(study) for study in source.study_ids()]


@pytest.mark.parametrize(
    ("change", "column", "problem"),
    [
        ({"study_id": ""}, "study_id", "blank"),
        ({"study_id": "7"}, "study_id", "'7' is there twice"),
        ({"diseases": "DMC"}, "diseases", "unknown disease 'DMC'"),
        ({"finding_lvef": "maybe"}, "finding_lvef", "neither yes nor no"),
        ({"lvef_percent": "low"}, "lvef_percent", "no number"),
        ({"lvedv_ml": "60", "lvesv_ml": "150"}, "lvesv_ml", "not less than lvedv_ml of 60"),
        ({"lvedv_ml": "60", "lvesv_ml": "60"}, "lvesv_ml", "not less"),
        ({"rvedv_ml": "80", "rvesv_ml": "90"}, "rvesv_ml", "not less than rvedv_ml of 80"),
        ({"sax": ""}, "sax", "no series"),
        ({"split": "dev"}, "split", "'dev' is no part"),
        ({"sax_es_frame": 3}, "sax_es_frame", "none of the 3 frames"),
        ({"sex": "?"}, "sex", "unknown"),
        ({"event": ""}, "follow_up_months", "months and event"),
        ({"questions": "{"}, "questions", "cannot be read"),
        ({"sax": "missing.nii.gz"}, "sax", "no such file"),
        ({"sax_mask": "lge.nii.gz"}, "mask", "one grid"),
    ],
)
def test_faults_are_named_with_their_row(folder, change, column, problem):
    rows = (ROWS[1], ROWS[0] | change)
    with pytest.raises(CmrvlmError, match=problem) as refused:
        read_all(table(folder, *rows))
    if column and column != "mask":
        assert refused.value.field == f"{column}, row 3"
    assert refused.value.remedy


@pytest.mark.parametrize(
    ("column", "suggested"),
    [("age", "age_years"), ("LVEF", "lvef_percent"), ("Hieght_cm", "height_cm"), ("zz", None)],
)
def test_an_unknown_column_is_named_with_those_like_it(folder, column, suggested):
    with pytest.raises(CmrvlmError, match="unknown column") as refused:
        read_all(table(folder, ROWS[0] | {column: "1", "lab_crp": "2"}))
    assert "1 more: lab_crp" in refused.value.problem
    assert (f"Is it {suggested}" in refused.value.remedy) == (suggested is not None)
    assert "ignored_columns" in refused.value.remedy


def test_an_unknown_column_is_a_fault_of_the_header_and_of_no_row(folder):
    path = table(
        folder, ROWS[0], ROWS[1] | {"lvef": "31"}, ROWS[1] | {"study_id": "9", "nt_probnp": "2"}
    )
    lines = path.read_text().splitlines(keepends=True)
    headers = {0: "lvef, header, row 1", 2: "lvef, header, row 3"}
    for blank_lines, field in headers.items():
        path.write_text("\n" * blank_lines + "".join(lines))
        with pytest.raises(CmrvlmError, match="1 more: nt_probnp") as refused:
            ManifestSource(str(path))
        assert refused.value.field == field


def test_where_an_unknown_column_is_named_depends_on_the_kind_of_table(folder):
    rows = [ROWS[0], ROWS[1] | {"lvef": "31"}]
    lines = "\n".join(json.dumps(row) for row in rows)
    (folder / "table.jsonl").write_text(lines)
    columns = {name: [row.get(name) for row in rows] for name in rows[1]}
    pq.write_table(pa.table(columns), folder / "table.parquet")
    fields = {"table.jsonl": "lvef, row 2", "table.parquet": "lvef"}
    for name, field in fields.items():
        with pytest.raises(CmrvlmError, match="unknown column") as refused:
            ManifestSource(str(folder / name))
        assert refused.value.field == field


@pytest.mark.parametrize(
    ("patterns", "is_read"),
    [(["*"], True), (["Lab *", "ward"], True), (["lab_*"], False), ([], False)],
)
def test_columns_of_others_are_ignored_where_asked(folder, patterns, is_read):
    path = table(folder, ROWS[0] | {"lab_crp": "inf", "lab_bnp": "a\nb", "Ward": "[/red]"})
    if not is_read:
        with pytest.raises(CmrvlmError, match="unknown column"):
            ManifestSource(str(path), ignored_columns=patterns)
        return
    source = ManifestSource(str(path), ignored_columns=[*patterns, "lvef_percent"])
    plain = ManifestSource(str(table(folder, ROWS[0])))
    assert source.load("007").labels == plain.load("007").labels
    assert source.study_fingerprint("007") == plain.study_fingerprint("007")


@pytest.mark.parametrize(
    ("text", "sex"), [("Female", "f"), ("M", "m"), ("男", "m"), ("weiblich", "f"), ("w", "f")]
)
def test_sex_is_read_as_people_write_it(folder, text, sex):
    (study,) = read_all(table(folder, ROWS[0] | {"sex": text}))
    assert study.labels.demographics["sex"] == sex


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("dcm; MI", {"DCM", "MI"}),
        ("Dilated cardiomyopathy", {"DCM"}),
        ("扩张型心肌病，心肌梗死", {"DCM", "MI"}),
        ("HOCM | hypertensive heart disease", {"HCM", "HHD"}),
        ("healthy", {"NOR"}),
    ],
)
def test_diseases_are_read_by_code_and_by_name(folder, text, codes):
    (study,) = read_all(table(folder, ROWS[0] | {"diseases": text}))
    assert study.labels.diseases == codes


@pytest.mark.parametrize(
    ("text", "flag"), [("Y", True), ("nein", False), ("是", True), ("0.0", False), ("n/a", None)]
)
def test_yes_and_no_are_read_as_people_write_them(folder, text, flag):
    (study,) = read_all(table(folder, ROWS[0] | {"finding_lvef": text}))
    assert study.labels.findings.get("lvef") is flag


def test_masks_are_mapped_as_declared_and_unknown_values_are_refused(folder):
    path = str(table(folder, ROWS[0]))
    mapped = ManifestSource(path, {1: "rv", 2: "myo", 3: "lv"}).load("007").series["sax"]
    for value, name in ((1, "rv"), (2, "myo"), (3, "lv")):
        assert (mapped.mask[mapped.image % 4 == value] == STRUCTURES[name]).all()
    with pytest.raises(
        CmrvlmError, match=r"unknown label values \[3\] among \[0, 1, 2, 3\]"
    ) as refused:
        ManifestSource(path, {1: "rv", 2: "myo"}).load("007")
    assert refused.value.field == "data.source.label_map"
    assert "reads 0 background, 1 rv, 2 myo" in refused.value.remedy
    with pytest.raises(CmrvlmError, match="unknown structure 'liver'"):
        ManifestSource(path, {1: "liver"})


@pytest.mark.parametrize(
    ("values", "seen"),
    [
        ([0, 200], r"\[200\] among \[0, 200\]"),
        ([0, 85, 170, 255], r"\[85, 170\] among \[0, 85, 170\]"),
        (range(50), r"\[8, 9, 10, 11, 12, 13, 14, 15, 16, 17, …\] \(42\)"),
    ],
)
def test_values_that_no_map_names_are_counted_and_ask_for_one(folder, values, seen):
    mask = np.resize(np.array(list(values), np.uint8), (2, 3, 6, 8))
    write_nifti(folder / "mask.nii.gz", mask, AFFINE)
    with pytest.raises(CmrvlmError, match=seen) as refused:
        ManifestSource(str(table(folder, ROWS[0]))).load("007")
    assert refused.value.field == "data.source.label_map"
    assert "data.source.label_map is null, which reads 0 background, 1 lv" in refused.value.remedy


def test_a_stated_split_is_used_and_half_of_one_is_refused(folder):
    both = [row | {"split": part} for row, part in zip(ROWS, ("train", "test"), strict=True)]
    assert ManifestSource(str(table(folder, *both))).declared_split() == {
        "train": ["007"],
        "val": [],
        "test": ["7"],
    }
    assert ManifestSource(str(table(folder, *ROWS))).declared_split() is None
    with pytest.raises(CmrvlmError, match="the part is blank"):
        ManifestSource(str(table(folder, both[0], ROWS[1]))).declared_split()


def test_other_files_are_refused(tmp_path):
    (tmp_path / "a.doc").touch()
    (tmp_path / "twice.csv").write_text("study_id,sax,sax\n1,a,b\n")
    (tmp_path / "empty.csv").touch()
    for name, problem in (
        ("a.doc", "no kind of table"),
        ("b.csv", "no such file"),
        ("twice.csv", "'sax' is there twice"),
    ):
        with pytest.raises(CmrvlmError, match=problem):
            read_table(tmp_path / name)
    with pytest.raises(CmrvlmError, match="no row"):
        ManifestSource(str(tmp_path / "empty.csv"))


@pytest.mark.parametrize("path", ["img\\sax.nii.gz", ".\\img\\sax.nii.gz", "img/sax.nii.gz"])
def test_paths_of_windows_are_read(folder, path):
    (folder / "img").mkdir()
    (folder / "sax.nii.gz").rename(folder / "img" / "sax.nii.gz")
    source = ManifestSource(str(table(folder, {"study_id": "1", "sax": path})))
    assert source.load("1").series["sax"].image.shape == (2, 3, 6, 8)


@pytest.mark.parametrize(
    "path", ["C:\\data\\sax.nii.gz", "x" * 300, "gone.nii.gz", "mask.nii.gz/x"]
)
def test_a_path_to_no_file_is_named_with_its_row(folder, path):
    source = ManifestSource(str(table(folder, ROWS[1], ROWS[0] | {"sax_mask": path})))
    for read in (source.files, source.load):
        with pytest.raises(CmrvlmError, match="no such file") as refused:
            read("007")
        assert refused.value.field == "sax_mask, row 3"


def test_a_manifest_of_a_german_spreadsheet_is_read(folder):
    (folder / "a.csv").write_bytes(
        "Study ID;SAX;LVEF-percent;Height_cm;Report_EN\r\n"
        '007;sax.nii.gz;31,5;175,0;"Erweitert; dünn"\r\n'.encode("cp1252")
    )
    labels = ManifestSource(str(folder / "a.csv")).load("007").labels
    assert labels.measurements == {"lvef_percent": 31.5}
    assert labels.demographics == {"height_cm": 175.0}
    assert labels.report == {"en": {"other": "Erweitert; dünn"}}


@pytest.mark.parametrize("word", ["nan", "n/a", "unknown", "-", "None"])
def test_words_for_unknown_are_unknown_in_every_column(folder, word):
    columns = [
        *("patient_id", "split", "sax_mask", "lge", "sax_ed_frame", "diseases", "finding_lvef"),
        *("lvef_percent", "sex", "age_years", "follow_up_months", "event"),
        *("report_en", "impression_zh", "questions"),
    ]
    row = {"study_id": "1", "sax": "sax.nii.gz", **dict.fromkeys(columns, word)}
    source = ManifestSource(str(table(folder, row)))
    assert source.patient_ids() == ["1"]
    assert source.strata() == ["unknown"]
    assert source.declared_split() is None
    study = source.load("1")
    assert study.labels == StudyLabels()
    assert list(study.series) == ["sax"]
    assert study.series["sax"].mask is None
    with pytest.raises(CmrvlmError, match="the id is blank"):
        ManifestSource(str(table(folder, row | {"study_id": word})))


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("age_years", -3, "0 to 120 years"),
        ("height_cm", 1.75, "It looks like metres"),
        ("height_cm", 17500, "40 to 250 cm"),
        ("weight_kg", "inf", "not finite"),
        ("lvef_percent", 0.4, "1 to 100 %"),
        ("lvedv_ml", 1e300, "5 to 1000 ml"),
        ("follow_up_months", -1, "0 to 1200 months"),
        ("sax_ed_frame", -1, "none of the 3 frames"),
        ("sax_ed_frame", "1.5", "none of the 3 frames"),
        ("diseases", "x" * 300, "unknown disease"),
        ("x" * 300, "1", "unknown column"),
        ("[/red]", "1", "unknown column"),
        ("sex", "[/red]", r"\[/red\]' is unknown"),
    ],
)
def test_impossible_values_are_refused_with_row_and_column(folder, column, value, problem):
    with pytest.raises(CmrvlmError, match=problem) as refused:
        read_all(table(folder, ROWS[1], ROWS[0] | {column: value}))
    shown = column if len(column) < 60 else f"{'x' * 60}…"
    place = "header, row 1" if problem == "unknown column" else "row 3"
    assert refused.value.field == f"{shown}, {place}"
    assert len(refused.value.problem) < 200


@pytest.mark.parametrize(
    ("lines", "column"),
    [
        ('1,sax.nii.gz,"Normal\n2,sax.nii.gz,"\n3,sax.nii.gz,fine', "report_en"),
        ('1,sax.nii.gz,"Normal\n2,sax.nii.gz,fine"\n3,sax.nii.gz,fine', "report_en"),
        ('"1,sax.nii.gz,Normal\n2",sax.nii.gz,fine', "study_id"),
        ('1,"sax.nii.gz,Normal\n2,lge.nii.gz",fine', "sax"),
    ],
)
def test_quotes_that_swallow_rows_are_refused(folder, lines, column):
    (folder / "a.csv").write_text(f"study_id,sax,report_en\n{lines}\n")
    with pytest.raises(CmrvlmError, match="several lines") as refused:
        ManifestSource(str(folder / "a.csv"))
    assert refused.value.field == f"{column}, row 2"


def test_programs_write_flags_as_decimals(folder):
    row = ROWS[0] | {"finding_thrombus": "0.0", "finding_lvef": "1.0", "event": "1.0"}
    labels = ManifestSource(str(table(folder, row))).load("007").labels
    assert labels.findings == {"thrombus": False, "lvef": True}
    assert labels.follow_up["event"] == 1.0


def test_a_list_without_a_code_states_no_disease_to_be_absent(folder):
    for text in (";", " ; ", ","):
        source = ManifestSource(str(table(folder, ROWS[1] | {"diseases": text})))
        assert source.load("7").labels.diseases is None


def test_a_study_s_key_follows_its_own_row_and_files(folder):
    def keys(*rows, name="studies.csv"):
        source = ManifestSource(str(table(folder, *rows, name=name)))
        return source.fingerprint(), source.study_fingerprint("007")

    first = keys(*ROWS)
    more = {"study_id": "8", "sax": "sax.nii.gz", "weight_kg": "70"}
    for same in (
        keys(*ROWS),
        keys(ROWS[0]),
        keys(more, *ROWS[::-1]),
        keys(ROWS[0] | {"split": "test", "date": "2024"}),
        keys(*ROWS, name="copy.csv"),
    ):
        assert same == first
    for changed in ({"lvef_percent": 32}, {"sax_mask": ""}, {"patient_id": "13"}, {"weight_kg": 9}):
        assert keys(ROWS[0] | changed)[1] != first[1]

    for change in (
        lambda: (folder / "study.json").write_text("{}"),
        lambda: (folder / "study.json").write_text("{} "),
        lambda: os.utime(folder / "mask.nii.gz", (1, 1)),
    ):
        before = keys(*ROWS)
        change()
        assert keys(*ROWS)[1] != before[1]


def test_a_source_keeps_what_it_read_whatever_happens_to_the_table(folder):
    path = table(folder, *ROWS)
    source = ManifestSource(str(path))
    before = source.study_fingerprint("007"), source.load("007").labels
    for change in (path.touch, lambda: path.write_text("x"), path.unlink):
        change()
        assert (source.study_fingerprint("007"), source.load("007").labels) == before


@pytest.mark.parametrize(
    ("diseases", "codes"),
    [
        (["DCM"], {"DCM"}),
        (["dilated cardiomyopathy", "MI"], {"DCM", "MI"}),
        ([], None),
        (None, None),
        ("DCM; MI", {"DCM", "MI"}),
    ],
)
def test_diseases_of_json_lines_may_be_a_list(folder, diseases, codes):
    path = folder / "table.jsonl"
    path.write_text(json.dumps(ROWS[0] | {"diseases": diseases}) + "\n")
    source = ManifestSource(str(path))
    (study,) = (source.load(study_id) for study_id in source.study_ids())
    assert study.labels.diseases == codes
    for wrong in (["FLU"], [3], [["DCM"]]):
        path.write_text(json.dumps(ROWS[0] | {"diseases": wrong}) + "\n")
        source = ManifestSource(str(path))
        with pytest.raises(CmrvlmError, match=r"diseases, row 1.*unknown disease"):
            source.load(source.study_ids()[0])
