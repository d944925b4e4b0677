"""Contract that every task of conf/task keeps, and the mixture."""

import itertools
import re
import zlib
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import yaml

from cmrvlm.config.build import build
from cmrvlm.errors import CmrvlmError
from cmrvlm.instructions.read_outs import study_targets
from cmrvlm.instructions.tokens import SPECIAL_TOKENS
from cmrvlm.reports.reader import terms_named
from cmrvlm.reports.writer import split_sections
from cmrvlm.study.study import Series, StudyLabels
from cmrvlm.study.vocabulary import DISEASES, LANGUAGES, SEQUENCES, STRUCTURE_TERMS
from cmrvlm.tasks.diagnosis import DiseaseTask
from cmrvlm.tasks.mask_requests import structures_asked
from cmrvlm.tasks.mixture import Mixture
from cmrvlm.tasks.perception import LevelTask, PhaseTask, SequenceTask
from cmrvlm.tasks.reasoning import AbnormalityTask
from cmrvlm.tasks.reporting import CaptionTask, ReportTask
from cmrvlm.tasks.segmentation import SegmentTask
from cmrvlm.tasks.vqa import VqaClosedTask
from tests.conftest import CONF
from tests.records import an_answer

TASKS = {
    path.stem: yaml.safe_load(path.read_text()) for path in sorted((CONF / "task").glob("*.yaml"))
}
SUBSETS = [s for n in range(8) if (s := tuple(q for i, q in enumerate(SEQUENCES) if n >> i & 1))]


@pytest.fixture(params=TASKS)
def task(request):
    made = build(TASKS[request.param], f"mix.tasks.{request.param}")
    assert made.name == request.param
    return made


def test_prompts_and_unseen_paraphrases_exist_in_both_languages(task, study):
    assert task.primary in task.score([])
    for language in LANGUAGES:
        for case in task.cases(study, SEQUENCES):
            trained = {
                task.make_instruction(study, case, language, wording).prompt
                for wording in range(40)
            }
            assert len(trained) >= 2
            assert (
                task.make_instruction(study, case, language, paraphrased=True).prompt not in trained
            )


@pytest.mark.parametrize("shown", SUBSETS)
def test_cases_show_only_what_is_shown_and_word_in_both_languages(task, study, shown):
    cases = task.cases(study, shown)
    assert len({case.key for case in cases}) == len(cases)
    for case in cases:
        assert case.views or task.name == "summary"
        assert {view.sequence for view in case.views} <= set(shown)
        for language in LANGUAGES:
            for wording in range(4):
                one = task.make_instruction(study, case, language, wording)
                assert one.prompt
                assert one.answer
                assert "{" not in one.prompt + one.answer
                assert one.prompt.isascii() == (language == "en")
                assert not set(SPECIAL_TOKENS) & set(re.findall("<[^>]*>", one.prompt))


def test_nothing_is_asked_about_a_study_without_labels(task, study):
    bare = {name: Series(image=one.image, affine=one.affine) for name, one in study.series.items()}
    unknown = type(study)("a", "a", bare, StudyLabels())
    cases = task.cases(unknown, list(bare))
    assert task.name == "sequence" or not cases


def perfect_read_outs(labels):
    """What a head would say that knows the truth."""
    known = {name: np.nan_to_num(vector) for name, vector in study_targets(labels).items()}
    return known | {"hazard": np.nan_to_num(study_targets(labels)["hazard"])}


LOWER_IS_BETTER = re.compile("unparsed|_mae_|brier|hd95|asd_|calibration")
NO_DIRECTION = re.compile("truncated|_slices|entropy|top_answer|bias|limit|_sd_")


