"""The check finds each fault that is planted in a data set, and a sound set passes."""

import io
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from cmrvlm.check import _print_faults
from cmrvlm.study.files import write_study
from cmrvlm.study.study import Series, StudyLabels, UserQuestion
from cmrvlm.study.vocabulary import STRUCTURES
from data_modules.checking.faults import ERROR, WARNING, CheckedStudy
from data_modules.checking.run import CheckRun
from data_modules.checking.set_checks import check_set, study_counts
from data_modules.checking.study_checks import check_study
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
    """Return level and code of each fault of a study."""
    return {(fault.level, fault.code) for fault in check_study(study, **settings).faults}


def with_sax(study, **changes):
    """Return a study with changes of its short axis."""
    return study.with_series({**study.series, "sax": replace(study.series["sax"], **changes)})


def with_nan(study):
    image = np.array(study.series["sax"].image, np.float32)
    image[0, 0, 0, 0] = np.nan
    return with_sax(study, image=image)


def with_one_grey_value(study):
    return with_sax(study, image=np.zeros_like(study.series["sax"].image))


def with_dark_frame(study):
    image = np.array(study.series["sax"].image, np.float32)
    image[:, 1] = 0
    return with_sax(study, image=image)


def with_spacing_of_a_millimetre(study):
    return with_sax(study, affine=np.eye(4))


def with_skewed_axes(study):
    affine = np.array(study.series["sax"].affine)
    affine[:3, 0] += 0.3 * affine[:3, 1]
    return with_sax(study, affine=affine)


def with_unknown_mask_value(study):
    mask = np.array(study.series["sax"].mask)
    mask[0, 0, 0, 0] = 77
    return with_sax(study, mask=mask)


def with_empty_mask(study):
    return with_sax(study, mask=np.zeros_like(study.series["sax"].mask))


def with_swapped_ventricles(study):
    mask = np.array(study.series["sax"].mask)
    swapped = mask.copy()
    swapped[mask == STRUCTURES["lv"]] = STRUCTURES["rv"]
    swapped[mask == STRUCTURES["rv"]] = STRUCTURES["lv"]
    return with_sax(study, mask=swapped)


def with_gap_in_ventricle(study):
    sax = study.series["sax"]
    mask = np.array(sax.mask)
    plane = mask[len(mask) // 2, sax.phases["es"]]
    plane[plane == STRUCTURES["lv"]] = 0
    return with_sax(study, mask=mask)


def with_turned_mask(study):
    mask = np.array(study.series["sax"].mask)
    return with_sax(study, mask=np.ascontiguousarray(mask.swapaxes(2, 3)))


def with_shifted_mask(study):
    mask = np.array(study.series["sax"].mask)
    return with_sax(study, mask=np.roll(mask, 20, axis=3))


def with_uneven_slices(study):
    slices = len(study.series["sax"].image)
    return with_sax(study, slice_places_mm=tuple(10.0 * k + 5.0 * (k > 1) for k in range(slices)))


def with_swapped_phases(study):
    phases = study.series["sax"].phases
    return with_sax(study, phases={"ed": phases["es"], "es": phases["ed"]})


def with_one_slice(study):
    sax = study.series["sax"]
    image = np.array(sax.image, np.float32)[:1]
    mask = np.array(sax.mask)[:1]
    return study.with_series(
        {"sax": Series(image=image, affine=sax.affine, mask=mask, phases=sax.phases)}
    )


def test_a_sound_phantom_passes(study):
    assert kinds(study) == set()
    checked = check_study(study)
    assert CheckedStudy.from_json(json.loads(json.dumps(checked.to_json()))) == checked


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (with_nan, (ERROR, "not_finite")),
        (with_one_grey_value, (ERROR, "constant")),
        (with_dark_frame, (WARNING, "constant_frame")),
        (with_spacing_of_a_millimetre, (WARNING, "spacing")),
        (with_skewed_axes, (WARNING, "oblique")),
        (with_unknown_mask_value, (ERROR, "label_values")),
        (with_empty_mask, (WARNING, "empty_mask")),
        (with_swapped_ventricles, (WARNING, "anatomy")),
        (with_gap_in_ventricle, (WARNING, "no_volume")),
        (with_turned_mask, (WARNING, "off_image")),
        (with_shifted_mask, (WARNING, "off_image")),
        (with_uneven_slices, (WARNING, "irregular")),
        (with_swapped_phases, (ERROR, "phases")),
        (with_one_slice, (WARNING, "few_slices")),
    ],
)
def test_each_fault_of_images_and_masks_is_found(study, spoil, kind):
    assert kind in kinds(spoil(study))


def test_a_displaced_slice_is_named_and_changes_no_volume(study):
    sax = study.series["sax"]
    mask = np.array(sax.mask)
    mask[2] = np.roll(mask[2], 6, axis=-1)
    faults = check_study(with_sax(study, mask=mask)).faults
    displaced = [fault.text for fault in faults if fault.code == "displaced"]
    assert [text.split()[2] for text in displaced] == ["2"]
    assert measure_masks(replace(sax, mask=mask)) == measure_masks(sax)


def test_slices_are_displaced_where_all_frames_with_a_phase_say_so(study):
    sax = study.series["sax"]
    aside = np.array(sax.mask)
    aside[1] = np.roll(aside[1], 6, axis=-1)
    texts = {}
    for name, frames in (("both", list(sax.phases.values())), ("ed", [sax.phases["ed"]])):
        mask = np.array(sax.mask)
        mask[:, frames] = aside[:, frames]
        faults = check_study(with_sax(study, mask=mask)).faults
        texts[name] = [fault.text for fault in faults if fault.code == "displaced"]
    assert texts["ed"] == []
    (text,) = texts["both"]
    shift_mm = 6 * sax.spacing_mm[2]
    stated_mm = float(text.split("lies ")[1].split(" mm")[0])
    assert stated_mm == pytest.approx(shift_mm, abs=3)
    assert "slice 1 lies" in text
    assert "less than 5 mm" in text


