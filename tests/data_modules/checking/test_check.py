"""Faults planted in a data set are found by the check, one by one, and a sound set passes."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from cmrvlm.study.files import write_study
from cmrvlm.study.study import Series, StudyLabels, UserQuestion
from cmrvlm.study.vocabulary import STRUCTURES
from data_modules.checking.checks import ERROR, WARNING, Checked, check_set, check_study, counts
from data_modules.checking.run import CheckRun
from data_modules.sources.emidec import EmidecSource
from data_modules.sources.manifest import ManifestSource
from data_modules.sources.masks import measure_masks
from data_modules.sources.phantom.source import PhantomSource
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def study():
    """A phantom of natural size."""
    source = PhantomSource(count=1, frames=4)
    return source.load(source.study_ids()[0])


def kinds(study, **settings):
    return {(fault.level, fault.code) for fault in check_study(study, **settings).faults}


def with_sax(study, **changes):
    return study.with_series({**study.series, "sax": replace(study.series["sax"], **changes)})


def test_a_sound_phantom_passes(study):
    assert kinds(study) == set()
    found = check_study(study)
    assert Checked.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_each_fault_of_images_and_masks_is_found(study):
    sax = study.series["sax"]
    image, mask = np.array(sax.image, np.float32), np.array(sax.mask)
    broken = image.copy()
    broken[0, 0, 0, 0] = np.nan
    assert (ERROR, "not_finite") in kinds(with_sax(study, image=broken))
    assert (ERROR, "constant") in kinds(with_sax(study, image=np.zeros_like(image)))
    dark = image.copy()
    dark[:, 1] = 0
    assert (WARNING, "constant_frame") in kinds(with_sax(study, image=dark))
    assert (WARNING, "spacing") in kinds(with_sax(study, affine=np.eye(4)))
    skewed = np.array(sax.affine)
    skewed[:3, 0] += 0.3 * skewed[:3, 1]
    assert (WARNING, "oblique") in kinds(with_sax(study, affine=skewed))
    odd = mask.copy()
    odd[0, 0, 0, 0] = 77
    assert (ERROR, "label_values") in kinds(with_sax(study, mask=odd))
    assert (WARNING, "empty_mask") in kinds(with_sax(study, mask=np.zeros_like(mask)))
    swapped = mask.copy()
    swapped[mask == STRUCTURES["lv"]], swapped[mask == STRUCTURES["rv"]] = (
        STRUCTURES["rv"],
        STRUCTURES["lv"],
    )
    assert (WARNING, "anatomy") in kinds(with_sax(study, mask=swapped))
    lost = mask.copy()
    middle = len(mask) // 2
    lost[middle, sax.phases["es"]][lost[middle, sax.phases["es"]] == STRUCTURES["lv"]] = 0
    assert (WARNING, "no_volume") in kinds(with_sax(study, mask=lost))
    aside = mask.copy()
    aside[2] = np.roll(aside[2], 6, axis=-1)
    displaced = [
        one for one in check_study(with_sax(study, mask=aside)).faults if one.code == "displaced"
    ]
    assert [one.text.split()[2] for one in displaced] == ["2"]
    assert measure_masks(replace(sax, mask=aside)) == measure_masks(sax)
    for moved in (mask.swapaxes(2, 3), np.roll(mask, 20, axis=3)):
        assert (WARNING, "off_image") in kinds(with_sax(study, mask=np.ascontiguousarray(moved)))
    places = tuple(10.0 * k + 5.0 * (k > 1) for k in range(len(mask)))
    assert (WARNING, "irregular") in kinds(with_sax(study, slice_places_mm=places))
    turned = {"ed": sax.phases["es"], "es": sax.phases["ed"]}
    assert (ERROR, "phases") in kinds(with_sax(study, phases=turned))
    single = Series(image[:1], sax.affine, None, mask[:1], sax.phases)
    assert (WARNING, "few_slices") in kinds(study.with_series({"sax": single}))


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"measurements": {"lvef_percent": 130.0}}, (WARNING, "implausible")),
        ({"measurements": {"lvedv_ml": 3.0}}, (WARNING, "implausible")),
        ({"measurements": {"lvef_percent": 84.0}}, (WARNING, "ef_gap")),
        ({"report": {"en": {"other": " "}}}, (WARNING, "empty_report")),
        ({"report": {"zh": {"other": "锟斤拷"}}}, (ERROR, "encoding")),
        ({"report": {"en": {"other": "Seen on 2021-03-04 by us."}}}, (ERROR, "identifier")),
        ({"report": {"en": {"other": "Patient ID: 8812"}}}, (ERROR, "identifier")),
        ({"report": {"zh": {"other": "姓名 张三"}}}, (ERROR, "identifier")),
        ({"report": {"zh": {"other": "电话13812345678"}}}, (ERROR, "identifier")),
    ],
)
def test_each_fault_of_labels_and_reports_is_found(study, changes, kind):
    assert kind in kinds(replace(study, labels=replace(study.labels, **changes)))


def test_a_prompt_that_tells_the_answer_and_one_that_is_too_long(parts, study):
    data, _, _, collator = parts
    found = check_study(study, data.mixture, collator)
    assert not found.faults
    assert 0 < found.longest_row <= collator.max_length
    short = type(collator)(
        collator.tokenizer, collator.series_tokens, collator.view_tokens, max_length=40
    )
    assert (ERROR, "too_long") in kinds(study, mixture=data.mixture, collator=short)

    class Leaking:
        def all(self, study):
            asked = data.mixture.all(study)
            disease = next(one for one in asked if one.task == "disease")
            name = disease.answer.rstrip(".。")
            return [replace(disease, prompt=f"A case of {name}. {disease.prompt}")]

    assert (ERROR, "leak") in kinds(study, mixture=Leaking())


def test_one_image_under_two_ids_and_one_patient_in_two_parts(study):
    one, two = check_study(study), check_study(replace(study, study_id="other"))
    three = replace(two, study="third", series={})
    faults = check_set(
        [one, two, three], {"train": [one.study], "val": [], "test": ["other", "third"]}
    )
    assert {(fault.level, fault.code) for fault in faults} == {
        (WARNING, "same_image"),
        (ERROR, "two_parts"),
    }
    assert not check_set([one], {"train": [one.study], "val": [], "test": []})


def test_counts_of_sequences_and_classes(study):
    known = check_study(study)
    unknown = check_study(replace(study, labels=StudyLabels(), series={"sax": study.series["sax"]}))
    table = counts([known, unknown])
    assert table["sequences"] == {"sax+lax_4ch+lge": 1, "sax": 1}
    assert sum(table["diseases"].values()) == 2
    assert table["diseases"]["unknown"] == 1


@pytest.fixture
def manifest(tmp_path, source):
    """Three phantoms as files; the second one's image is truncated."""
    rows = []
    for index, study_id in enumerate(source.study_ids()[:3]):
        study = source.load(study_id)
        study = replace(
            study, labels=replace(study.labels, questions=(UserQuestion("other", "en", "Q?", "A"),))
        )
        write_study(study.with_series({"sax": study.series["sax"]}), tmp_path / f"s{index}")
        rows.append(
            f"s{index},s{index}/sax.nii.gz,s{index}/sax_mask.nii.gz,{'2021年3月4日' if index == 2 else ''}"
        )
    broken = tmp_path / "s1" / "sax.nii.gz"
    broken.write_bytes(broken.read_bytes()[:2000])
    (tmp_path / "studies.csv").write_text(
        "study_id,sax,sax_mask,report_zh\n" + "\n".join(rows) + "\n"
    )
    return tmp_path / "studies.csv"