def test_right_answers_score_best_and_empty_ones_worst(task, source):
    right, empty = [], []
    for study_id in source.study_ids():
        study = source.load(study_id)
        for case in task.cases(study, list(study.series)):
            one = task.make_instruction(
                study, case, "zh" if zlib.crc32(study_id.encode()) % 2 else "en"
            )
            truth = (
                None
                if case.region is None
                else study.series[case.region.sequence].mask[:, list(case.region.frames)]
            )
            mask = None if truth is None else np.isin(truth, case.region.values)
            read_outs = perfect_read_outs(study.labels)
            right.append(
                an_answer(one, one.reference, mask, truth, (10.0, 4.0, 4.0), read_outs=read_outs)
            )
            empty.append(an_answer(one, "", None, truth, (10.0, 4.0, 4.0)))
    best, worst = task.score(right), task.score(empty)
    absent = sum(one.mask is not None and not one.mask.any() for one in right)
    still = any(
        one.instruction.region and set(one.instruction.region.phases) == {None} for one in right
    )
    for name, score in best.items():
        if NO_DIRECTION.search(name) or score.value is None:
            continue
        low = bool(LOWER_IS_BETTER.search(name))
        if name == "c_index":
            assert score.value > 0.8
        else:
            assert score.value == pytest.approx(
                0.0 if low else 1.0, abs=0.5 if "_mae_" in name else 0.02
            ), name
        assert score.n > 0
        assert score.undefined in (0, absent) or name.startswith(
            ("macro", "calibration", "presence")
        ), name
        other = worst[name].value
        if name == "presence_specificity":
            continue  # whoever says nothing finds nothing where nothing is
        assert other is None or other == pytest.approx(1.0 if low else 0.0, abs=0.01), name
    undefined = {name for name, score in best.items() if score.value is None}
    undefined -= {
        name for name in undefined if still and re.search("_e[ds]", name)
    }  # no phases without a cine
    undefined -= {"dice", "hd95_mm", "asd_mm"} if absent == len(right) else set()
    assert undefined <= {
        "meteor",
        "meteor_en",
        "meteor_zh",
        "presence_sensitivity",
        "presence_specificity",
    } | {n for n in best if n.startswith(("auroc", "auprc"))}, undefined
    assert all(score.value is None and score.n == 0 for score in task.score([]).values())


@pytest.mark.parametrize("language", ["en", "zh"])
def test_closed_questions_allow_the_right_answer_and_each_other_one(study, language):
    for task in (SequenceTask(), PhaseTask(), LevelTask(), AbnormalityTask(), VqaClosedTask()):
        for case in task.cases(study, list(study.series)):
            one = task.make_instruction(study, case, language)
            assert one.answer in one.allowed
            assert len(set(one.allowed)) == len(one.allowed) >= 2
            assert len(one.allowed) == (len(one.options) or len(task.terms))
    assert (
        not DiseaseTask()
        .make_instruction(study, DiseaseTask().cases(study, ["sax"])[0], language)
        .allowed
    )


def test_a_balanced_task_is_asked_for_each_answer_alike(source):
    study = source.load(source.study_ids()[0])
    task = AbnormalityTask()
    truths = [case.truth for case in task.cases(study, list(study.series))]
    assert 0 < truths.count("yes") < 0.4 * len(truths)
    mixture = Mixture({"abnormality": task}, per_study=400)
    drawn = [one.truth for one in mixture.draw(study, np.random.default_rng(0))]
    assert 0.4 < drawn.count("yes") / len(drawn) < 0.6


def test_frames_levels_and_sequences_are_the_truth(study):
    for case in PhaseTask().cases(study, ["sax"]):
        assert study.series["sax"].phases[case.truth] == case.views[0].frame
    for case in LevelTask().cases(study, ["sax", "lge"]):
        assert study.series[case.views[0].sequence].levels[case.views[0].slice] == case.truth
    assert [c.truth for c in SequenceTask().cases(study, ["sax", "lge"])] == ["sax", "lge"]


