import dataclasses
import json

import nibabel as nib
import numpy as np
import pytest

import cmrvlm
from cmrvlm.errors import CmrvlmError
from cmrvlm.inference.cmrvlm import CMRVLM, box_mm
from cmrvlm.study.files import read_study, write_study
from cmrvlm.study.orientation import to_layout
from cmrvlm.study.vocabulary import STRUCTURES

QUESTION = "Segment the left ventricle and the myocardium."


@dataclasses.dataclass(frozen=True)
class Predicted:
    """A loaded run with what it wrote about a study."""

    model: CMRVLM
    folder: object
    content: dict
    masks: dict


@pytest.fixture(scope="module")
def exam(tmp_path_factory, source):
    folder = tmp_path_factory.mktemp("exam")
    write_study(source.load(source.study_ids()[2]), folder)
    return folder


@pytest.fixture(scope="module")
def predicted(stage3_run, exam, tmp_path_factory):
    out = tmp_path_factory.mktemp("prediction")
    model = cmrvlm.CMRVLM.from_pretrained(stage3_run, device="cpu", max_new_tokens=12)
    content = model.predict(exam, out, question=QUESTION)
    masks = {}
    for name in ("sax", "lax_4ch", "lge"):
        if (out / f"{name}_mask.nii.gz").is_file():
            image = nib.load(out / f"{name}_mask.nii.gz")
            data = np.asarray(image.dataobj)
            data = data[..., None] if data.ndim == 3 else data
            masks[name], _ = to_layout(data.transpose(2, 3, 1, 0), image.affine, name)
    return Predicted(model, out, content, masks)


def test_the_object_and_the_written_prediction_agree(predicted, exam):
    model = predicted.model
    assert json.loads((predicted.folder / "prediction.json").read_text()) == predicted.content
    report = model.report(exam)
    assert report.text == predicted.content["report"]
    assert report.sections == predicted.content["sections"]
    measured = model.measure(exam)
    assert json.loads(json.dumps(measured.from_masks)) == predicted.content["from_masks"]
    rounded = {name: round(value, 1) for name, value in measured.from_read_out.items()}
    assert rounded == predicted.content["measurements"]
    segmentation = model.segment(exam)
    assert set(segmentation.label_maps) == set(predicted.masks)
    for name, labels in segmentation.label_maps.items():
        assert np.array_equal(labels, predicted.masks[name])


def test_a_question_for_masks_is_answered_with_a_mask(predicted, exam):
    answer = predicted.model.ask(exam, QUESTION)
    assert answer.text == predicted.content["answer"]
    assert answer.sequence == "sax"
    assert np.array_equal(answer.mask, predicted.masks["sax"] == STRUCTURES["lv"])
    assert (answer.box_mm is None) == (not answer.mask.any())


def test_a_question_in_words_has_no_mask(predicted, exam):
    answer = predicted.model.ask(exam, "Is the left ventricle dilated?")
    assert answer.mask is None
    assert answer.box_mm is None
    assert len(answer.probabilities) == 16
    assert all(0 <= value <= 1 for value in answer.probabilities.values())
    assert answer.measurements["lvedv_ml"] > 0


def test_a_study_and_its_path_give_the_same(predicted, exam):
    study = read_study(exam)
    assert predicted.model.report(study).text == predicted.model.report(exam).text
    one = predicted.model.segment(study, ["lv"], frames="seen")
    other = predicted.model.segment(exam, ["lv"], frames="seen")
    assert np.array_equal(one.label_maps["sax"], other.label_maps["sax"])
    assert set(np.unique(one.label_maps["sax"])) <= {0, STRUCTURES["lv"], 255}


def test_frames_that_are_not_asked_for_are_255(predicted, exam):
    labels = predicted.model.segment(exam, frames=[1]).label_maps["sax"]
    assert (labels[:, [0, 2]] == 255).all()
    assert not (labels[:, 1] == 255).all()


def test_a_report_comes_in_chinese(predicted, exam):
    assert predicted.model.report(exam, language="zh").language == "zh"
    with pytest.raises(CmrvlmError, match="language"):
        predicted.model.report(exam, language="fr")


def test_what_cannot_be_segmented_is_named(predicted, exam):
    with pytest.raises(CmrvlmError, match="'la'"):
        predicted.model.segment(exam, ["la"])
    with pytest.raises(CmrvlmError, match="frames"):
        predicted.model.segment(exam, frames=[99])


def test_records_are_frozen(predicted, exam):
    report = predicted.model.report(exam)
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.text = "another"


def test_a_box_holds_the_voxels_in_world_coordinates():
    mask = np.zeros((3, 2, 10, 12), bool)
    mask[1, 0, 2:5, 3:9] = True
    affine = np.diag([1.5, 2.0, 10.0, 1.0])
    affine[:3, 3] = (-5.0, 7.0, 1.0)
    expected = (3 * 1.5 - 5, 2 * 2.0 + 7, 11.0, 8 * 1.5 - 5, 4 * 2.0 + 7, 11.0)
    assert box_mm(mask, affine) == pytest.approx(expected)
    assert box_mm(np.zeros_like(mask), affine) is None


def test_the_package_offers_the_object_and_nothing_else():
    assert cmrvlm.CMRVLM is CMRVLM
    with pytest.raises(AttributeError, match="nothing"):
        _ = cmrvlm.nothing
