import numpy as np
import pytest
from sklearn.metrics import f1_score

from cmrvlm.errors import CmrvlmError
from cmrvlm.instructions.question import Region
from cmrvlm.metrics.bert_score import bert_scores, check_bert_model
from cmrvlm.metrics.boxes import box_iou, box_of
from cmrvlm.metrics.classification import class_vector_scores, closed_scores, multi_label_scores
from cmrvlm.metrics.segmentation import box_scores, dice, mask_scores, surface_distances_mm
from cmrvlm.metrics.text import meteor_missing, overlap_scores, report_scores
from cmrvlm.reports.writer import split_sections
from cmrvlm.study.vocabulary import DISEASES, PHASE_TERMS
from cmrvlm.tasks.reasoning import YES_NO, chosen_letter
from tests.records import an_answer, an_instruction


def answer(text, truth=None, target="", language="en", **changes):
    region = changes.pop("region", None)
    instruction = an_instruction(language=language, answer=target, truth=truth, region=region)
    return an_answer(instruction, text, **changes)


def test_closed_answers_are_parsed_whole():
    said = [
        answer("The frame is at end-diastole.", "ed"),
        answer("end-systole", "ed"),
        answer("舒张末期", "ed"),
        answer("end-diastole or end-systole", "es"),
        answer("", "es"),
    ]
    scores = closed_scores(said, PHASE_TERMS)
    assert scores["accuracy"].value == pytest.approx(2 / 5)
    assert scores["unparsed_share"].value == pytest.approx(2 / 5)
    assert scores["macro_f1"].undefined == 0


def test_macro_f1_runs_over_the_classes_that_occur():
    scores = closed_scores([answer("ED", "ed"), answer("ED", "ed")], PHASE_TERMS)
    assert scores["macro_f1"].value == 1
    assert scores["macro_f1"].undefined == 1


CODES = list(DISEASES)


def vectors(present, rng):
    return [
        answer(
            "",
            CODES[present[i % len(present)]],
            read_outs={"disease": rng.random(16).astype(np.float32)},
        )
        for i in range(30)
    ]


def test_classes_without_positives_are_null_and_counted():
    scores = class_vector_scores(vectors([0, 3, 9], np.random.default_rng(0)), CODES, "disease")
    for kind in ("auroc", "auprc"):
        per_class = [scores[f"{kind}_{code}"].value for code in DISEASES]
        assert sum(value is None for value in per_class) == 13
        assert scores[f"macro_{kind}"].undefined == 13
        assert scores[f"macro_{kind}"].value == pytest.approx(
            np.mean([v for v in per_class if v is not None])
        )


def test_answers_without_probabilities_leave_nothing_defined():
    scores = class_vector_scores([answer("", "DCM")], CODES, "disease")
    assert scores["macro_auroc"].value is None
    assert scores["macro_auroc"].n == 0


def test_collapse_to_one_answer_shows():
    said = [answer("ED", "ed"), answer("ED", "es"), answer("ED", "ed"), answer("ED", "es")]
    scores = closed_scores(said, PHASE_TERMS)
    assert scores["top_answer_share"].value == 1
    assert scores["answer_entropy_bits"].value == 0
    assert scores["truth_entropy_bits"].value == pytest.approx(1)


def test_disease_names_must_be_exactly_the_true_ones():
    said = [
        answer("myocarditis.", "MYOC"),
        answer("myocarditis; pericarditis", "MYOC"),
        answer("pericarditis; myocarditis", "MYOC+PERI"),
        answer("x", None),
    ]
    score = multi_label_scores(said, DISEASES)["text_accuracy"]
    assert score.value == pytest.approx(2 / 3)
    assert (score.n, score.undefined) == (3, 1)
    assert multi_label_scores([answer("x", None)], DISEASES)["text_accuracy"].value is None


