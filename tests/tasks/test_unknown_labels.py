"""Labels that are partly unknown: no target of any task states what nobody knows."""

import re
from dataclasses import replace

import numpy as np
import pytest

from cmrvlm.config.build import build
from cmrvlm.instructions.read_outs import study_targets
from cmrvlm.reports.findings import findings_stated
from cmrvlm.reports.numbers import numbers_stated
from cmrvlm.study.evidence import visible_labels
from cmrvlm.study.measurements import MEASUREMENTS
from cmrvlm.study.study import StudyLabels
from cmrvlm.study.vocabulary import FINDINGS, LANGUAGES, MOTION_PATTERNS, SEQUENCES
from cmrvlm.tasks.mixture import Mixture
from cmrvlm.tasks.reporting import CaptionTask, ReportTask, SummaryTask
from tests.conftest import composed

OTHER = (
    "mitral_regurgitation",
    "tricuspid_regurgitation",
    "aortic_regurgitation",
    "aneurysm",
    "thrombus",
    "fatty_infiltration",
    "pericardial_effusion",
    "pleural_effusion",
)
NAMED = (*OTHER, "rv_lge", "pericardial_enhancement")
NOTHING_FURTHER = re.compile("no further abnormality|未见其他异常")
NO_DISEASE = re.compile("no cardiac disease|未见心脏疾病")
JUDGED = r"(?:(?!\. )[^;；。])*\((?:normal|increased|reduced|正常|增大|减低)\)"
# Headings, and the tasks that ask for the sequence itself.
LGE_HEADING = re.compile("LGE:|延迟强化：")
SEEDS = range(12)
SUBSETS = (SEQUENCES, ("sax",), ("lax_4ch", "lge"))
# They state nothing of labels: what they answer follows from the images alone.
OF_IMAGES = ("sequence", "phase", "level", "detect", "wall_motion")


@pytest.fixture(scope="module")
def tasks():
    configs = composed("paths.cache=here", "out=here", "run_dir=here", "mix=uniform")["mix"][
        "tasks"
    ]
    made = {name: build(config, f"mix.tasks.{name}") for name, config in configs.items() if config}
    assert len({name.split("_")[0] for name in made}) >= 10
    return made


@pytest.fixture(scope="module")
def known(source):
    """Phantoms of three diseases, the healthy one among them, whose texts are worded from labels."""
    studies = [source.load(source.study_ids()[index]) for index in (0, 3, 5)]
    return [
        replace(one, labels=replace(one.labels, report={}, captions={}, questions=()))
        for one in studies
    ]


def some_of(values, rng, share):
    return {name: value for name, value in values.items() if rng.random() < share}


def forgotten(study, seed):
    """The study with a random part of what is known of it; unknown findings are absent or None."""
    rng = np.random.default_rng(seed)
    share = rng.random()
    labels = study.labels
    findings = dict(some_of(labels.findings, rng, share))
    for code in labels.findings:
        if code not in findings and rng.random() < 0.5:
            findings[code] = None
    return replace(
        study,
        labels=replace(
            labels,
            findings=findings,
            measurements=some_of(labels.measurements, rng, share),
            patterns=some_of(labels.patterns, rng, share),
            diseases=labels.diseases if rng.random() < share else None,
        ),
    )


def targets(study, shown, tasks):
    """Yield task, key and text of every target, in both languages, as training and scores have them."""
    study = replace(study, labels=visible_labels(study, shown))
    for name, task in tasks.items():
        for case in task.cases(study, shown):
            for language in case.languages:
                yield name, case, task.make_instruction(study, case, language).reference


def names_of(code):
    term = FINDINGS[code]
    return [term.en, term.zh, *term.synonyms]


