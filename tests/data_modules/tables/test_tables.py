"""Tables of other people: what is read whatever it looks like, and what is refused by row and column."""

import csv
import io
import json
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cmrvlm.errors import CmrvlmError
from data_modules.tables.read_table import read_table

HEAD = ("study_id", "sax", "lvef_percent", "report_en")
ROWS = (
    ("007", "a/sax.nii.gz", "31.5", "Dilated; thin, pale"),
    ("7", "b/sax.nii.gz", "", "Zwei\nZeilen, naïve"),
)


def written(delimiter, *rows):
    """A table as the csv module writes it."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer, delimiter=delimiter).writerows(rows)
    return buffer.getvalue()


@pytest.fixture
def read(tmp_path):
    """Return a function that writes a table and reads it."""

    def run(content, name="table.csv", **settings):
        raw = content.encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(raw)
        return read_table(tmp_path / name, **settings)

    return run


def values(rows):
    return [tuple(row.get(name, "") for name in HEAD) for row in rows]


@pytest.mark.parametrize("name", ["table.csv", "table.tsv", "table.txt"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_is_found_whatever_the_ending_says(read, delimiter, name):
    assert values(read(written(delimiter, HEAD, *ROWS), name)) == list(ROWS)


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "gb18030"],
)
def test_encodings_of_spreadsheets_are_read(read, encoding):
    text = written(";", HEAD, *ROWS)
    if encoding == "gb18030":
        text = text.replace("naïve", "左心室增大，室壁运动减弱")
    (first, second) = read(text.encode(encoding))
    assert values([first]) == [ROWS[0]]
    assert second["report_en"].split("\n")[1] in text
    assert "�" not in second["report_en"]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("정상 좌심실 확장", "euc_kr"),
        ("좌심실", "cp949"),
        ("Hypertrophie sévère du ventricule", "cp437"),
        ("Vergrößerte Kammer", "cp850"),
        ("Hypertrophie sévère", "mac_roman"),
        ("左心室の拡大を認める。正常", "shift_jis"),
        ("左心室の拡大を認める。正常", "euc_jp"),
        ("левый желудочек увеличен", "cp1251"),
        ("左心室擴大，收縮功能正常", "big5"),
        ("αριστερή κοιλία", "cp1253"),
        ("Powiększenie żółć lewej komory", "cp1250"),
    ],
)
def test_text_that_would_become_nonsense_is_refused_by_row(read, text, encoding):
    content = written(",", ("study_id", "report_en"), ("1", "fine"), ("2", text))
    with pytest.raises(CmrvlmError, match="cannot be decoded") as refused:
        read(content.encode(encoding))
    assert refused.value.field == "row 3"
    assert "UTF-8" in refused.value.remedy


@pytest.mark.parametrize("name", ["Study_ID", "Study ID", "STUDY-ID", " study\xa0id ", "ｓtudy_id"])
def test_spelling_of_a_column_does_not_matter(read, name):
    (row,) = read(f"{name};SAX\n7;x\n", needed=("study_id",))
    assert row["study_id"] == row["Study ID"] == "7"
    assert row["sax"] == "x"


@pytest.mark.parametrize("pair", [("study_id", "Study ID"), ("sax", "SAX"), ("a-b", "a_b")])
def test_two_columns_that_are_taken_for_one_are_refused(read, pair):
    with pytest.raises(CmrvlmError, match="are taken for one") as refused:
        read(f"{pair[0]},{pair[1]}\n1,2\n")
    assert refused.value.field == pair[1]
    with pytest.raises(CmrvlmError, match="are taken for one"):
        read(json.dumps(dict.fromkeys(pair, "1")), "table.jsonl")


@pytest.mark.parametrize("text", ["id,sax\n1,a\n", "Studien 2024\n1\n", "study_id|sax\n1|a\n"])
def test_a_missing_column_is_named_with_those_that_are_there(read, text):
    with pytest.raises(CmrvlmError, match="no column study_id; the columns are") as refused:
        read(text, needed=("study_id",))
    assert text.split("\n")[0].replace(",", ", ") in refused.value.problem


def test_excel_s_line_about_the_delimiter_is_obeyed(read):
    (row,) = read("sep=;\r\nstudy_id;report_en\r\n1;a, b\r\n")
    assert (row.number, row["report_en"]) == (3, "a, b")


@pytest.mark.parametrize(
    ("lines", "field", "hint"),
    [
        ("1,a,Normal volumes, EF 60", "report_en, row 2", "needs quotation marks"),
        ('1,a,"x\ny"\n\n2,b,Normal, thin', "report_en, row 5", "needs quotation marks"),
        ("1,a,x\n2,b", "report_en, row 3", "keep their delimiters"),
        ("1,a,x\n\n\n2", "sax, row 5", "keep their delimiters"),
    ],
)
def test_rows_of_another_width_are_refused_by_their_line(read, lines, field, hint):
    with pytest.raises(CmrvlmError, match="for 3 columns") as refused:
        read(f"study_id,sax,report_en\n{lines}\n")
    assert refused.value.field == field
    assert hint in refused.value.remedy


def test_blank_lines_and_blank_values_at_the_end_are_no_fault(read):
    rows = read('study_id,sax,\n\n1,"a\nb"\n,,\n2,c,,\n')
    assert [(row.number, row["study_id"]) for row in rows] == [(3, "1"), (6, "2")]


@pytest.mark.parametrize(
    ("lines", "field"),
    [
        ('1,a,"Normal\n2,b,fine', "report_en, row 2"),
        ('1,a,x\n2,"b,Normal\n3,c,fine', "sax, row 3"),
        ('1,a,"say "no", then"\n', "report_en, row 2"),
        ('1,a,x\n"2"0,b,y\n', "study_id, row 3"),
        ('1,a,"Normal\n2,b,"fine"\n', "report_en, row 2"),
        (f'1,a,"{"x" * 200_000}\n', "report_en, row 2"),
    ],
)
def test_a_stray_quote_is_refused_where_it_opens(read, lines, field):
    with pytest.raises(CmrvlmError, match="quotation mark") as refused:
        read(f"study_id,sax,report_en\n{lines}")
    assert refused.value.field == field


def test_quotes_inside_texts_are_read(read):
    rows = read('study_id,report_en\n1,"say ""no"""\n2,5" long\n3, "a, b"\n')
    assert [row["report_en"] for row in rows] == ['say "no"', '5" long', "a, b"]