def test_f1_of_named_diseases_is_that_of_scikit_learn():
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
    truth, said = (
        np.array([[1, 0], [1, 0], [1, 1], [0, 1]]),
        np.array([[1, 0], [0, 1], [1, 1], [0, 0]]),
    )
    assert score.value == pytest.approx(f1_score(truth, said, average="macro"))
    assert score.undefined == len(DISEASES) - 2


def test_overlap_is_told_for_each_language_too():
    said = [
        answer("the left ventricle", target="the left ventricle"),
        answer("右心室扩大", target="左心房", language="zh"),
    ]
    scores = overlap_scores(said)
    for name in ("bleu", "chrf", "rouge_l"):
        own = [scores[f"{name}_{language}"].value for language in ("en", "zh")]
        assert own[0] == pytest.approx(1)
        assert own[1] < 0.5
        assert scores[name].value == pytest.approx(np.mean(own))
    assert overlap_scores(said[:1])["bleu_zh"].value is None


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
    target = Region("sax", "lv", (1,), tuple(range(truth.shape[1])), phases)
    return answer("", region=target, mask=predicted, truth_mask=truth, spacing_mm=(10.0, 2.0, 2.0))


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
        [
            mask_answer(np.zeros(nothing.shape, bool), nothing),
            mask_answer(None, np.ones_like(nothing)),
        ]
    )
    assert scores["dice"].value == 0
    assert (scores["dice"].n, scores["dice"].undefined) == (1, 1)
    assert scores["mask_share"].value == 0.5


def test_whether_a_structure_is_there_is_a_test_of_its_own():
    """Sensitivity over those who have it, specificity over those who do not; 255 is neither."""
    there, nothing = np.ones((1, 1, 4, 4), np.uint8), np.zeros((1, 1, 4, 4), np.uint8)
    unknown = np.where(np.eye(4) > 0, 255, 0).astype(np.uint8)[None, None]
    scores = mask_scores(
        [
            mask_answer(said > 0, truth)
            for truth, said in (
                (there, there),
                (there, nothing),
                (there, there),
                (nothing, there),
                (nothing, nothing),
                (unknown, unknown),
            )
        ]
    )
    assert (scores["presence_sensitivity"].value, scores["presence_sensitivity"].n) == (
        pytest.approx(2 / 3),
        3,
    )
    assert (scores["presence_specificity"].value, scores["presence_specificity"].n) == (
        pytest.approx(2 / 3),
        3,
    )
    scores = mask_scores([mask_answer(nothing > 0, np.full_like(nothing, 255))])
    assert scores["presence_specificity"].value is None


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


def test_overlap_falls_with_difference():
    same, near, far = (
        overlap_scores([answer(t, target="LV dilated, LVEF 24 %.")])
        for t in ("LV dilated, LVEF 24 %.", "LV dilated, LVEF 44 %.", "a thrombus")
    )
    for name in ("bleu", "chrf", "rouge_l"):
        assert same[name].value > near[name].value > far[name].value


def test_report_needs_its_sections_and_the_right_disease():
    truth = "Structure: x. LGE: y. Impression: myocarditis."
    said = [
        answer(truth, "MYOC", truth),
        answer("Structure: x. LGE: y.", "MYOC", truth),
        answer("Structure: myocarditis. LGE: y. Impression: pericarditis.", "MYOC", truth),
    ]
    scores = report_scores(said, ("structure", "lge", "impression"))
    assert scores["sections_present"].value == pytest.approx(2 / 3)
    assert scores["disease_accuracy"].value == pytest.approx(1 / 3)


def test_lower_case_is_compared_only_when_asked():
    one = answer("Lv Dilated", target="LV dilated")
    raw = overlap_scores([one])["bleu"].value
    one.lowercase = True
    assert raw < 1
    assert overlap_scores([one])["bleu"].value == pytest.approx(1.0)
    assert one.text == "Lv Dilated"


