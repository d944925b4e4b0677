"""What each measurement and finding needs to be shown, and what series show."""

from dataclasses import replace

import numpy as np
import pytest

from cmrvlm.reports.visible import visible_text
from cmrvlm.study.evidence import NEEDS, Evidence, visible_labels
from cmrvlm.study.measurements import MEASUREMENTS
from cmrvlm.study.vocabulary import CINE, FINDINGS, SEQUENCES

VOLUMES = [name for name in MEASUREMENTS if name.endswith(("_ml", "ef_percent"))]


@pytest.fixture(scope="module")
def dilated(source):
    return source.load(source.study_ids()[0])


def static(study):
    """The first frame of each series."""
    series = {}
    for name, one in study.series.items():
        masked = None if one.mask is None else one.mask[:, :1]
        times = one.frame_times_ms and one.frame_times_ms[:1]
        series[name] = replace(
            one, image=one.image[:, :1], mask=masked, frame_times_ms=times, phases={}
        )
    return study.with_series(series)


def repeated(study):
    """The first frame of each series, over and over."""
    series = {}
    for name, one in study.series.items():
        image = np.repeat(one.image[:, :1], one.image.shape[1], axis=1)
        series[name] = replace(one, image=image)
    return study.with_series(series)


def test_the_table_covers_all_that_a_text_can_state():
    assert set(MEASUREMENTS) | set(FINDINGS) <= set(NEEDS)
    for name, measurement in MEASUREMENTS.items():
        assert NEEDS[name] == NEEDS[measurement.finding]
        assert set(NEEDS[name].sequences) <= set(CINE)
    for need in NEEDS.values():
        assert set(need.sequences) <= set(SEQUENCES)


def test_late_enhancement_alone_shows_no_function_and_no_size(dilated):
    evidence = Evidence.of(dilated, ["lge"])
    assert not any(evidence.shows(name) for name in MEASUREMENTS)
    assert not any(evidence.shows(code) for code in ("lvef", "la_diameter", "wall_motion"))
    assert evidence.shows("lv_lge")
    assert "sax is not there" in evidence.why_not("lvef_percent")


@pytest.mark.parametrize("change", [static, repeated])
def test_a_static_image_shows_no_function_and_no_size(dilated, change):
    evidence = Evidence.of(change(dilated))
    assert not any(evidence.shows(name) for name in MEASUREMENTS)
    assert not any(evidence.shows(code) for code in ("wall_motion", "mitral_regurgitation"))
    assert evidence.shows("lv_lge")
    assert evidence.shows("pericardial_effusion")
    assert "single frame" in evidence.why_not("lvef_percent")


def test_few_slices_show_no_volume_but_a_diameter(dilated):
    sax = dilated.series["sax"]
    few = replace(sax, image=sax.image[:2], mask=sax.mask[:2], levels=(), slice_places_mm=None)
    evidence = Evidence.of(dilated.with_series({"sax": few}))
    assert not any(evidence.shows(name) for name in VOLUMES)
    assert evidence.shows("lvedd_mm")
    assert evidence.why_not("lvef_percent") == "insufficient slices"


def test_labels_are_limited_to_what_is_shown(dilated):
    assert visible_labels(dilated) == dilated.labels
    for study, shown in ((dilated, ["lge"]), (static(dilated), None)):
        labels = visible_labels(study, shown)
        assert labels.measurements == {}
        assert "lvef" not in labels.findings
        assert labels.findings["lv_lge"] == dilated.labels.findings["lv_lge"]
        assert labels.diseases == dilated.labels.diseases
    four_chamber = visible_labels(dilated, ["lax_4ch"]).measurements
    assert set(four_chamber) == {"lvedd_mm", "rvedd_mm", "la_diameter_mm", "ra_diameter_mm"}


TEXTS = {
    "en": (
        "Structure: LVEDD 62 mm (increased); LA 44 mm (normal). Function: LVEF 36 % (reduced); "
        "global hypokinesia. LGE: mid-wall enhancement of the septum. Other: pleural effusion.",
        "Structure: not assessed. Function: not assessed. "
        "LGE: mid-wall enhancement of the septum. Other: not assessed.",
    ),
    "zh": (
        "结构：左心室舒张末径 62 mm(增大)；左心房 44 mm(正常)。功能：左心室射血分数 36 %(减低)。"
        "延迟强化：室间隔肌壁间强化。",
        "结构：未评估。功能：未评估。延迟强化：室间隔肌壁间强化。",
    ),
}


@pytest.mark.parametrize("language", TEXTS)
def test_texts_lose_what_late_enhancement_cannot_show(dilated, language):
    text, left = TEXTS[language]
    assert visible_text(text, Evidence.of(dilated, ["lge"]), language) == left
    assert visible_text(text, Evidence.of(dilated), language) == text


def test_an_answer_to_a_question_is_not_assessed_when_nothing_is_left(dilated):
    evidence = Evidence.of(dilated, ["lge"])
    for text in ("The LVEF is 36 %.", "LVEF 36.6 % (reduced).", "LVEF unknown % (normal)."):
        assert visible_text(text, evidence, "en") == "not assessed."
    assert visible_text("There is late enhancement.", evidence, "en").startswith("There is")
    assert visible_text("LVEF unknown % (normal).", Evidence.of(dilated), "en") == "not assessed."


@pytest.mark.parametrize(
    "text",
    [
        "LVEF unknown % (normal).",
        "LVEF NaN % (normal).",
        "LVEDV -- ml (increased).",
        "LVEDD n/a mm (normal).",
        "左心室射血分数 未知%(正常)。",
        "LVEF ? % (normal).",
    ],
)
def test_a_number_that_is_unknown_is_not_judged(dilated, text):
    language = "en" if text.isascii() else "zh"
    assert visible_text(text, Evidence.of(dilated), language) in ("not assessed.", "未评估。")


@pytest.mark.parametrize(
    "text", ["LVEF -12 % (reduced).", "LVEF 5-6 % (reduced).", "Nanjing, 5 mm."]
)
def test_numbers_that_are_there_are_kept(dilated, text):
    assert visible_text(text, Evidence.of(dilated), "en") == text


@pytest.mark.parametrize(
    ("text", "shown", "is_kept"),
    [
        ("No further abnormality.", ["sax"], False),
        ("No further abnormality.", ["lax_4ch"], False),
        ("No other significant abnormalities.", ["lge"], False),
        ("Otherwise normal.", ["lge", "sax"], False),
        ("未见其他异常。", ["sax"], False),
        ("未见明显其他异常。", ["lax_4ch"], False),
        ("No further abnormality.", ["sax", "lax_4ch"], True),
        ("Normal ejection fraction.", ["lge"], False),
        ("Normal ejection fraction.", ["lax_4ch"], False),
        ("射血分数轻度减低。", ["sax"], True),
        ("Atrial septal defect.", ["lge"], False),
        ("室间隔变平。", ["lge"], False),
        ("Flattened septum.", ["lax_4ch"], True),
        ("A scar of the septum.", ["sax"], False),
        ("微血管阻塞。", ["sax", "lax_4ch"], False),
        ("A scar of the septum.", ["lge"], True),
        ("Septal dyssynchrony.", ["lge"], False),
    ],
)
def test_words_are_kept_where_a_series_shows_them(dilated, text, shown, is_kept):
    language = "en" if text.isascii() else "zh"
    left = visible_text(text, Evidence.of(dilated, shown), language)
    assert (left == text) == is_kept
    assert is_kept or left in ("not assessed.", "未评估。")
