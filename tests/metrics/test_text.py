import numpy as np
import pytest

from cmrvlm.metrics.text import meteor_missing, overlap_scores, report_scores
from cmrvlm.reports.writer import split_sections
from tests.metrics.answers import answer


def test_overlap_is_also_given_by_language():
    answers = [
        answer("the left ventricle", target="the left ventricle"),
        answer("右心室扩大", target="左心房", language="zh"),
    ]
    scores = overlap_scores(answers)
    for name in ("bleu", "chrf", "rouge_l"):
        own = [scores[f"{name}_{language}"].value for language in ("en", "zh")]
        assert own[0] == pytest.approx(1)
        assert own[1] < 0.5
        assert scores[name].value == pytest.approx(np.mean(own))
    assert overlap_scores(answers[:1])["bleu_zh"].value is None


@pytest.mark.parametrize(
    ("language", "text"),
    [("en", "normal LV function"), ("zh", "正常"), ("zh", "左心室射血分数正常。")],
)
def test_identical_text_scores_one_in_both_languages(language, text):
    scores = overlap_scores([answer(text, target=text, language=language)])
    for name, score in scores.items():
        metric, only = (name[:-3], name[-2:]) if name.endswith(("_en", "_zh")) else (name, "")
        other_language = only not in ("", language)
        if other_language or (metric == "meteor" and meteor_missing() is not None):
            assert score.value is None, name
        else:
            assert score.value == pytest.approx(1.0, abs=0.02), name


def test_overlap_falls_as_texts_differ():
    same, near, far = (
        overlap_scores([answer(t, target="LV dilated, LVEF 24 %.")])
        for t in ("LV dilated, LVEF 24 %.", "LV dilated, LVEF 44 %.", "a thrombus")
    )
    for name in ("bleu", "chrf", "rouge_l"):
        assert same[name].value > near[name].value > far[name].value


def test_lower_case_is_compared_only_on_request():
    one = answer("Lv Dilated", target="LV dilated")
    raw = overlap_scores([one])["bleu"].value
    lowered = answer("Lv Dilated", target="LV dilated", lowercase=True)
    assert raw < 1
    assert overlap_scores([lowered])["bleu"].value == pytest.approx(1.0)
    assert lowered.text == "Lv Dilated"


def test_meteor_is_undefined_without_wordnet_and_says_why(monkeypatch):
    monkeypatch.setattr("nltk.data.path", [])
    assert "WordNet" in meteor_missing()
    scores = overlap_scores([answer("enlarged LV", target="dilated left ventricle")])
    assert scores["meteor"].value is None
    assert scores["meteor"].undefined == 1
    assert scores["bleu"].value is not None
    assert scores["rouge_l"].value is not None


def test_report_needs_its_sections_and_the_right_disease():
    truth = "Structure: x. LGE: y. Impression: myocarditis."
    answers = [
        answer(truth, "MYOC", truth),
        answer("Structure: x. LGE: y.", "MYOC", truth),
        answer("Structure: myocarditis. LGE: y. Impression: pericarditis.", "MYOC", truth),
    ]
    scores = report_scores(answers, ("structure", "lge", "impression"))
    assert scores["sections_present"].value == pytest.approx(2 / 3)
    assert scores["disease_accuracy"].value == pytest.approx(1 / 3)


def test_truncated_report_has_no_last_section_and_keeps_its_text():
    truth = "Structure: x. LGE: y. Impression: myocarditis."
    cut = answer("Structure: x. LGE: y. Impression: myocarditis", "MYOC", truth, truncated=True)
    scores = report_scores([cut], ("structure", "lge", "impression"))
    assert scores["sections_present"].value == scores["disease_accuracy"].value == 0
    assert scores["truncated_share"].value == 1
    assert cut.text.endswith("myocarditis")
    assert split_sections("LGE: a. LGE: b. Impression: c.") == {"impression": "c."}