def test_meteor_is_null_with_a_reason_without_wordnet(monkeypatch):
    monkeypatch.setattr("nltk.data.path", [])
    assert "WordNet" in meteor_missing()
    scores = overlap_scores([answer("enlarged LV", target="dilated left ventricle")])
    assert scores["meteor"].value is None
    assert scores["meteor"].undefined == 1
    assert scores["bleu"].value is not None
    assert scores["rouge_l"].value is not None


def cube(*corners):
    mask = np.zeros((6, 20, 20), bool)
    z0, h0, w0, z1, h1, w1 = corners
    mask[z0:z1, h0:h1, w0:w1] = True
    return mask


def test_distances_are_in_mm_along_each_axis():
    """A cube moved by n voxels along an axis is n times the spacing away, at least at its far side."""
    truth = cube(1, 4, 4, 4, 12, 12)
    for moved, spacing, expected in (
        (cube(1, 4, 6, 4, 12, 14), (10.0, 1.5, 2.0), 4.0),
        (cube(1, 7, 4, 4, 15, 12), (10.0, 1.5, 2.0), 4.5),
    ):
        far, near = surface_distances_mm(moved, truth, spacing)
        assert far == pytest.approx(expected)
        assert 0 < near < expected
    assert surface_distances_mm(truth, truth, (8.0, 1.0, 1.0)) == (0.0, 0.0)
    flat = surface_distances_mm(
        cube(0, 4, 6, 1, 12, 14)[:1], cube(0, 4, 4, 1, 12, 12)[:1], (10.0, 1.0, 1.0)
    )
    assert flat[0] == pytest.approx(2.0)


def test_an_empty_mask_has_no_distance_and_no_invented_one():
    truth = np.zeros((1, 2, 8, 8), np.uint8)
    truth[0, :, 2:5, 2:5] = 1
    predicted = truth == 1
    predicted[:, 1] = False
    scores = mask_scores([mask_answer(predicted, truth, ("ed", "es"))])
    assert scores["hd95_ed_mm"].value == 0
    for name in ("hd95_es_mm", "hd95_mm", "asd_mm"):
        assert scores[name].value is None
        assert scores[name].undefined == 1
    assert scores["dice_es"].value == 0


def test_boxes_by_hand():
    assert box_of(cube(1, 2, 3, 4, 8, 9)) == (1, 2, 3, 4, 8, 9)
    assert box_of(np.zeros((2, 3, 4), bool)) is None
    assert box_iou((0, 0, 0, 2, 2, 2), (0, 0, 0, 2, 2, 2)) == 1
    assert box_iou((0, 0, 0, 2, 2, 2), (1, 0, 0, 3, 2, 2)) == pytest.approx(4 / 12)
    assert box_iou((0, 0, 0, 1, 1, 1), (2, 2, 2, 3, 3, 3)) == 0


def test_an_answer_without_a_box_has_no_overlap():
    truth = cube(1, 4, 4, 4, 12, 12).astype(np.uint8)[:, None]
    target = Region("sax", "lv", (1,), (0,), ("ed",), as_box=True)
    said = [
        answer("", region=target, mask=mask, truth_mask=truth)
        for mask in (truth == 1, None, truth == 9)
    ]
    said.append(answer("", region=target, mask=truth == 1, truth_mask=np.zeros_like(truth)))
    scores = box_scores(said)
    assert scores["iou"].value == pytest.approx(1 / 3)
    assert (scores["iou"].n, scores["iou"].undefined) == (3, 1)
    assert scores["box_share"].value == 0.5