def test_disease_vector_is_the_truth(source):
    for index, study_id in enumerate(source.study_ids()[:16]):
        study = source.load(study_id)
        case = DiseaseTask().cases(study, ["sax"])[0]
        assert np.flatnonzero(study_targets(study.labels)["disease"]).tolist() == [index]
        assert case.truth == list(DISEASES)[index]


def test_report_says_nothing_of_what_is_not_shown(study):
    task = ReportTask()
    answer = task.answer(study, task.cases(study, ["lax_4ch"])[0], "en")
    assert split_sections(answer)["lge"] == "not assessed."
    assert "LVEF" not in answer


def test_caption_needs_something_to_say_about_every_shown_sequence(study):
    assert CaptionTask().cases(study, ["sax", "lge"])
    captions = {language: {"sax": "x"} for language in LANGUAGES}
    partly = type(study)("a", "a", study.series, StudyLabels(captions=captions))
    assert CaptionTask().cases(partly, ["sax"])
    assert not CaptionTask().cases(partly, ["sax", "lge"])


def test_own_report_of_the_data_says_only_what_is_shown(study):
    own = {
        "en": {
            "structure": "LVEDD 62 mm (increased); left atrium enlarged.",
            "lge": "scar of the septum.",
            "other": "No thrombus. RV enhancement.",
            "impression": "myocarditis.",
        }
    }
    told = type(study)("a", "a", study.series, StudyLabels(report=own))
    task = ReportTask()

    def sections(*shown):
        return split_sections(task.answer(told, task.cases(told, shown)[0], "en"))

    assert sections(*SEQUENCES) == own["en"]
    assert sections("sax") == {
        "structure": "LVEDD 62 mm (increased);",
        "lge": "not assessed.",
        "other": "No thrombus.",
        "impression": "myocarditis.",
    }
    assert sections("lax_4ch")["structure"] == own["en"]["structure"]
    assert sections("lge") == {
        "structure": "not assessed.",
        "lge": "scar of the septum.",
        "other": "No thrombus. RV enhancement.",
        "impression": "myocarditis.",
    }


def test_myocardium_includes_its_scar(study):
    assert SegmentTask("myo").cases(study, ["sax"])[0].region.values == (2, 4, 5)
    with pytest.raises(CmrvlmError, match="aorta"):
        SegmentTask("aorta")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_structures_are_asked_for_by_any_name_and_answered_with_one(study, language):
    task = SegmentTask("lv")
    (case,) = task.cases(study, ["sax"])
    asked = [task.make_instruction(study, case, language, wording) for wording in range(60)]
    named = {terms_named(one.prompt, STRUCTURE_TERMS)[0] for one in asked}
    assert named == {"lv"}
    assert len({one.prompt for one in asked}) >= 15
    assert {one.answer for one in asked} == {asked[0].answer}
    assert asked[0].prompt == task.prompts[language][0].format(
        name=STRUCTURE_TERMS["lv"].name(language), where=""
    )


def test_an_absent_scar_is_an_answer_and_an_unsought_one_no_question(
    source,
):
    scarred, healthy = (
        next(
            one
            for one in map(source.load, source.study_ids())
            if bool(np.isin(one.series["lge"].mask, (4, 5)).any()) == there
        )
        for there in (True, False)
    )
    task = SegmentTask("scar")
    assert task.sequence == "lge"
    assert not task.cases(scarred, ["sax"])
    for study, text in (
        (scarred, "The myocardial scar is <SEG>."),
        (healthy, "There is no myocardial scar."),
    ):
        (case,) = task.cases(study, ["lge"])
        one = task.make_instruction(study, case, "en")
        assert one.answer == text
        assert len(one.allowed) == 2
        assert text in one.allowed
    unknown = replace(healthy, labels=replace(healthy.labels, findings={}))
    assert task.cases(unknown, ["lge"])  # scars were drawn, and there is none
    undrawn = {"lge": replace(healthy.series["lge"], drawn=())}
    assert task.cases(healthy.with_series(undrawn), ["lge"])
    assert not task.cases(unknown.with_series(undrawn), ["lge"])