def test_a_run_is_resumed_and_its_page_holds_no_report(manifest, tmp_path, monkeypatch):
    run = CheckRun(ManifestSource(str(manifest)), tmp_path / "out", workers=1)
    content = run.finish(list(run.run()), None, "title")
    assert content["verdict"] == "errors"
    assert {
        (one["study"], one["code"]) for one in content["faults"] if one["level"] == "error"
    } == {("s1", "unreadable"), ("s2", "identifier")}
    page = (tmp_path / "out" / "check.html").read_text()
    assert page.count("data:image/png") == 2
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or "2021年".encode() not in path.read_bytes()
    monkeypatch.setattr(ManifestSource, "load", lambda *a: pytest.fail("checked again"))
    assert run.finish(list(run.run()), None, "title") == content
    monkeypatch.undo()
    sound = tmp_path / "s0" / "sax.nii.gz"
    sound.write_bytes(sound.read_bytes()[:2000])
    again = CheckRun(ManifestSource(str(manifest)), tmp_path / "out", workers=2)
    assert sum(one.faults[0].code == "unreadable" for one in again.run() if one.faults) == 2


def test_the_command_ends_with_the_status_of_what_it_found(manifest, tmp_path):
    arguments = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "cmrvlm.check",
        "data=manifest",
        f"data.path={manifest}",
        f"out={tmp_path / 'out'}",
        "check.workers=1",
    ]
    done = subprocess.run(
        arguments, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 1
    assert "unreadable" in done.stdout
    assert (tmp_path / "out" / "check.html").is_file()


def test_the_two_files_of_one_emidec_patient_are_found(real_data, tmp_path):
    run = CheckRun(EmidecSource(str(real_data / "emidec")), tmp_path, workers=1)
    content = run.finish(list(run.run()), None, "EMIDEC")
    same = [one for one in content["faults"] if one["code"] == "same_image"]
    assert len(same) == 1
    assert {same[0]["study"], same[0]["text"].split()[-1]} == {"Case_P100", "samplePositive"}