def check(text, labels):
    """Refuse a text that states what the labels do not, by the words themselves."""
    findings = {code: flag for code, flag in labels.findings.items() if flag is not None}
    words = LGE_HEADING.sub("", text)
    for code in NAMED:
        if code not in findings:
            assert not any(name in words for name in names_of(code)), (code, text)
    for name, measurement in MEASUREMENTS.items():
        for word in (measurement.en, measurement.zh):
            pattern = rf"(?<![A-Za-z]){re.escape(word)}(?![A-Za-z])"
            if name not in labels.measurements:
                assert not re.search(rf"{pattern}[^;；。,，]*\d", words), (name, text)
            if measurement.finding not in findings:
                assert not re.search(pattern + JUDGED, words), (name, text)
    if any(findings.get(code) is not False for code in OTHER):
        assert not NOTHING_FURTHER.search(words), text
    if labels.diseases != {"NOR"}:
        assert not NO_DISEASE.search(words), text
    if "lv_lge" not in findings and "lge_pattern" not in labels.patterns:
        assert not re.search("LV late enh|no late enh|左心室延迟强化|未见延迟强化", words), text
    if "motion_pattern" not in labels.patterns:
        motions = [name for term in MOTION_PATTERNS.values() for name in (term.en, term.zh)]
        assert not any(name in words for name in motions), text
    assert "unknown" not in words
    assert "未知" not in words


@pytest.mark.parametrize("shown", SUBSETS, ids="+".join)
@pytest.mark.parametrize("seed", SEEDS)
def test_no_target_states_what_is_unknown(known, tasks, seed, shown):
    for study in known:
        partly = forgotten(study, seed)
        for name, case, text in targets(partly, shown, tasks):
            if name.startswith("segment") or name in (*OF_IMAGES, "prognosis"):
                continue
            check(text, visible_labels(partly, shown))
            if name == "abnormality":
                assert case.truth == ("yes" if partly.labels.findings[case.key] else "no")
            if case.key == "abnormal_finding":
                assert partly.labels.findings[case.truth] is True


def statements(study, shown, tasks):
    """Everything that the texts about a study state, in codes."""
    stated = set()
    for name, case, text in targets(study, shown, tasks):
        if name in ("report", "caption", "summary", "volume"):
            stated |= set(findings_stated(text).items()) | set(numbers_stated(text).items())
            stated |= {"nothing further"} if NOTHING_FURTHER.search(text) else set()
        elif case.key == "abnormal_finding":
            stated.add((case.truth, True))
        elif not name.startswith("vqa_closed"):
            stated.add((name, case.key, case.truth))
    return stated


@pytest.mark.parametrize("seed", SEEDS)
def test_forgetting_never_adds_a_statement(known, tasks, seed):
    for study in known:
        more = forgotten(study, seed)
        less = forgotten(more, seed + 100)
        everything = statements(study, SEQUENCES, tasks)
        assert statements(more, SEQUENCES, tasks) <= everything
        assert statements(less, SEQUENCES, tasks) <= statements(more, SEQUENCES, tasks)


@pytest.mark.parametrize("code", OTHER)
@pytest.mark.parametrize("unknown", ["absent", "None"])
def test_one_unknown_finding_leaves_others_unspoken(known, code, unknown):
    healthy = replace(known[0], labels=StudyLabels(findings=dict.fromkeys(OTHER, False)))
    findings = {other: False for other in OTHER if other != code or unknown == "None"}
    if unknown == "None":
        findings[code] = None
    partly = replace(healthy, labels=StudyLabels(findings=findings))
    everything = Mixture({"report": ReportTask()}).all(healthy)
    assert [NOTHING_FURTHER.search(one.answer) is None for one in everything] == [False]
    assert Mixture({"report": ReportTask()}).all(partly) == []
    assert Mixture({"caption": CaptionTask(each=True)}).all(partly) == []


def test_nothing_further_needs_every_series_that_shows_it(known):
    healthy = replace(known[0], labels=StudyLabels(findings=dict.fromkeys(OTHER, False)))
    for shown in (["sax"], ["lax_4ch"], ["lge"], ["lax_4ch", "lge"]):
        assert Mixture({"report": ReportTask()}).all(healthy, shown) == []
    assert len(Mixture({"report": ReportTask()}).all(healthy, ["sax", "lax_4ch"])) == 1