def test_a_zone_without_reflow_is_asked_for_in_scars_without_one(source):
    """Where somebody would have drawn it; else there may be one."""
    late = {one.study_id: one.series["lge"] for one in map(source.load, source.study_ids())}
    scarred = next(
        study for study, own in late.items() if (own.mask == 4).any() and not (own.mask == 5).any()
    )
    study, task = source.load(scarred), SegmentTask("no_reflow")
    (case,) = task.cases(study, ["lge"])
    assert task.make_instruction(study, case, "en").answer == "There is no no-reflow zone."
    for drawn in ((), ("scar",)):
        other = study.with_series({"lge": replace(study.series["lge"], drawn=drawn)})
        assert not task.cases(other, ["lge"])
    with pytest.raises(CmrvlmError, match="scra"):
        replace(study.series["lge"], drawn=("scra",))


def test_a_structure_on_another_series_is_another_task(study):
    task = SegmentTask("lv", "lax_4ch")
    assert task.name == "segment_lv_lax_4ch"
    (case,) = task.cases(study, SEQUENCES)
    assert case.region.sequence == "lax_4ch"
    assert "on the four-chamber cine" in task.make_instruction(study, case, "en").prompt
    assert "在四腔心电影上" in task.make_instruction(study, case, "zh").prompt


@pytest.mark.parametrize(
    ("question", "named"),
    [
        ("Segment the left ventricular cavity, the LV wall and the RV", ["lv", "myo", "rv"]),
        ("请分割左心室腔和瘢痕", ["lv", "scar"]),
        ("Is the right ventricle dilated?", []),
        ("Outline the liver", []),
        ("Show me the right ventricle.", ["rv"]),
        ("Where is the scar?", ["scar"]),
        ("请显示心肌瘢痕。", ["scar"]),
        ("左心室心肌在哪里？", ["myo"]),
        ("Segment the left ventricle", ["lv"]),
        ("Could you segment the LV?", ["lv"]),
        ("Is the basal anterior segment of the LV wall akinetic?", []),
        ("Which AHA segments show scar?", []),
        ("图像显示左心室扩大吗？", []),
        ("Outline the left atrium and the right atrium", ["la", "ra"]),
        ("请勾画左心房", ["la"]),
        ("Segment the blood pool", ["lv"]),
        ("请分割血池", ["lv"]),
        ("Segment the RV blood pool", ["rv"]),
        ("请分割右心室血池", ["rv"]),
        ("Segment the myocardium of the left ventricle", ["myo"]),
        ("分割左心室的心肌", ["myo"]),
        ("Outline the scar in the LV wall", ["scar"]),
        ("请勾画左心室心肌内的瘢痕", ["scar"]),
        ("Segment the cavity of the left ventricle", ["lv"]),
        ("Give masks of the left ventricle and of the RV", ["lv", "rv"]),
        ("Segment the RV and the scar of the LV", ["rv", "scar"]),
        ("Show me the endocardial border of the LV", ["lv"]),
        ("Show me where the scar is", ["scar"]),
        ("Mark every pixel that belongs to the RV.", ["rv"]),
        ("Where is the scar on the LGE?", ["scar"]),
        ("请在四腔心电影上显示左心房。", ["la"]),
        ("请标出属于左心室腔的所有像素。", ["lv"]),
        ("显示左心室和右心室的轮廓", ["lv", "rv"]),
        ("请显示左心室心肌内的瘢痕", ["scar"]),
        ("Show me the ejection fraction of the left ventricle", []),
        ("Mark whether the RV is dilated", []),
        ("Show the left ventricle's function", []),
        ("Show me the left ventricular mass", []),
        ("Where is the LV dilated?", []),
        ("Draw a conclusion about the myocardium", []),
        ("Outline the findings in the LV", []),
        ("请显示左心室射血分数", []),
        ("请显示左心室的射血分数", []),
        ("左心室轮廓光滑吗？", []),
        ("请给出左心室的容积", []),
    ],
)
def test_masks_are_asked_for_in_a_users_words(question, named):
    assert structures_asked(question) == named


