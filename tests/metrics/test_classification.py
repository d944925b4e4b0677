import numpy as np
import pytest
from sklearn.metrics import f1_score

from cmrvlm.metrics.classification import class_vector_scores, closed_scores, multi_label_scores
from cmrvlm.study.vocabulary import DISEASES, PHASE_TERMS
from cmrvlm.tasks.reasoning import YES_NO
from cmrvlm.tasks.vqa import chosen_letter
from tests.metrics.answers import answer

CODES = list(DISEASES)


def test_closed_answers_naming_both_or_no_term_are_wrong():
    answers = [
        answer("The frame is at end-diastole.", "ed"),
        answer("end-systole", "ed"),
        answer("舒张末期", "ed"),
        answer("end-diastole or end-systole", "es"),
        answer("", "es"),
    ]
    scores = closed_scores(answers, PHASE_TERMS)
    assert scores["accuracy"].value == pytest.approx(2 / 5)
    assert scores["unparsed_share"].value == pytest.approx(2 / 5)
    assert scores["macro_f1"].undefined == 0


def test_macro_f1_counts_classes_that_do_not_occur_as_undefined():
    scores = closed_scores([answer("ED", "ed"), answer("ED", "ed")], PHASE_TERMS)
    assert scores["macro_f1"].value == 1
    assert scores["macro_f1"].undefined == 1


def vectors(present, rng):
    return [
        answer(
            "",
            CODES[present[i % len(present)]],
            read_outs={"disease": rng.random(16).astype(np.float32)},
        )
        for i in range(30)
    ]


def test_classes_without_positives_are_undefined_and_counted():
    scores = class_vector_scores(vectors([0, 3, 9], np.random.default_rng(0)), CODES, "disease")
    for kind in ("auroc", "auprc"):
        per_class = [scores[f"{kind}_{code}"].value for code in DISEASES]
        assert sum(value is None for value in per_class) == 13
        assert scores[f"macro_{kind}"].undefined == 13
        assert scores[f"macro_{kind}"].value == pytest.approx(
            np.mean([v for v in per_class if v is not None])
        )


def test_areas_are_undefined_without_probabilities():
    scores = class_vector_scores([answer("", "DCM")], CODES, "disease")
    assert scores["macro_auroc"].value is None
    assert scores["macro_auroc"].n == 0


def test_collapse_to_one_answer_shows_in_share_and_entropy():
    answers = [answer("ED", "ed"), answer("ED", "es"), answer("ED", "ed"), answer("ED", "es")]
    scores = closed_scores(answers, PHASE_TERMS)
    assert scores["top_answer_share"].value == 1
    assert scores["answer_entropy_bits"].value == 0
    assert scores["truth_entropy_bits"].value == pytest.approx(1)


def test_text_accuracy_needs_exactly_the_true_diseases():
    answers = [
        answer("myocarditis.", "MYOC"),
        answer("myocarditis; pericarditis", "MYOC"),
        answer("pericarditis; myocarditis", "MYOC+PERI"),
        answer("x", None),
    ]
    score = multi_label_scores(answers, DISEASES)["text_accuracy"]
    assert score.value == pytest.approx(2 / 3)
    assert (score.n, score.undefined) == (3, 1)
    assert multi_label_scores([answer("x", None)], DISEASES)["text_accuracy"].value is None


def test_text_macro_f1_equals_scikit_learn():
    names = [
        ("MYOC", "myocarditis."),
        ("MYOC", "pericarditis"),
        ("MYOC+PERI", "pericarditis; myocarditis"),
        ("PERI", "no idea"),
        (None, "myocarditis"),
    ]
    score = multi_label_scores([answer(text, truth) for truth, text in names], DISEASES)[
        "text_macro_f1"
    ]
    truth, predicted = (
        np.array([[1, 0], [1, 0], [1, 1], [0, 1]]),
        np.array([[1, 0], [0, 1], [1, 1], [0, 0]]),
    )
    assert score.value == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert score.undefined == len(DISEASES) - 2


YES_NO_CASES = [
    ("The wall motion is normal", "no", 0, 0),
    ("Yes, no", "yes", 0, 1),
    ("No.", "no", 1, 0),
    ("", "no", 0, 1),
    ("是否有不能确定", "no", 0, 1),
    ("否。", "no", 1, 0),
    ("Nothing", "no", 0, 1),
]


@pytest.mark.parametrize(("text", "truth", "right", "unparsed"), YES_NO_CASES)
def test_yes_and_no_are_whole_words_and_both_are_neither(text, truth, right, unparsed):
    scores = closed_scores([answer(text, truth)], YES_NO)
    assert scores["accuracy"].value == right
    if text != "The wall motion is normal":
        assert scores["unparsed_share"].value == unparsed


def test_letter_inside_a_word_is_no_choice():
    assert chosen_letter("B. An aneurysm") == "B"
    assert chosen_letter("An aneurysm") is None