@pytest.mark.parametrize("disease", ["MI", "NOR", "DCM"])
def test_no_impression_follows_from_nothing(known, disease):
    bare = replace(known[0], labels=StudyLabels(diseases=frozenset({disease})))
    for shown in (None, ["lge"], ["sax"]):
        for task in (ReportTask(), ReportTask(each=True), SummaryTask(), CaptionTask()):
            assert Mixture({task.name: task}).all(bare, shown) == []
    silent = {"structure": "not assessed.", "lge": "not assessed.", "impression": "x."}
    reported = replace(bare, labels=replace(bare.labels, report={"en": silent}))
    for task in (ReportTask(), SummaryTask()):
        assert Mixture({task.name: task}).all(reported) == []


@pytest.mark.parametrize(
    ("flag", "en", "zh"),
    [
        (True, "LGE: LV late enhancement.", "延迟强化：左心室延迟强化。"),
        (False, "LGE: no LV late enhancement.", "延迟强化：未见左心室延迟强化。"),
    ],
)
def test_enhancement_without_a_pattern_is_assessed(known, flag, en, zh):
    study = replace(known[0], labels=StudyLabels(findings={"lv_lge": flag, "rv_lge": None}))
    for language, words in (("en", en), ("zh", zh)):
        (report,) = Mixture({"report": ReportTask()}, languages=[language]).all(study)
        assert words in report.answer
        assert findings_stated(report.answer) == {"lv_lge": flag}
        (caption,) = Mixture({"caption": CaptionTask()}, languages=[language]).all(study, ["lge"])
        assert findings_stated(caption.answer) == {"lv_lge": flag}


def test_a_report_in_one_language_is_taught_in_that_one(known):
    own = {"structure": "LVEDD 62 mm (increased).", "impression": "dilated cardiomyopathy."}
    for language in LANGUAGES:
        labels = StudyLabels(
            report={language: own},
            captions={language: {"sax": "LVEDD 62 mm."}},
            diseases=frozenset({"DCM"}),
        )
        study = replace(known[0], labels=labels)
        mixture = Mixture({t.name: t for t in (ReportTask(), SummaryTask(), CaptionTask())})
        for one in mixture.all(study, ["sax"]):
            assert (one.language, "62" in one.answer + one.prompt) == (language, True)
        for seed in range(5):
            for one in mixture.draw(study, np.random.default_rng(seed)):
                assert one.language == language
        (other,) = [one for one in LANGUAGES if one != language]
        assert Mixture({"report": ReportTask()}, languages=[other]).all(study) == []


def test_own_captions_say_only_what_their_images_show(known):
    captions = {"en": {"sax": "LVEF 36 % (reduced); hypokinesia. A wide heart.", "lge": "scar."}}
    study = replace(known[0], labels=StudyLabels(captions=captions))
    sax = study.series["sax"]
    still = replace(sax, image=np.repeat(sax.image[:, :1], sax.image.shape[1], axis=1))
    mixture = Mixture({"caption": CaptionTask()})
    assert "LVEF 36 %" in mixture.all(study, ["sax"])[0].answer
    assert "LVEF" not in mixture.all(study.with_series({"sax": still}))[0].answer


def test_no_disease_is_written_as_its_own_code():
    assert StudyLabels(diseases=frozenset()).diseases is None
    vector = study_targets(StudyLabels(diseases=frozenset()))["disease"]
    assert np.isnan(vector).all()
    assert study_targets(StudyLabels(diseases=frozenset({"NOR"})))["disease"].sum() == 1


def test_a_box_is_drawn_around_what_the_mask_shows(known, tasks):
    study = known[0]
    sax = study.series["sax"]
    for hidden, value in (("lv", 1), ("myo", 2), ("rv", 3)):
        mask = np.where(sax.mask == value, 0, sax.mask)
        seen = study.with_series({"sax": replace(sax, mask=mask)})
        keys = {case.key for case in tasks["detect"].cases(seen, ["sax"])}
        assert keys == {"lv", "myo", "rv"} - {hidden}