def test_only_a_line_feed_ends_a_line_of_json(read):
    lines = [
        json.dumps({"study_id": name, "report_en": text}, ensure_ascii=False)
        for name, text in (("1", "a\u2028b"), ("2", "c\u0085d\u2029"), ("3", "e\x0bf"))
    ]
    rows = read("\r\n\n".join(lines), "table.jsonl")
    assert [row["report_en"] for row in rows] == ["a\u2028b", "c\u0085d", "e\x0bf"]
    assert [row.number for row in rows] == [1, 3, 5]


@pytest.mark.parametrize(
    "line", ["[1]", '{"study_id":', '{"a": 1, "a": 2}', "[" * 20_000, '{"a": ' + "9" * 5000 + "}"]
)
def test_lines_that_are_no_objects_are_refused_by_row(read, line):
    with pytest.raises(CmrvlmError, match="no JSON object") as refused:
        read('{"study_id": 1}\n' + line, "table.jsonl")
    assert refused.value.field == "row 2"


@pytest.mark.parametrize(
    ("content", "name", "field"),
    [
        ("study_id,sax\n1,a\n2,b\0c\n", "table.csv", "row 3"),
        ("\0" * 500, "table.csv", "row 1"),
        ('{"sax": "a\\u0000"}', "table.jsonl", "sax, row 1"),
        ('{"sax": "\\ud800"}', "table.jsonl", "sax, row 1"),
        ("study_id\n\x1b[31mred\n", "table.csv", "study_id, row 2"),
    ],
)
def test_what_no_text_holds_is_refused(read, content, name, field):
    with pytest.raises(CmrvlmError, match="NUL") as refused:
        read(content, name)
    assert refused.value.field == field


@pytest.mark.parametrize("name", ["table.xlsx", "table.parquet"])
@pytest.mark.parametrize("content", ["", "PK\x03\x04 cut", "PAR1 cut PAR1"])
def test_damaged_files_are_refused(read, name, content):
    with pytest.raises(CmrvlmError, match="cannot be read as") as refused:
        read(content, name)
    assert refused.value.file.name == name


