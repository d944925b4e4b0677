"""Questions from labels and from the data; options; what may and may not stand in a prompt."""

from collections import Counter
from dataclasses import replace

import pytest

from cmrvlm.errors import CmrvlmError
from cmrvlm.reports.reader import terms_named
from cmrvlm.study.study import StudyLabels, UserQuestion
from cmrvlm.study.vocabulary import DISEASES, FINDING_SEQUENCES, FINDINGS, LANGUAGES, SEQUENCES
from cmrvlm.tasks.context import FIELDS, check_fields, leaked, with_context
from cmrvlm.tasks.options import CHOICES
from cmrvlm.tasks.perception import SequenceTask
from cmrvlm.tasks.questions import BY_KEY, QUESTIONS
from cmrvlm.tasks.reasoning import AbnormalityTask
from cmrvlm.tasks.reporting import SummaryTask
from cmrvlm.tasks.vqa import LETTERS, VqaClosedTask, VqaOpenTask, chosen_letter
from cmrvlm.tasks.wall_motion import shortening
from data_modules.sources.phantom.source import PhantomSource
from tests.records import an_answer


@pytest.fixture(scope="module")
def studies(source):
    return [source.load(study_id) for study_id in source.study_ids()]


def test_a_finding_that_is_not_stated_is_never_asked(study):
    findings = {"lvef": True, "thrombus": False, "lv_lge": None}
    partly = replace(study, labels=StudyLabels(findings=findings))
    assert {c.key: c.truth for c in AbnormalityTask().cases(partly, SEQUENCES)} == {
        "lvef": "yes",
        "thrombus": "no",
    }


def test_findings_are_asked_only_where_a_shown_sequence_shows_them(study):
    assert {c.key for c in AbnormalityTask().cases(study, SEQUENCES)} == set(FINDINGS)
    for sequence in SEQUENCES:
        asked = {c.key for c in AbnormalityTask().cases(study, [sequence])}
        assert asked == {code for code, needs in FINDING_SEQUENCES.items() if sequence in needs}


@pytest.mark.parametrize("language", LANGUAGES)
def test_options_hold_the_right_answer_once_and_letters_are_spread(studies, language):
    task, letters, keys = VqaClosedTask(), Counter(), Counter()
    for study in studies:
        for case in task.cases(study, SEQUENCES):
            for wording in range(4):
                one = task.make_instruction(study, case, language, wording)
                right = BY_KEY[case.key].terms[case.truth].name(language)
                assert one.options.count(right) == 1
                assert 2 <= len(set(one.options)) == len(one.options) <= CHOICES
                assert one.options[LETTERS.index(chosen_letter(one.answer))] == right
                letters[chosen_letter(one.answer)] += 1
                keys[case.key] += 1
                assert all(
                    f"{name} ({letter})" in one.prompt or f"{name}（{letter}）" in one.prompt
                    for letter, name in zip(LETTERS, one.options, strict=False)
                )
    assert set(keys) == {one.key for one in QUESTIONS}
    shares = [letters[letter] / letters.total() for letter in LETTERS[:CHOICES]]
    assert max(shares) < 0.35
    assert min(shares) > 0.15


def test_absence_is_an_answer_to_open_questions_and_no_option(studies):
    closed, opened = VqaClosedTask(), VqaOpenTask()
    absent = {one.key: one.absent for one in QUESTIONS if one.absent}
    said = {key: set() for key in absent}
    for study in studies:
        for case in closed.cases(study, SEQUENCES):
            if case.key in absent:
                nothing = BY_KEY[case.key].terms[absent[case.key]].en
                assert nothing not in closed.make_instruction(study, case, "en").options
        for case in opened.cases(study, SEQUENCES):
            if case.key in absent:
                said[case.key].add(case.truth)
    for key, code in absent.items():
        assert code in said[key]
        assert len(said[key]) > 1


def test_options_are_shuffled_by_the_instruction_and_not_by_chance(study):
    task = VqaClosedTask()
    case = task.cases(study, SEQUENCES)[0]
    orders = [task.make_instruction(study, case, "en", wording).options for wording in range(20)]
    assert orders == [
        VqaClosedTask().make_instruction(study, case, "en", wording).options
        for wording in range(20)
    ]
    assert len(set(orders)) > 5