@pytest.mark.parametrize("sequence", [None, "lax_4ch"])
@pytest.mark.parametrize("structure", ["lv", "myo", "rv", "scar", "no_reflow", "la", "ra"])
def test_all_that_the_tasks_ask_is_a_question_for_their_structure(study, structure, sequence):
    task = SegmentTask(structure, sequence)
    case = task.case_on(SEQUENCES, (0,))
    for language, paraphrased in itertools.product(("en", "zh"), (False, True)):
        for wording in range(100):
            prompt = task.make_instruction(
                study, case, language, wording, paraphrased=paraphrased
            ).prompt
            assert structures_asked(prompt) == [structure], prompt


def mixture(**changes):
    tasks = {
        name: build(TASKS[name], f"mix.tasks.{name}") for name in ("sequence", "phase", "disease")
    }
    return Mixture(tasks, **changes)


def test_draw_is_a_function_of_its_generator(study):
    one, two, other = (mixture().draw(study, np.random.default_rng(s)) for s in (1, 1, 2))
    assert one == two
    assert one != other


def test_weights_are_kept(study):
    counts = Counter()
    for seed in range(600):
        drawn = mixture(weights={"disease": 2.0, "phase": 0.0}, per_study=1).draw(
            study, np.random.default_rng(seed)
        )
        counts.update(one.task for one in drawn)
    assert counts["phase"] == 0
    assert counts["disease"] / counts["sequence"] == pytest.approx(2.0, rel=0.25)


def test_temperature_evens_weights_out(study):
    flat = mixture(weights={"disease": 100.0}, temperature=1e6)
    assert max(flat.weights.values()) / min(flat.weights.values()) == pytest.approx(1.0, abs=1e-3)


def test_dropped_sequences_are_not_shown_and_one_always_is(study):
    drawn = [
        mixture(drop={"sax": 1.0, "lge": 1.0}).draw(study, np.random.default_rng(s))
        for s in range(20)
    ]
    assert {view.sequence for asked in drawn for one in asked for view in one.views} == {"lax_4ch"}
    nothing = mixture(drop=dict.fromkeys(SEQUENCES, 1.0)).draw(study, np.random.default_rng(0))
    assert all(one.views for one in nothing)


def test_unknown_weight_and_unaskable_study_are_errors(study):
    with pytest.raises(CmrvlmError, match="diagnosis"):
        mixture(weights={"diagnosis": 1.0})
    bare = type(study)("a", "a", {"lge": Series(image=study.series["lge"].image, affine=np.eye(4))})
    with pytest.raises(CmrvlmError, match="study a"):
        Mixture({"phase": PhaseTask()}).draw(bare, np.random.default_rng(0))


def test_evaluation_lists_everything_and_draws_nothing(study):
    asked = mixture().all(study)
    assert asked == mixture().all(study)
    assert [one.task for one in asked].count("sequence") == 3
    assert {one.task for one in mixture().all(study, shown=["lge"])} == {"sequence", "disease"}


@pytest.mark.parametrize("task", [CaptionTask, ReportTask])
def test_each_series_is_described_by_itself_as_if_it_were_alone(study, task):
    alone, each = task(), task(each=True)
    cases = each.cases(study, SEQUENCES)
    assert [[view.sequence for view in case.views] for case in cases] == [
        [name] for name in SEQUENCES
    ]
    for name, case in zip(SEQUENCES, cases, strict=True):
        (own,) = alone.cases(study, [name])
        for language in LANGUAGES:
            assert each.answer(study, case, language) == alone.answer(study, own, language)
    assert not each.cases(study, [])