def test_missing_numbers_of_other_formats_are_blank(tmp_path, read):
    (row,) = read('{"study_id": "1", "age_years": NaN, "weight_kg": null}', "table.jsonl")
    assert dict(row) == {"study_id": "1"}
    table = pa.table({"study_id": ["1"], "age_years": [float("nan")], "weight_kg": [12.0]})
    pq.write_table(table, tmp_path / "table.parquet")
    (row,) = read_table(tmp_path / "table.parquet")
    assert dict(row) == {"study_id": "1", "weight_kg": "12"}


@pytest.mark.parametrize("place", ["XFD1048576", "XFD2", "A1048576"])
def test_a_far_cell_of_a_sheet_takes_neither_time_nor_memory(tmp_path, place):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for values_of_row in (HEAD, *ROWS):
        book.active.append(values_of_row)
    book.active[place] = "far"
    book.save(tmp_path / "table.xlsx")
    start = time.perf_counter()
    if place.startswith("A"):
        assert [row.number for row in read_table(tmp_path / "table.xlsx")] == [2, 3, 1048576]
    else:
        with pytest.raises(CmrvlmError, match="column 16384, which has no name"):
            read_table(tmp_path / "table.xlsx")
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("text", ["c{}", "study_id", "x y z{}"])
def test_a_hundred_thousand_columns_are_refused_at_once(read, text):
    columns = [text.format(index) for index in range(100_000)]
    start = time.perf_counter()
    with pytest.raises(CmrvlmError, match="100000 columns"):
        read(",".join(columns) + "\n" + ",".join("1" * 100_000) + "\n")
    with pytest.raises(CmrvlmError, match=r"100001 values|100000 values"):
        read("study_id,sax\n" + ",".join("1" * 100_000) + "\n")
    assert time.perf_counter() - start < 5


def test_a_sparse_file_of_eight_gigabytes_is_refused(tmp_path):
    for name in ("table.csv", "table.jsonl", "table.parquet"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(8 * 2**30)
        with pytest.raises(CmrvlmError, match=r"8\.0 GiB"):
            read_table(tmp_path / name)


@pytest.mark.parametrize("name", ["x" * 300 + ".csv", "a\0b.csv", "folder.csv"])
def test_names_that_lead_to_no_file_are_refused(tmp_path, name):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(CmrvlmError, match="no such file"):
        read_table(tmp_path / name)


def test_a_value_without_a_column_is_refused(read):
    with pytest.raises(CmrvlmError, match="'0' stands under a column without a name") as refused:
        read("study_id,\n1,0\n")
    assert refused.value.field == "row 2"


def test_an_index_without_a_name_is_left_out(read):
    """As pandas writes it, and M&Ms' table has it."""
    (row,) = read(",study_id\n0,1\n")
    assert dict(row) == {"study_id": "1"}


def test_marks_that_are_not_seen_are_no_part_of_a_value(read):
    (row,) = read("\ufeffstudy_id,sax\r\n\u200b7\xa0,\u3000a\r\n\x1a")
    assert dict(row) == {"study_id": "7", "sax": "a"}


@pytest.mark.parametrize("name", ["table.csv", "table.jsonl", "table.parquet", "table.xlsx"])
def test_any_damage_ends_in_a_table_or_an_error(tmp_path, name):
    """Bytes are changed and files are cut, from a fixed seed."""
    rng = np.random.default_rng(0)
    path = tmp_path / name
    table = pa.table({"study_id": ["1", "2"], "report_en": ["a, b", "心"]})
    if name.endswith("parquet"):
        pq.write_table(table, path)
    elif name.endswith("xlsx"):
        book = pytest.importorskip("openpyxl").Workbook()
        for values_of_row in (HEAD, *ROWS):
            book.active.append(values_of_row)
        book.save(path)
    elif name.endswith("jsonl"):
        path.write_text("\n".join(json.dumps(row) for row in table.to_pylist()))
    else:
        path.write_text(written(";", HEAD, *ROWS))
    sound = path.read_bytes()
    refused = 0
    for turn in range(60):
        damaged = np.frombuffer(sound, np.uint8).copy()
        damaged[rng.integers(len(damaged), size=4)] = rng.integers(256, size=4)
        path.write_bytes(damaged.tobytes()[: None if turn % 4 else rng.integers(len(sound))])
        try:
            read_table(path)
        except CmrvlmError:
            refused += 1
    assert refused > 20
