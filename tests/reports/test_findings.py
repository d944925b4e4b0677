"""What reports state, read back from their words and numbers."""

import pytest

from cmrvlm.metrics.text import finding_scores
from cmrvlm.reports.findings import findings_stated
from cmrvlm.reports.numbers import fill_quotes, numbers_stated, quote, quoted_number
from cmrvlm.reports.writer import join_sections, write_captions, write_report
from cmrvlm.study.measurements import MEASUREMENTS
from cmrvlm.study.vocabulary import FINDING_SEQUENCES, LANGUAGES, SEQUENCES
from tests.records import an_answer, an_instruction

NOT_WRITTEN = {"rvesv"}  # the report has no line for it


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_finding_of_a_written_report_is_read_back(source, language):
    seen = set()
    for study_id in source.study_ids():
        labels = source.load(study_id).labels
        stated = findings_stated(join_sections(write_report(labels, SEQUENCES, language), language))
        for code, abnormal in labels.findings.items():
            if code not in NOT_WRITTEN:
                assert stated.get(code, False) == abnormal, (study_id, code)
                seen |= {code} if abnormal else set()
    assert seen >= set(labels.findings) - NOT_WRITTEN - {"thrombus", "aneurysm"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_captions_state_nothing_that_is_not_so(source, language):
    for study_id in source.study_ids():
        labels = source.load(study_id).labels
        for sequence, text in write_captions(labels, SEQUENCES, language).items():
            for code, abnormal in findings_stated(text).items():
                assert sequence in FINDING_SEQUENCES[code]
                assert labels.findings[code] == abnormal


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("Late gadolinium enhancement of the septum.", {"lv_lge": True}),
        ("No late gadolinium enhancement.", {"lv_lge": False}),
        (
            "There is no thrombus or pericardial effusion",
            {"thrombus": False, "pericardial_effusion": False},
        ),
        ("Thrombus without pleural effusion", {"thrombus": True, "pleural_effusion": False}),
        ("Pericardial effusion is absent.", {"pericardial_effusion": False}),
        ("LVEF 57.5 % (normal), LVEDV increased", {"lvef": False, "lvedv": True}),
        ("LVEF 35 %.", {}),
        ("未见延迟强化；心包积液。", {"lv_lge": False, "pericardial_effusion": True}),
        ("无血栓", {"thrombus": False}),
        ("左心室射血分数减低，室壁运动正常", {"lvef": True, "wall_motion": False}),
        (
            "No thrombus, pericardial effusion or aneurysm",
            {"thrombus": False, "pericardial_effusion": False, "aneurysm": False},
        ),
        (
            "No thrombus, but pericardial effusion",
            {"thrombus": False, "pericardial_effusion": True},
        ),
        (
            "未见血栓、心包积液、胸腔积液",
            {"thrombus": False, "pericardial_effusion": False, "pleural_effusion": False},
        ),
        ("未见血栓，可见心包积液", {"thrombus": False, "pericardial_effusion": True}),
        ("室壁运动未见异常", {"wall_motion": False}),
        ("左心房无扩大", {"la_diameter": False}),
        ("室壁厚度未增厚", {"wall_thickness": False}),
        ("LVEF is not normal", {"lvef": True}),
        ("左心室射血分数不正常", {"lvef": True}),
        ("regional wall motion abnormality", {"wall_motion": True}),
        ("The left atrium is not dilated", {"la_diameter": False}),
        ("No wall motion abnormalities", {"wall_motion": False}),
        ("Unremarkable study.", {}),
        ("", {}),
    ],
)
def test_statements_and_denials(text, stated):
    assert findings_stated(text) == stated


def reported(text, truth):
    return an_answer(an_instruction(task="report", answer=truth), text)


def test_overlap_is_blind_to_a_denial_and_findings_are_not():
    truth = "LGE: subendocardial enhancement of the septum. Other: thrombus."
    scores = finding_scores(
        [reported(truth, truth), reported("LGE: no late enhancement. Other: thrombus.", truth)]
    )
    assert scores["finding_precision"].value == 1
    assert scores["finding_recall"].value == pytest.approx(3 / 4)
    assert scores["finding_f1"].value == pytest.approx(6 / 7)
    nothing = finding_scores([reported("fine", "fine")])
    assert nothing["finding_f1"].value is None


@pytest.mark.parametrize("language", LANGUAGES)
def test_numbers_are_written_by_marks_and_read_back(study, language):
    marked = join_sections(write_report(study.labels, SEQUENCES, language, quoted_number), language)
    assert quote("lvef_percent") in marked
    assert not any(digit in marked for digit in "0123456789")
    text = fill_quotes(marked, study.labels.measurements, language)
    assert text == join_sections(write_report(study.labels, SEQUENCES, language), language)
    stated = numbers_stated(text)
    assert set(stated) == set(MEASUREMENTS) - {"rvesv_ml"}
    for name, value in stated.items():
        assert value == pytest.approx(study.labels.measurements[name], abs=0.5)


def test_a_number_that_was_not_read_out_is_unknown():
    assert fill_quotes(f"LVEF {quote('lvef_percent')} %.", {}, "en") == "LVEF unknown %."
    assert fill_quotes(f"射血分数{quote('lvef_percent')}%。", {}, "zh") == "射血分数未知%。"
    assert numbers_stated("LVEF unknown %; LVEDV 120 ml") == {"lvedv_ml": 120.0}


def test_numbers_need_their_unit_and_clause():
    assert numbers_stated("LVEF 35 ml") == {}
    assert numbers_stated("LVEDD; wall thickness 9 mm") == {"wall_thickness_mm": 9.0}
    assert numbers_stated("VLVEF 35 %") == {}
