"""`study.json` as people write it: what is wrong is named with its field, what is null is unknown."""

import json

import nibabel as nib
import numpy as np
import pytest

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.files import read_study, write_study
from cmrvlm.study.study_json import read_study_json
from data_modules.sources.nifti import NiftiSource


@pytest.fixture
def exam(tmp_path):
    """Return a folder of one cine of five frames, and a function that writes its `study.json`."""
    folder = tmp_path / "archive" / "exam"
    folder.mkdir(parents=True)
    values = np.random.default_rng(0).random((20, 18, 3, 5)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, np.diag([4.0, 4.0, 8.0, 1.0])), folder / "sax.nii.gz")

    def write(content):
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / "study.json").write_text(text)
        return folder

    return write


def person(**values):
    return {"labels": {"demographics": values}}


def labels(**values):
    return {"labels": values}


def asked(**values):
    question = {"category": "lge", "language": "en", "prompt": "Is there a scar?", "answer": "no"}
    return labels(questions=[question | values])


def sax(**values):
    return {"series": {"sax": values}}


WRONG = {
    "a list": ("study.json", []),
    "a number": ("study.json", 7),
    "half a file": ("JSON", '{"series": {"sax": '),
    "empty": ("JSON", ""),
    "series a list": ("series", {"series": []}),
    "one series a text": ("series.sax", {"series": {"sax": "x"}}),
    "labels a list": ("labels", {"labels": [1]}),
    "unknown label": ("labels.age", {"labels": {"age": 3}}),
    "falling": ("frame_times_ms", sax(frame_times_ms=[0, 40, 30, 50, 60])),
    "repeated": ("frame_times_ms", sax(frame_times_ms=[0, 40, 40, 50, 60])),
    "times in seconds": ("frame_times_ms.*seconds", sax(frame_times_ms=[0, 0.2, 0.4, 0.6, 0.8])),
    "in microseconds": ("frame_times_ms.*microseconds", sax(frame_times_ms=[0, 2e5, 4e5, 6e5, 8e5])),
    "times in minutes": ("frame_times_ms", sax(frame_times_ms=[0, 1e-3, 2e-3, 3e-3, 4e-3])),
    "frames as times": ("frame_times_ms", sax(frame_times_ms=[0, 1, 2, 3, 4])),
    "times a text": ("frame_times_ms", sax(frame_times_ms="0, 40")),
    "a time a text": ("frame_times_ms", sax(frame_times_ms=[0, "40", 50, 60, 70])),
    "a time nan": ("frame_times_ms", sax(frame_times_ms=[0, float("nan"), 50, 60, 70])),
    "too few times": ("frame_times_ms", sax(frame_times_ms=[0, 40])),
    "affine a number": ("affine", sax(affine=3)),
    "affine of three rows": ("affine", sax(affine=[[1, 0, 0, 0]] * 3)),
    "phase a text": ("phases.ed", sax(phases={"ed": "first"})),
    "height 0": ("height_cm", person(height_cm=0)),
    "height -1": ("height_cm", person(height_cm=-1)),
    "height in m": ("height_cm", person(height_cm=1.7)),
    "height in mm": ("height_cm", person(height_cm=1700)),
    "height nan": ("height_cm", person(height_cm=float("nan"))),
    "height inf": ("height_cm", person(height_cm=float("inf"))),
    "height 1e300": ("height_cm", person(height_cm=1e300)),
    "height a long integer": ("height_cm", '{"labels": {"demographics": {"height_cm": 1' + "0" * 400 + "}}}"),
    "height a text": ("height_cm", person(height_cm="tall")),
    "height true": ("height_cm", person(height_cm=True)),
    "weight in g": ("weight_kg", person(weight_kg=80000)),
    "age -3": ("age_years", person(age_years=-3)),
    "sex": ("sex", person(sex="x")),
    "disease": ("diseases", {"labels": {"diseases": ["FLU"]}}),
    "finding": ("findings", {"labels": {"findings": {"flu": True}}}),
    "finding a text": ("findings.lvef", {"labels": {"findings": {"lvef": "yes"}}}),
    "measurement a text": ("measurements.lvef_percent", {"labels": {"measurements": {"lvef_percent": "x"}}}),
    "lvef 155": ("lvef_percent.*plausible", labels(measurements={"lvef_percent": 155})),
    "lvef a fraction": ("lvef_percent.*55 %", labels(measurements={"lvef_percent": 0.55})),
    "lvedv -3": ("lvedv_ml.*plausible", labels(measurements={"lvedv_ml": -3})),
    "lv swapped": ("lvesv_ml.*swapped", labels(measurements={"lvedv_ml": 60, "lvesv_ml": 150})),
    "lv equal": ("lvesv_ml.*not less", labels(measurements={"lvedv_ml": 60, "lvesv_ml": 60})),
    "rv swapped": ("rvesv_ml.*swapped", labels(measurements={"rvedv_ml": 80, "rvesv_ml": 81})),
    "mass -3": ("lv_mass_g", labels(measurements={"lv_mass_g": -3})),
    "months -12": ("follow_up.months", labels(follow_up={"months": -12, "event": 1})),
    "months 1e5": ("follow_up.months", labels(follow_up={"months": 1e5, "event": 1})),
    "event 2": ("follow_up.event", labels(follow_up={"months": 12, "event": 2})),
    "event alone": ("follow_up.months", labels(follow_up={"event": 1})),
    "months alone": ("follow_up.event", labels(follow_up={"months": 3, "event": None})),
    "drawn": ("drawn.*scars", sax(drawn=["scars"])),
    "drawn a number": ("drawn.*5", sax(drawn=["scar", 5])),
    "drawn a list": ("drawn", sax(drawn=[["scar"]])),
    "levels": ("levels", sax(levels=["base", "mid", "apical"])),
    "question a text": ("questions.0", labels(questions=["why"])),
    "question without answer": ("questions.0.answer", asked(answer=None)),
    "question of 5": ("questions.0.prompt", asked(prompt=5)),
    "options a text": ("questions.0.options", asked(options="yes, no")),
    "sequences": ("questions.0.sequences", asked(sequences=["SAX"])),
    "field of a question": ("questions.0.option.*options", asked(option=["yes", "no"])),
    "patient true": ("patient_id", {"patient_id": True}),
    "patient a list": ("patient_id", {"patient_id": ["p"]}),
    "phase in capitals": ("phases.ED.*Is it ed", sax(phases={"ED": 0})),
    "phase misspelt": ("phases.end_diastole", sax(phases={"end_diastole": 0})),
    "series in capitals": ("series.SAX.*Is it sax", {"series": {"SAX": {}}}),
    "series of no file": ("series.lax", {"series": {"lax": {}}}),
    "field of a series": ("sax.frame_times.*frame_times_ms", sax(frame_times=[0, 40])),
    "measurement": ("measurements.lvef.*lvef_percent", labels(measurements={"lvef": 55})),
    "demographics": ("demographics.age.*age_years", person(age=50)),
    "pattern": ("patterns.lge", labels(patterns={"lge": "patchy"})),
    "enhancement": ("patterns.lge_pattern.*Is it mid_wall", labels(patterns={"lge_pattern": "midwall"})),
    "region": ("patterns.lge_region.*septal", labels(patterns={"lge_region": "septum"})),
    "motion": ("patterns.motion_pattern.*dyssynchrony", labels(patterns={"motion_pattern": "lax_4ch"})),
    "motion a list": ("patterns.motion_pattern", labels(patterns={"motion_pattern": ["normal"]})),
    "other pattern": ("patterns.other_pattern.*Is it mass", labels(patterns={"other_pattern": "Mass"})),
    "other pattern 0": ("patterns.other_pattern", labels(patterns={"other_pattern": 0})),
    "language": ("report.EN.*Is it en", labels(report={"EN": {"other": "x"}})),
    "section": ("report.en.findings", labels(report={"en": {"findings": "x"}})),
    "section a number": ("report.en.other", labels(report={"en": {"other": 5}})),
    "box of a structure": ("boxes_mm.LV", labels(boxes_mm={"LV": [0] * 6})),
    "height at the top": ("height_cm.*labels.demographics", {"height_cm": 180}),
    "patient misspelt": ("PatientID.*patient_id", {"PatientID": "p"}),
    "phases at the top": ("phases.*series", {"phases": {"ed": 0}}),
    "label at the top": ("lvef.*lvef_percent", {"lvef": 40}),
    "box": ("boxes_mm.lv", {"labels": {"boxes_mm": {"lv": [1, 2]}}}),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_what_cannot_be_is_refused_with_its_field(exam, kind):
    field, content = WRONG[kind]
    folder = exam(content)
    source = NiftiSource(str(folder.parent))
    for read in (lambda: read_study(folder), lambda: source.load("exam")):
        with pytest.raises(CmrvlmError, match=rf"study\.json.*{field}"):
            read()
    # A fault of one study does not stop the listing of the others.
    assert source.patient_ids() == ["exam"]


def test_what_is_null_or_not_stated_is_unknown(exam):
    for content in (
        {},
        {"labels": None, "series": None},
        person(height_cm=None, sex=None),
        sax(frame_times_ms=None, affine=None, phases=None, levels=None, drawn=None),
        {"labels": {"findings": {"lvef": None}, "measurements": {"lvef_percent": None}}},
        {"patient_id": None, "study_id": None, "synthetic": None},
        {"patient_id": " "},
        sax(phases={"es": None}, slice_places_mm=None),
        labels(boxes_mm={"lv": None}, patterns={"lge_pattern": None}, questions=None),
        labels(report={"en": None}, captions={"zh": {"sax": None}}, follow_up={"event": None}),
        {"scanner": "Aera", "notes": "x", "version": 3},
    ):
        folder = exam(content)
        for study in (read_study(folder), NiftiSource(str(folder.parent)).load("exam")):
            assert study.patient_id == "exam"
            assert study.series["sax"].phases == {}
            assert (study.labels.boxes_mm, study.labels.follow_up) == ({}, {})
            assert study.labels.demographics == {}
            assert study.labels.measurements == {}
            assert study.labels.diseases is None
            assert study.series["sax"].frame_times_ms is None


def test_what_is_stated_in_part_is_read(exam):
    folder = exam(
        {"patient_id": 7, "labels": {"diseases": ["DCM"], "demographics": {"height_cm": 171}}}
    )
    study = NiftiSource(str(folder.parent)).load("exam")
    assert study.patient_id == "7"
    assert study.labels.diseases == {"DCM"}
    assert study.labels.demographics == {"height_cm": 171.0}


@pytest.mark.parametrize(
    "lists", [{}, {"options": None}, {"options": ["yes", "no"]}, {"sequences": ["lge"]}]
)
def test_lists_of_a_question_may_be_missing(exam, lists):
    folder = exam(asked(**lists))
    (question,) = NiftiSource(str(folder.parent)).load("exam").labels.questions
    assert question.options == tuple(lists.get("options") or ())
    assert question.sequences == tuple(lists.get("sequences") or ())


def test_a_series_may_be_named_as_its_file(exam):
    folder = exam({"series": {"cine": {"frame_times_ms": [0, 40, 80, 120, 160]}}})
    (folder / "sax.nii.gz").rename(folder / "cine.nii.gz")
    assert read_study_json(folder)["series"]["cine"]["frame_times_ms"][1] == 40


def test_what_the_project_writes_passes(tmp_path, source):
    for study_id in source.study_ids()[:4]:
        study = source.load(study_id)
        write_study(study, tmp_path / study_id)
        assert read_study_json(tmp_path / study_id)["study_id"] == study_id


def test_a_link_or_a_folder_in_its_place_is_named(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "study.json").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "study.json").symlink_to(tmp_path / "nowhere")
    for name in ("a", "b"):
        with pytest.raises(CmrvlmError, match=r"study\.json.*no regular file"):
            read_study_json(tmp_path / name)


@pytest.mark.parametrize("step_ms", [10, 25, 30.5, 70, 160, 480])
def test_times_of_a_beat_or_of_a_part_of_it_are_read(exam, step_ms):
    times = [step_ms * frame for frame in range(5)]
    folder = exam(sax(frame_times_ms=times))
    assert read_study(folder).series["sax"].frame_times_ms == tuple(times)