def test_wrong_options_are_wrong(studies):
    """No finding that is abnormal, or that is not stated, is offered as a wrong choice."""
    task = VqaClosedTask()
    for study in studies:
        for case in task.cases(study, SEQUENCES):
            if case.key == "abnormal_finding":
                options = task.make_instruction(study, case, "en").options
                codes = {code for code, term in FINDINGS.items() if term.en in options}
                assert {code for code in codes if study.labels.findings[code]} == {case.truth}


def test_questions_are_about_shown_sequences_only(study):
    for task in (VqaClosedTask(), VqaOpenTask()):
        keys = {case.key for case in task.cases(study, ["sax"])}
        assert "ef_grade" in keys
        assert not any(BY_KEY[key].category == "lge" for key in keys)
        assert {BY_KEY[c.key].category for c in task.cases(study, ["lge"])} <= {"lge", "other"}


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("myocarditis (B).", "B"),
        ("心肌炎（C）。", "C"),
        ("B", "B"),
        ("B) myocarditis", "B"),
        (" D.", "D"),
        ("(A) or (B)", None),
        ("Both are right", None),
        ("", None),
        ("A myocarditis", "A"),
        ("none", None),
    ],
)
def test_letters_are_read(text, letter):
    assert chosen_letter(text) == letter


def test_questions_of_the_data_are_asked_as_they_are(study):
    closed = UserQuestion(
        "lge", "en", "Where is the scar?", "septum", ("septum", "apex", "nowhere"), ("lge",)
    )
    free = UserQuestion("function", "zh", "收缩功能如何？", "正常", sequences=("sax",))
    told = replace(study, labels=StudyLabels(questions=(closed, free)))
    assert not VqaClosedTask().cases(told, ["sax"])
    (case,) = VqaClosedTask().cases(told, SEQUENCES)
    one = VqaClosedTask().make_instruction(told, case, "zh")
    assert one.language == "en"
    assert one.prompt.startswith("Where is the scar? ")
    assert one.answer == f"septum ({LETTERS[one.options.index('septum')]})."
    assert one.answer[:-1] in one.prompt
    assert one.options[LETTERS.index(chosen_letter(one.answer))] == "septum"
    (case,) = VqaOpenTask().cases(told, ["sax"])
    asked = VqaOpenTask().make_instruction(told, case, "en")
    assert (asked.prompt, asked.answer, asked.language) == (free.prompt, free.answer, "zh")
    scores = VqaOpenTask().score([an_answer(asked, "正常。"), an_answer(asked, "减低")])
    assert scores["accuracy"].value == 0.5
    assert scores["accuracy_function"].n == 2
    with pytest.raises(CmrvlmError, match="none of the options"):
        UserQuestion("lge", "en", "?", "left", ("right", "wrong"))


def test_only_allowed_fields_enter_a_prompt(study):
    """A row with a diagnosis and a history that names it: the prompt has neither."""
    known = {
        "age_years": 54.0,
        "sex": "m",
        "history": "known HCM",
        "clinical diagnosis": "hypertrophic cardiomyopathy",
    }
    told = replace(
        study, labels=replace(study.labels, diseases=frozenset({"HCM"}), demographics=known)
    )
    task = SequenceTask()
    one = with_context(
        task.make_instruction(told, task.cases(told, ["sax"])[0], "en"),
        told,
        check_fields(list(FIELDS)),
    )
    assert one.prompt == "Patient: 54 years, male. Which sequence is this?"
    chinese = with_context(
        task.make_instruction(told, task.cases(told, ["sax"])[0], "zh"), told, ("sex", "age_years")
    )
    assert chinese.prompt.startswith("患者：男性，54岁。")
    for field in ("history", "clinical diagnosis", "diseases"):
        with pytest.raises(CmrvlmError, match="may not enter a prompt"):
            check_fields(["sex", field])


@pytest.mark.parametrize(
    "text", ["history of HCM", "Hypertrophic Cardiomyopathy in 2019", "肥厚型心肌病病史"]
)
def test_leaks_are_found_by_name_and_synonym_in_both_languages(text):
    assert leaked(text, "HCM", DISEASES) == ["HCM"]
    assert leaked(text, "DCM", DISEASES) == []


def test_usual_abbreviations_are_synonyms_and_english_words_are_not():
    for code in ("DCM", "HCM", "HHD", "LVNC", "TTC", "ACM", "VHD"):
        assert terms_named(f"known {code}.", DISEASES) == [code]
    assert terms_named("neither this nor that, mi or ca", DISEASES) == []