@pytest.mark.parametrize(
    ("label_map", "remedy"),
    [
        (None, ""),
        ({}, "label_map is null, which reads {1: lv, 2: myo, 3: rv, 4: scar, 5: no_reflow, 6: la, 7: ra}"),
        ({1: "lv", 2: "myo"}, "label_map is set, which reads {1: lv, 2: myo}"),
    ],
)  # fmt: skip
def test_swapped_labels_ask_for_the_label_map_and_nothing_else(study, label_map, remedy):
    faults = check_study(with_swapped_ventricles(study), label_map=label_map).faults
    (text,) = [
        fault.text for fault in faults if fault.code in ("anatomy", "displaced", "off_image")
    ]
    assert text.endswith(remedy)
    assert ("label_map" in text) == (label_map is not None)


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


def test_a_leaking_prompt_and_one_that_is_too_long_are_found(untrained, study):
    data = untrained.data
    collator = untrained.collator
    checked = check_study(study, data.mixture, collator)
    assert not checked.faults
    assert 0 < checked.longest_row <= collator.max_length
    short = type(collator)(
        collator.tokenizer, collator.series_tokens, collator.view_tokens, max_length=40
    )
    assert (ERROR, "too_long") in kinds(study, mixture=data.mixture, collator=short)

    class Leaking:
        tasks = data.mixture.tasks

        def all(self, study):
            instructions = data.mixture.all(study)
            disease = next(one for one in instructions if one.task == "disease")
            name = disease.answer.rstrip(".。")
            return [replace(disease, prompt=f"A case of {name}. {disease.prompt}")]

    assert (ERROR, "leak") in kinds(study, mixture=Leaking())


def test_an_image_under_two_ids_and_a_patient_in_two_parts_are_found(study):
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
    table = study_counts([known, unknown])
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
        report = "2021年3月4日" if index == 2 else ""
        rows.append(f"s{index},s{index}/sax.nii.gz,s{index}/sax_mask.nii.gz,{report}")
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


@pytest.mark.slow  # a process that loads PyTorch
def test_the_command_exits_with_status_1_on_errors(manifest, tmp_path):
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


@pytest.mark.parametrize("text", ["[/red]", "[bold", "[link=x]a[/link]", "\\[x]"])
def test_what_a_table_says_is_printed_as_it_is(text):
    fault = {"level": ERROR, "code": "unreadable", "study": text, "text": f"{text} is no number"}
    console = Console(width=150, file=io.StringIO())
    _print_faults({"studies": 1, "verdict": "errors", "faults": [fault]}, console)
    assert console.file.getvalue().count(text) == 2


@pytest.mark.parametrize(("studies", "verdict"), [(1, "pass"), (25, "pass")])
def test_a_check_without_faults_prints_no_table(studies, verdict):
    console = Console(width=150, file=io.StringIO())
    _print_faults({"studies": studies, "verdict": verdict, "faults": []}, console)
    assert console.file.getvalue() == f"{studies} studies: {verdict}\n"


def test_a_row_of_another_study_makes_no_check_anew(tmp_path, study):
    write_study(study, tmp_path / "a")
    table = tmp_path / "studies.csv"
    digests = []
    for further in ("", "8,a/sax.nii.gz,80\n", "9,a/sax.nii.gz,\n"):
        table.write_text(f"study_id,sax,weight_kg\n7,a/sax.nii.gz,70\n{further}")
        digests.append(CheckRun(ManifestSource(str(table)), tmp_path / "out").digest("7"))
    assert len(set(digests)) == 1
    table.write_text("study_id,sax,weight_kg\n7,a/sax.nii.gz,71\n")
    assert CheckRun(ManifestSource(str(table)), tmp_path / "out").digest("7") != digests[0]


@pytest.mark.parametrize("size", [48, 64, 80])
def test_right_cavities_of_phantoms_are_no_scars_however_coarse(size):
    source = PhantomSource(count=4, size=size, slices=4, frames=4)
    for study_id in source.study_ids():
        faults = check_study(source.load(study_id)).faults
        assert not [
            fault for fault in faults if fault.code == "anatomy" and fault.text.startswith("lge")
        ]


def test_scars_of_emidec_that_are_read_as_right_cavity_are_found(real_data, tmp_path):
    folder = real_data / "emidec" / "samplePositive"
    row = [folder / part / "samplePositive.nii.gz" for part in ("Images", "Contours")]
    table = tmp_path / "studies.csv"
    table.write_text(f"study_id,lge,lge_mask\n1,{row[0]},{row[1]}\n")
    labels = {1: "lv", 2: "myo", 3: "scar", 4: "no_reflow"}
    found = {}
    for name, label_map in (("right", labels), ("none", None)):
        run = CheckRun(ManifestSource(str(table), label_map), tmp_path / name, workers=1)
        (checked,) = run.run()
        found[name] = [fault.text for fault in checked.faults if fault.code == "anatomy"]
    assert found["right"] == []
    assert "data.source.label_map is null" in found["none"][0]


def test_the_two_files_of_one_emidec_patient_are_found(real_data, tmp_path):
    run = CheckRun(EmidecSource(str(real_data / "emidec")), tmp_path, workers=1)
    content = run.finish(list(run.run()), None, "EMIDEC")
    same = [one for one in content["faults"] if one["code"] == "same_image"]
    assert len(same) == 1
    assert {same[0]["study"], same[0]["text"].split()[-1]} == {"Case_P100", "samplePositive"}
