import pytest

from cmrvlm.errors import CmrvlmError
from cmrvlm.instructions.tokens import SPECIAL_TOKENS
from cmrvlm.language_model.tokenizer import load_tokenizer, train_tokenizer
from cmrvlm.reports.reader import single_term, terms_named
from cmrvlm.reports.writer import join_sections, split_sections, write_captions, write_report
from cmrvlm.study.study import StudyLabels
from cmrvlm.study.vocabulary import (
    DISEASES,
    LEVEL_TERMS,
    PHASE_TERMS,
    REPORT_SECTIONS,
    SEQUENCE_TERMS,
)

CORPUS = [
    "LVEF 24 % (reduced); dilated cardiomyopathy.",
    "左心室射血分数 24 %(减低)；扩张型心肌病。",
] * 20


@pytest.mark.parametrize("terms", [DISEASES, LEVEL_TERMS, PHASE_TERMS, SEQUENCE_TERMS])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_name_is_read_back_and_no_other(terms, language):
    for code, term in terms.items():
        sentence = (
            f"This is {term.name(language)}."
            if language == "en"
            else f"这是{term.name(language)}。"
        )
        assert terms_named(sentence, terms) == [code]


def test_parts_of_words_and_two_names_are_not_answers():
    assert single_term("myocarditis and pericarditis", DISEASES) is None
    assert single_term("perimyocarditisoid", DISEASES) is None
    assert single_term("", PHASE_TERMS) is None
    assert single_term("edges", PHASE_TERMS) is None
    assert single_term("ED", PHASE_TERMS) == "ed"


def test_report_is_read_back_by_section(study):
    for language in ("en", "zh"):
        sections = write_report(study.labels, tuple(study.series), language)
        assert set(sections) == set(REPORT_SECTIONS)
        assert split_sections(join_sections(sections, language)) == sections


def test_missing_section_is_absent_when_read_back():
    assert set(split_sections("Structure: fine. LGE: none.")) == {"structure", "lge"}
    assert split_sections("nothing of the kind") == {}


def test_unknown_is_never_written_as_normal():
    labels = StudyLabels(measurements={"lvef_percent": 40.0})
    report = write_report(labels, ("sax",), "en")
    assert "normal" not in join_sections(report, "en")
    assert "LVEF 40 %;" in report["function"] + ";" or "LVEF 40 %." in report["function"]
    assert "impression" not in report
    assert report["lge"] == "not assessed."


def test_sequences_that_are_not_shown_are_not_reported(study):
    only_lge = write_report(study.labels, ("lge",), "en")
    assert "LVEF" not in join_sections(only_lge, "en")
    assert write_report(study.labels, ("sax",), "en")["lge"] == "not assessed."
    assert set(write_captions(study.labels, ("lge", "lax_4ch"), "zh")) == {"lge", "lax_4ch"}


def test_numbers_carry_units_and_follow_the_measurements(study):
    text = join_sections(write_report(study.labels, tuple(study.series), "en"), "en")
    values = study.labels.measurements
    assert f"LVEF {values['lvef_percent']:.0f} %" in text
    assert f"LVEDV {values['lvedv_ml']:.0f} ml" in text
    assert f"LVEDD {values['lvedd_mm']:.0f} mm" in text


def test_tokenizer_is_lossless_in_both_languages_and_spells_numbers(tmp_path):
    tokenizer = train_tokenizer(CORPUS, vocab_size=400)
    for text in (*CORPUS[:2], "unseen ünicode 超声 <x>"):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    digits = tokenizer.convert_ids_to_tokens(tokenizer.encode("2024", add_special_tokens=False))
    assert digits == ["2", "0", "2", "4"]
    tokenizer.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.encode("LVEF 24 % <SEG>") == tokenizer.encode("LVEF 24 % <SEG>")
    assert all(len(again.encode(token, add_special_tokens=False)) == 1 for token in SPECIAL_TOKENS)


def test_folder_without_tokenizer_is_named(tmp_path):
    with pytest.raises(CmrvlmError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)
