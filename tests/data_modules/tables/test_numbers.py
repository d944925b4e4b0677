"""Numbers of tables: unknown, with a comma, infinite, impossible."""

import math

import pytest

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.measurements import DEMOGRAPHICS, MEASUREMENTS, plausible_range
from data_modules.tables.numbers import parse_number


@pytest.mark.parametrize(
    "text",
    [
        "nan",
        "NaN",
        "-nan",
        "-1.#IND",
        "n/a",
        "NA",
        "null",
        "None",
        "unknown",
        "-",
        "--",
        "",
        " ",
        "#N/A",
        "<NA>",
        "未知",
    ],
)
def test_words_for_unknown_are_no_number(text):
    assert parse_number(text, "age_years", "age_years") is None
    assert parse_number(None, "age_years") is None


@pytest.mark.parametrize(
    ("text", "value"),
    [("31.5", 31.5), ("+60", 60), ("6e1", 60), (".5", 0.5), ("６０", 60), ("12.", 12)],
)
def test_numbers_are_read(text, value):
    assert parse_number(text, "x") == value


def test_a_decimal_comma_is_read_where_the_table_allows_it():
    assert parse_number("31,5", "x", decimal_comma=True) == 31.5
    assert parse_number("31.5", "x", decimal_comma=True) == 31.5
    for text in ("1,234,567", "1.234,5", "31,", ",5"):
        with pytest.raises(CmrvlmError, match="no number"):
            parse_number(text, "x", decimal_comma=True)
    with pytest.raises(CmrvlmError, match=r"Write 31\.5 with a point"):
        parse_number("31,5", "x")


@pytest.mark.parametrize("text", ["inf", "-Infinity", "1e400", "∞"])
def test_infinity_is_refused(text):
    with pytest.raises(CmrvlmError, match="not finite"):
        parse_number(text, "x")


@pytest.mark.parametrize(
    "text", ["1_000", "0x10", "55%", "12 ml", "True", "1 000", "low", "10²", "½", "١٢"]
)
def test_other_texts_are_refused(text):
    with pytest.raises(CmrvlmError, match="is no number") as refused:
        parse_number(text, "age_years, row 3")
    assert refused.value.field == "age_years, row 3"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("lvef_percent", "55%", 55),
        ("lvef_percent", "55,5 ％", 55.5),
        ("lvedv_ml", "165 mL", 165),
        ("height_cm", "175 cm", 175),
        ("weight_kg", "80kg", 80),
        ("age_years", "063Y", 63),
        ("age_years", "63岁", 63),
        ("follow_up_months", "12 months", 12),
    ],
)
def test_a_unit_behind_its_number_is_read(name, text, value):
    assert parse_number(text, name, name, decimal_comma=True) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("height_cm", "1.75 m"),
        ("lvedv_ml", "0.2 l"),
        ("age_years", "018M"),
        ("lvef_percent", "%"),
        ("lvef_percent", "> 55 %"),
        ("lvef_percent", "50-55%"),
        ("weight_kg", "80 kg kg"),
    ],
)
def test_another_unit_is_no_number(name, text):
    with pytest.raises(CmrvlmError, match="is no number"):
        parse_number(text, name, name)


@pytest.mark.parametrize("name", [*MEASUREMENTS, *DEMOGRAPHICS, "follow_up_months"])
def test_each_quantity_has_a_range(name):
    low, high, unit = plausible_range(name)
    for value in (low, high, (low + high) / 2):
        assert parse_number(repr(value), name, name) == value
    for value in (-1, low - 0.5, math.nextafter(high, math.inf) + 1, 1e6):
        with pytest.raises(CmrvlmError, match=f"{low:g} to {high:g} {unit}"):
            parse_number(repr(value), name, name)


@pytest.mark.parametrize(
    ("name", "text", "hint"),
    [
        ("height_cm", "1.75", "metres: write 175 cm"),
        ("height_cm", "1750", "millimetres: write 175 cm"),
        ("weight_kg", "75000", "grams: write 75 kg"),
        ("lvedd_mm", "5.2", "centimetres: write 52 mm"),
        ("lvef_percent", "0.55", "a fraction: write 55 %"),
        ("lvedv_ml", "0.165", "litres: write 165 ml"),
    ],
)
def test_a_number_in_another_unit_is_seen_as_such(name, text, hint):
    with pytest.raises(CmrvlmError, match=f"looks like {hint}"):
        parse_number(text, name, name)
