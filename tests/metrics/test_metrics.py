import numpy as np
import pytest

from cmrvlm.labels import DISEASES, PHASE_TERMS
from cmrvlm.metrics.classification import auroc_scores, closed_scores, multi_label_scores
from cmrvlm.metrics.segmentation import dice, mask_scores
from cmrvlm.metrics.text import caption_scores, report_scores
from cmrvlm.tasks.base import Answer, Case, Instruction, MaskTarget


def answer(text, truth=None, target="", language="en", **changes):
    case = Case((), truth=truth, mask=changes.pop("target_mask", None), diseases=changes.pop("diseases", None))
    return Answer(Instruction("s", "t", language, "?", target, case), text, **changes)


def test_closed_answers_are_parsed_whole():
    said = [answer("The frame is at end-diastole.", "ed"), answer("end-systole", "ed"), answer("舒张末期", "ed"),
            answer("end-diastole or end-systole", "es"), answer("", "es")]  # fmt: skip
    scores = closed_scores(said, PHASE_TERMS)
    assert scores["accuracy"].value == pytest.approx(2 / 5)
    assert scores["unparsed_share"].value == pytest.approx(2 / 5)
    assert scores["macro_f1"].undefined == 0


def test_macro_f1_runs_over_the_classes_that_occur():
    scores = closed_scores([answer("ED", "ed"), answer("ED", "ed")], PHASE_TERMS)
    assert scores["macro_f1"].value == 1
    assert scores["macro_f1"].undefined == 1


def vectors(present, rng):
    said = []
    for index in range(30):
        vector = [0.0] * 16
        vector[present[index % len(present)]] = 1.0
        said.append(answer("", "x", diseases=tuple(vector), probabilities=rng.random(16).astype(np.float32)))
    return said


def test_classes_without_positives_are_null_and_counted():
    scores = auroc_scores(vectors([0, 3, 9], np.random.default_rng(0)), DISEASES)
    per_class = [scores[f"auroc_{code}"].value for code in DISEASES]
    assert sum(value is None for value in per_class) == 13
    assert scores["macro_auroc"].undefined == 13
    assert scores["macro_auroc"].value == pytest.approx(np.mean([v for v in per_class if v is not None]))


def test_auroc_is_the_share_of_pairs_in_order():
    truth, chance = [1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1]
    said = [answer("", "x", diseases=(float(t), *[0.0] * 15), probabilities=np.array([c, *[0.0] * 15], np.float32))
            for t, c in zip(truth, chance, strict=True)]  # fmt: skip
    assert auroc_scores(said, DISEASES)["auroc_DCM"].value == pytest.approx(3 / 4)


def test_answers_without_probabilities_leave_nothing_defined():
    scores = auroc_scores([answer("", "x", diseases=(1.0, *[0.0] * 15))], DISEASES)
    assert scores["macro_auroc"].value is None
    assert scores["macro_auroc"].n == 0


def test_disease_names_must_be_exactly_the_true_ones():
    said = [answer("myocarditis.", "MYOC"), answer("myocarditis; pericarditis", "MYOC"),
            answer("pericarditis; myocarditis", "MYOC+PERI"), answer("x", None)]  # fmt: skip
    score = multi_label_scores(said, DISEASES)["text_accuracy"]
    assert score.value == pytest.approx(2 / 3)
    assert (score.n, score.undefined) == (3, 1)
    assert multi_label_scores([answer("x", None)], DISEASES)["text_accuracy"].value is None


def test_dice_by_hand_and_its_empties():
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert dice(a, b) is None
    a[:2] = True
    assert dice(a, b) == 0
    b[1:3] = True
    assert dice(a, b) == pytest.approx(0.5)


def test_counts_do_not_overflow():
    full = np.ones(300, bool)
    assert dice(full, full) == 1.0


def mask_answer(predicted, truth, phases=("ed",)):
    target = MaskTarget("sax", "lv", (1,), tuple(range(truth.shape[1])), phases)
    return answer("", target_mask=target, mask=predicted, truth_mask=truth)


def test_mask_scores_by_phase_and_without_what_is_not_annotated():
    truth = np.zeros((2, 2, 4, 4), np.uint8)
    truth[:, 0, :2] = 1
    truth[:, 1, :1] = 1
    truth[:, :, 3] = 255
    predicted = truth == 1
    predicted[:, :, 3] = True  # not annotated: counts for nothing
    predicted[:, 1] = False
    scores = mask_scores([mask_answer(predicted, truth, ("ed", "es"))])
    assert scores["dice_ed"].value == 1
    assert scores["dice_es"].value == 0
    assert scores["dice"].value == pytest.approx(2 * 16 / (16 + 24))


def test_both_empty_is_undefined_and_no_mask_is_an_empty_one():
    nothing = np.zeros((1, 1, 4, 4), np.uint8)
    scores = mask_scores(
        [mask_answer(np.zeros(nothing.shape, bool), nothing), mask_answer(None, np.ones_like(nothing))]
    )
    assert scores["dice"].value == 0
    assert (scores["dice"].n, scores["dice"].undefined) == (1, 1)
    assert scores["mask_share"].value == 0.5


@pytest.mark.parametrize(
    ("language", "text"), [("en", "normal LV function"), ("zh", "正常"), ("zh", "左心室射血分数正常。")]
)
def test_identical_text_scores_one_in_both_languages(language, text):
    scores = caption_scores([answer(text, target=text, language=language)])
    assert all(score.value == pytest.approx(1.0) for score in scores.values())


def test_overlap_falls_with_difference():
    same, near, far = (caption_scores([answer(t, target="LV dilated, LVEF 24 %.")]) for t in
                       ("LV dilated, LVEF 24 %.", "LV dilated, LVEF 44 %.", "a thrombus"))  # fmt: skip
    for name in same:
        assert same[name].value > near[name].value > far[name].value


def test_report_needs_its_sections_and_the_right_disease():
    truth = "Structure: x. LGE: y. Impression: myocarditis."
    said = [answer(truth, "MYOC", truth), answer("Structure: x. LGE: y.", "MYOC", truth),
            answer("Structure: myocarditis. LGE: y. Impression: pericarditis.", "MYOC", truth)]  # fmt: skip
    scores = report_scores(said, ("structure", "lge", "impression"))
    assert scores["sections_present"].value == pytest.approx(2 / 3)
    assert scores["disease_accuracy"].value == pytest.approx(1 / 3)