def test_a_box_is_not_judged_where_nothing_is_annotated():
    truth = cube(1, 4, 4, 4, 12, 12).astype(np.uint8)[:, None]
    target = Region("sax", "lv", (1,), (0,), ("ed",), as_box=True)
    truth[:, :, :2] = 255
    drawn = (truth == 1) | (truth == 255)
    assert box_scores([answer("", region=target, mask=drawn, truth_mask=truth)])["iou"].value == 1


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A small random BERT with a word tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "dilated", "left", "ventricle", "small"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=512,
    ).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def test_bert_score_reads_a_local_model_and_pairs_texts_of_any_length(bert):
    check_bert_model(str(bert), 2)
    texts = [
        "dilated left ventricle",
        "left",
        "small ventricle " * 400,
        "dilated ventricle small left",
        "ventricle left",
    ]
    same = bert_scores([answer(text, target=text) for text in texts], str(bert), 2)["bert_score_f1"]
    assert same.values == pytest.approx(np.ones(5), abs=1e-4)
    pairs = [(said, truth) for said in texts for truth in texts[:2]]
    values = bert_scores([answer(s, target=t) for s, t in pairs], str(bert), 2)[
        "bert_score_f1"
    ].values
    order = np.random.default_rng(0).permutation(len(pairs))
    shuffled = bert_scores([answer(*pairs[i][:1], target=pairs[i][1]) for i in order], str(bert), 2)
    assert shuffled["bert_score_f1"].values == pytest.approx(values[order])
    assert values.min() < 0.999
    assert bert_scores([answer("", target="left")], str(bert), 2)["bert_score_f1"].value == 0


def test_bert_score_without_a_model_is_refused_before_anything_is_asked(bert, tmp_path):
    with pytest.raises(CmrvlmError, match=r"bert_score\.path"):
        check_bert_model(str(tmp_path), 2)
    with pytest.raises(CmrvlmError, match=r"bert_score\.layers"):
        check_bert_model(str(bert), 9)


def test_slices_of_one_side_only_are_counted_and_empty_ones_are_not_defined():
    """Four slices: both empty, only predicted, only true, equal."""
    truth, predicted = np.zeros((4, 1, 6, 6), np.uint8), np.zeros((4, 1, 6, 6), bool)
    truth[2:, 0, 1:3, 1:3] = 1
    predicted[1, 0, 1:3, 1:3] = predicted[3, 0, 1:3, 1:3] = True
    per_slice = [dice(predicted[k], truth[k] == 1) for k in range(4)]
    assert per_slice == [None, 0, 0, 1]
    scores = mask_scores([mask_answer(predicted, truth)])
    assert scores["false_positive_slices"].value == 1
    assert scores["missed_slices"].value == 1


def test_one_slice_apart_is_the_slice_distance():
    one, two = np.zeros((3, 5, 5), bool), np.zeros((3, 5, 5), bool)
    one[0, 2, 2] = two[1, 2, 2] = True
    assert surface_distances_mm(one, two, (10.0, 1.5, 1.25))[0] == pytest.approx(10.0)
    one, two = (np.zeros((1, 20, 20), bool) for _ in range(2))
    one[0, 5, 5] = True
    for shift, expected in (((0, 4), 5.0), ((4, 0), 6.0)):
        two[:] = False
        two[0, 5 + shift[0], 5 + shift[1]] = True
        assert surface_distances_mm(one, two, (10.0, 1.5, 1.25))[0] == pytest.approx(expected)


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


def test_a_letter_inside_a_word_is_no_choice():
    assert chosen_letter("B. An aneurysm") == "B"
    assert chosen_letter("An aneurysm") is None


def test_a_report_that_was_cut_has_no_last_section_and_keeps_its_text():
    truth = "Structure: x. LGE: y. Impression: myocarditis."
    cut = answer("Structure: x. LGE: y. Impression: myocarditis", "MYOC", truth)
    cut.truncated = True
    scores = report_scores([cut], ("structure", "lge", "impression"))
    assert scores["sections_present"].value == scores["disease_accuracy"].value == 0
    assert scores["truncated_share"].value == 1
    assert cut.text.endswith("myocarditis")
    assert split_sections("LGE: a. LGE: b. Impression: c.") == {"impression": "c."}