def test_summary_is_not_asked_when_the_findings_name_the_disease(study):
    sections = {
        "structure": "thick walls as in known HCM.",
        "impression": "hypertrophic cardiomyopathy.",
    }
    for text, asked in ((sections, 0), (sections | {"structure": "thick walls."}, 1)):
        told = replace(study, labels=StudyLabels(diseases=frozenset({"HCM"}), report={"en": text}))
        cases = SummaryTask().cases(told, ["sax"])
        assert len(cases) == asked
        for case in cases:
            prompt = SummaryTask().make_instruction(told, case, "en").prompt
            assert "thick walls" in prompt
            assert "hypertrophic" not in prompt


def test_no_prompt_of_any_label_question_names_the_answer(studies):
    for study in studies:
        for case in VqaOpenTask().cases(study, SEQUENCES):
            for language in LANGUAGES:
                one = VqaOpenTask().make_instruction(study, case, language)
                assert not leaked(one.prompt, case.truth, BY_KEY[case.key].terms)


def test_wall_motion_is_lost_where_the_infarct_is():
    """Phantom infarcts stand still in the region of their label, and healthy hearts move everywhere."""
    source = PhantomSource(count=80, size=64, slices=8, frames=10, spacing_mm=(3.0, 3.0))
    beside = {"anterior": {7}, "lateral": {11, 12}, "inferior": {10}, "septal": {8, 9}}
    infarcts = 0
    for index in (*range(3, 80, 16), *range(5, 80, 16)):
        study = source.load(source.study_ids()[index])
        moved = shortening(study.series["sax"])
        if study.labels.diseases == {"NOR"}:
            assert min(moved.values()) > 0.15
            continue
        infarcts += 1
        stiff = beside[study.labels.patterns["lge_region"]]
        still = max(moved[code] for code in stiff)
        assert still < min(moved[code] for code in moved if code not in stiff) + 0.05
        assert min(moved[code] for code in stiff) < 0.1
    assert infarcts == 5


def test_no_option_of_a_diagnosis_is_the_odd_one_out(studies):
    """The four options of a group are the same for each of its diseases, so that the prompt alone tells nothing."""
    offered = {}
    for study in studies:
        case = next(c for c in VqaClosedTask().cases(study, SEQUENCES) if c.key == "diagnosis")
        offered.setdefault(
            frozenset(VqaClosedTask().make_instruction(study, case, "en").options), set()
        ).add(case.truth)
    assert [len(truths) for truths in offered.values()] == [4, 4, 4, 4]


def test_what_is_right_on_another_study(studies):
    """Only one of the options offered may be right there; a finding that is abnormal in both is no change."""
    task, dcm, hcm, lvnc = VqaClosedTask(), studies[0], studies[1], studies[8]
    case = next(c for c in task.cases(dcm, SEQUENCES) if c.key == "diagnosis")
    one = task.make_instruction(dcm, case, "en")
    assert task.truth_on(lvnc, one) == "LVNC"
    assert task.truth_on(hcm, one) is None
    assert task.truth_on(dcm, one) == "DCM"
    case = next(c for c in task.cases(dcm, SEQUENCES) if c.key == "abnormal_finding")
    one = task.make_instruction(dcm, case, "en")
    codes = [code for code, term in FINDINGS.items() if term.en in one.options]
    for findings, right in (
        ({}, None),
        (dict.fromkeys(codes, True), None),
        (dict.fromkeys(codes, False) | {codes[1]: True}, codes[1]),
    ):
        told = replace(dcm, labels=StudyLabels(findings=findings))
        assert task.truth_on(told, one) == right


def test_always_the_same_option_shows_as_collapse(studies):
    task = VqaClosedTask()
    asked = [
        task.make_instruction(s, c, "en", w)
        for s in studies
        for c in task.cases(s, SEQUENCES)
        if c.key == "ef_grade"
        for w in range(3)
    ]
    severe = BY_KEY["ef_grade"].terms["severe"].en
    said = [an_answer(one, f"{severe} ({LETTERS[one.options.index(severe)]}).") for one in asked]
    scores = task.score(said)
    assert scores["top_answer_share"].value == 1
    assert scores["answer_entropy_bits"].value == 0
    assert scores["truth_entropy_bits"].value > 0.5


def test_options_of_the_data_are_few_and_different():
    for options in (("a", "a"), tuple("abcdefghi")):
        with pytest.raises(CmrvlmError, match="options twice"):
            UserQuestion("other", "en", "?", "a", options)
