"""What a prediction writes about one study, and what it measures and says."""

import json
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from cmrvlm.errors import CmrvlmError
from cmrvlm.inference.label_maps import check_coding, label_map, recoded, to_native
from cmrvlm.inference.texts import sentence_of_structure
from cmrvlm.instructions.answer import Answer
from cmrvlm.instructions.question import Region
from cmrvlm.instructions.tokens import SEGMENT
from cmrvlm.metrics.segmentation import dice
from cmrvlm.predict import predict
from cmrvlm.quantification.summary import summarize_scar, summarize_ventricles
from cmrvlm.quantification.ventricles import quantify
from cmrvlm.reports.findings import findings_stated
from cmrvlm.reports.numbers import numbers_stated
from cmrvlm.runs.run_folder import load_run
from cmrvlm.stages.training import train
from cmrvlm.study.files import read_study, write_mask, write_study
from cmrvlm.study.measurements import MEASUREMENTS
from cmrvlm.study.orientation import to_layout
from cmrvlm.study.series_files import read_nifti
from cmrvlm.study.study import Series
from cmrvlm.study.vocabulary import DISEASES, STRUCTURES
from cmrvlm.tasks.segmentation import SegmentTask, absent_sentence
from cmrvlm.transforms.grid import ToGrid
from data_modules.sources.phantom.source import PhantomSource
from experiments.segmentation.data import DATA_SETS, data_of
from tests.conftest import composed
from tests.records import an_answer, an_instruction

LV = STRUCTURES["lv"]


@pytest.fixture(scope="module")
def run(stage3_run):
    return stage3_run


@pytest.fixture(scope="module")
def study_folder(tmp_path_factory, source):
    folder = tmp_path_factory.mktemp("study") / "exam"
    write_study(source.load(source.study_ids()[3]), folder)
    return folder


def prediction(run, study, out, *overrides):
    return predict(
        composed(
            f"run={run}",
            f"study={study}",
            f"out={out}",
            "max_new_tokens=12",
            *overrides,
            name="predict",
        )
    )


def test_prediction_of_a_folder(run, study_folder, tmp_path):
    result = prediction(run, study_folder, tmp_path, "ask='Is the left ventricle dilated?'")
    assert result["question"] == "Is the left ventricle dilated?"
    assert isinstance(result["answer"], str)
    assert set(result["probabilities"]) == set(DISEASES)
    assert json.loads((tmp_path / "prediction.json").read_text()) == result


def test_no_volume_is_told_of_a_single_slice(run, study_folder, tmp_path):
    sax = nib.load(study_folder / "sax.nii.gz")
    single = tmp_path / "single.nii.gz"
    nib.save(nib.Nifti1Image(np.asarray(sax.dataobj)[:, :, 1:2], sax.affine), single)
    result = prediction(run, single, tmp_path / "out")
    assert result["not_computable"]["lvef_percent"] == "insufficient slices"
    assert not {"lvef_percent", "lvedv_ml", "lvesv_ml"} & set(result["measurements"])
    assert "lvedd_mm" in result["measurements"]
    assert "not_computable" not in prediction(run, study_folder, tmp_path / "whole")


def test_masks_are_measured_and_drawn(source, tmp_path):
    study = source.load(source.study_ids()[5])
    cine = replace(study.series["sax"], phases={})
    result = summarize_ventricles(cine, {"height_cm": 180.0, "weight_kg": 80.0}, tmp_path)
    assert result["lvef_percent"] == pytest.approx(
        study.labels.measurements["lvef_percent"], abs=12
    )
    assert result["lvedv_ml_per_m2"] == pytest.approx(result["lvedv_ml"] / 2, abs=0.1)
    for name in ("wall_thickness_mm", "wall_thickness_es_mm", "wall_thickening_percent"):
        reasons = {
            key.removeprefix(f"{name}.")
            for key in result["not_computable"]
            if key.startswith(f"{name}.")
        }
        assert set(result[name]) | reasons == {str(segment) for segment in range(1, 17)}
        assert not set(result[name]) & reasons
    for cavity in ("lv", "rv"):
        curve = result["volume_curves_ml"][cavity]
        assert len(curve) == len(result["frame_times_ms"]) == cine.image.shape[1]
        assert (max(curve), min(curve)) == (result[f"{cavity}edv_ml"], result[f"{cavity}esv_ml"])
    thicker = {
        one: result["wall_thickness_es_mm"][one] > thick
        for one, thick in result["wall_thickness_mm"].items()
    }
    assert all(thicker.values())
    assert {path.name for path in tmp_path.iterdir()} == {
        "volumes.png",
        "contours.webp",
        "wall_thickness.png",
    }
    alone = replace(cine, image=cine.image[2:3], mask=cine.mask[2:3], levels=())
    late = study.series["lge"]
    scar = summarize_scar(late, ("myo", "scar"), tmp_path / "scar")
    share = np.isin(late.mask, (4, 5)).sum() / np.isin(late.mask, (2, 4, 5)).sum()
    assert scar["scar_share_percent"] == pytest.approx(100 * share, abs=0.1)
    assert (tmp_path / "scar" / "scar.png").is_file()
    for asked in (("myo",), ("scar",), ("lv", "no_reflow")):
        untold = summarize_scar(late, asked, tmp_path / "untold")
        assert set(untold) == {"not_computable"}
        assert "scar_mass_g" in untold["not_computable"]
    untold = summarize_ventricles(alone, {}, tmp_path / "alone")
    assert "1 slices" in untold["not_computable"]["lvef_percent"]
    assert set(untold["volume_curves_ml"]["lv"]) == {None}
    # No curve, for there is no volume.
    assert {path.name for path in (tmp_path / "alone").iterdir()} == {"contours.webp"}


def test_prediction_of_any_subset_and_twice_the_same(run, study_folder, tmp_path):
    lge = tmp_path / "only"
    lge.mkdir()
    (lge / "lge.nii.gz").write_bytes((study_folder / "lge.nii.gz").read_bytes())
    for study in (lge, study_folder / "sax.nii.gz"):
        one, two = (prediction(run, study, tmp_path / name) for name in ("a", "b"))
        assert one == two


def test_chinese_and_unknown_language(run, study_folder, tmp_path):
    prediction(run, study_folder, tmp_path, "language=zh")
    with pytest.raises(CmrvlmError, match="fr"):
        prediction(run, study_folder, tmp_path, "language=fr")


def test_masks_return_to_the_native_grid(run, source):
    """The truth on the model's grid, sent back, is the truth on the native grid."""
    native = source.load(source.study_ids()[5])
    study = load_run(run).preprocessing(native)
    back = to_native(study.series["sax"].mask, study, native, "sax")
    truth = native.series["sax"].mask
    assert back.shape == truth.shape
    for value in (1, 3):
        both = ((back == value) & (truth == value)).sum()
        assert 2 * both / ((back == value).sum() + (truth == value).sum()) > 0.9


def test_written_mask_lies_on_the_image(run, study_folder, tmp_path, monkeypatch):
    """With the true masks in place of the predicted ones, file and image share shape, affine and place."""
    from cmrvlm.inference import study_answering as module

    study = read_study(study_folder)
    truth = nib.load(study_folder / "sax_mask.nii.gz")
    prepared = load_run(run).preprocessing(
        study.with_series(
            {
                "sax": Series(
                    image=study.series["sax"].image,
                    affine=study.series["sax"].affine,
                    mask=truth.get_fdata().astype(np.uint8).transpose(2, 3, 1, 0),
                )
            }
        )
    )
    monkeypatch.setattr(module, "label_map", lambda answers, sequence: prepared.series["sax"].mask)
    prediction(run, study_folder, tmp_path)
    written = nib.load(tmp_path / "sax_mask.nii.gz")
    assert written.shape == truth.shape
    np.testing.assert_allclose(written.affine, truth.affine, atol=1e-5)
    same = (written.get_fdata() == truth.get_fdata()).mean()
    assert same > 0.97
    assert (tmp_path / "panel.png").stat().st_size > 1000


@pytest.mark.parametrize("patient", ["training/patient001", "testing/patient101"])
def test_a_mask_of_a_real_frame_lies_on_the_experts_and_has_their_values(
    run, real_data, tmp_path, patient
):
    """Of the second, as in the original archive, the spacing is in the header's sizes alone."""
    stem = real_data / "acdc" / patient / f"{patient.split('/')[1]}_frame01"
    prediction(run, f"{stem}.nii.gz", tmp_path, "mask_values={rv: 1, myo: 2, lv: 3}")
    written, expert = (
        nib.load(path) for path in (tmp_path / "sax_mask.nii.gz", f"{stem}_gt.nii.gz")
    )
    assert written.shape == expert.shape
    np.testing.assert_allclose(written.header.get_zooms(), expert.header.get_zooms(), atol=1e-4)
    np.testing.assert_allclose(written.affine, expert.affine, atol=1e-4)
    labels = written.get_fdata()
    assert set(np.unique(labels)) <= {0, 1, 2, 3, 255}
    near = ndimage.binary_dilation(np.isin(labels, (1, 2, 3)), np.ones((3, 3, 3)))
    assert near[
        labels == 255
    ].all()  # beside a structure that runs out of the field of view, and nowhere else


@pytest.mark.parametrize("codes", [(1, 1), (0, 1), (2, 0), (0, 0)])
def test_a_mask_has_the_place_of_its_image_and_no_more_of_its_header(tmp_path, codes):
    """By qform, sform or sizes alone, of three axes or four."""
    affine = np.array([[-1.2, 0.3, 0, 5], [0.4, 0.9, 0.2, -7], [0, -0.1, 8, 30], [0, 0, 0, 1.0]])
    for shape in ((6, 5, 4), (6, 5, 4, 1), (6, 5, 4, 3)):
        image = nib.Nifti1Image(np.zeros(shape, np.float32), affine)
        image.header.set_zooms((1.3, 1.0, 8.0, 40.0)[: len(shape)])
        image.header["descrip"] = b"Mustermann, Erika"
        image.set_qform(affine, codes[0])
        image.set_sform(affine, codes[1])
        image.header.set_slope_inter(2.0, 5.0)
        nib.save(image, tmp_path / "image.nii.gz")
        stored = np.random.default_rng(0).choice(
            [0, 1, 2, 255], (4, shape[3] if len(shape) > 3 else 1, 5, 6)
        )
        labels, _ = to_layout(stored, read_nifti(tmp_path / "image.nii.gz")[1], "sax")
        write_mask(
            tmp_path / "mask.nii.gz", labels.astype(np.uint8), tmp_path / "image.nii.gz", "sax"
        )
        one, other = (nib.load(tmp_path / f"{name}.nii.gz") for name in ("image", "mask"))
        assert other.shape == one.shape
        np.testing.assert_array_equal(other.affine, one.affine)
        assert other.header.get_zooms() == one.header.get_zooms()
        assert (other.get_sform(coded=True)[1], other.get_qform(coded=True)[1]) == codes[::-1]
        assert other.get_data_dtype() == np.uint8
        assert b"Mustermann" not in other.header.binaryblock
        np.testing.assert_array_equal(
            np.asarray(other.dataobj).reshape(6, 5, 4, -1), stored.transpose(3, 2, 0, 1)
        )


def test_dice_on_the_grid_of_the_files_is_that_on_the_model_s(real_data):
    """Of the experts' masks moved in two ways, on the grid that the experiments use, sent back: on average, and hardly
    less for each patient; the wall is a few pixels thick."""
    source = data_of(
        [*DATA_SETS["acdc"].overrides(str(real_data / "acdc" / "training")), "mix=masks"]
    ).source
    moves = []
    for patient in source.study_ids()[::4]:
        native = source.load(patient)
        study = ToGrid((None, 1.5, 1.5), (None, 128, 128), "heart")(native)
        truth, there = study.series["sax"].mask, native.series["sax"].mask
        frames = list(native.series["sax"].annotated_frames())
        for shifted in (np.roll(truth, 1, axis=3), np.roll(truth, -2, axis=2)):
            moved = to_native(shifted, study, native, "sax")
            assert set(np.unique(moved[:, frames])) == {0, 1, 2, 3}
            pairs = [
                [dice(one[:, frames] == value, other[:, frames] == value) for value in (1, 2, 3)]
                for one, other in ((shifted, truth), (moved, there))
            ]
            assert 0.4 < min(pairs[0]) < 0.98
            moves.append(np.subtract(*pairs))
    assert np.abs(np.mean(moves, axis=0)).max() < 0.005
    assert np.abs(moves).max() < 0.015


def test_a_heart_that_runs_out_of_the_field_of_view_has_no_volume(run, source):
    """On the files' own grid the rim is not annotated there, and nothing is counted; a whole heart is counted."""
    native = source.load(source.study_ids()[5])
    study = load_run(run).preprocessing(native)
    mask = study.series["sax"].mask
    lv = np.argwhere(mask == LV)
    for cut in (0, int(lv[:, 3].mean())):
        part = study.series["sax"]
        affine = part.affine.copy()
        affine[:3, 3] += affine[:3, 0] * cut
        seen = replace(part, image=part.image[..., cut:], mask=mask[..., cut:], affine=affine)
        back = to_native(seen.mask, study.with_series({"sax": seen}), native, "sax")
        found = quantify(replace(native.series["sax"], mask=back))
        assert ("lvedv_ml" in found.values) == (cut == 0)
        assert cut == 0 or "runs into what is not annotated" in found.not_computable["lvedv_ml"]


def test_masks_on_all_three_sequences(tmp_path, cache, study_folder, monkeypatch):
    """Trained, asked and measured: wall and scar on late enhancement, atria on the long axis."""
    folder = tmp_path / "run"
    tasks = [
        f"+task@mix.tasks.{name}={name}"
        for name in ("segment_lv", "segment_rv", "segment_la", "segment_ra", "segment_lv_lax_4ch")
    ]
    overrides = [
        "+experiment=stage3",
        "+debug=fast",
        "mix=segmentation_lge",
        *tasks,
        f"paths.cache={cache}",
        f"out={folder}",
        f"run_dir={folder}",
    ]
    for head, missing in (([], "lax_4ch, lge"), (["head.mask=null"], "lax_4ch, lge, sax")):
        with pytest.raises(
            CmrvlmError, match=rf"no mask decoder for {missing}, .*segment_lv_lge.*head\.mask"
        ):
            train(composed(*overrides, *head), folder)
    train(composed(*overrides, "model.mask_sequences=[sax,lax_4ch,lge]"), folder)
    result = prediction(folder, study_folder, tmp_path / "out")
    for name in ("sax", "lax_4ch", "lge"):
        written, image = (
            nib.load(path)
            for path in (tmp_path / "out" / f"{name}_mask.nii.gz", study_folder / f"{name}.nii.gz")
        )
        assert written.shape == image.shape
    found = result["from_lge_masks"]
    for name in ("scar_mass_g", "scar_share_percent"):
        assert (name in found) != (name in found["not_computable"])
    assert "the model was not asked" not in str(found)
    septum_in = []
    monkeypatch.setattr(
        "cmrvlm.inference.measuring.septum_direction",
        lambda _series, frame: septum_in.append(frame),
    )
    prediction(folder, study_folder, tmp_path / "out", "frames=[2]")
    assert septum_in == [2]


@pytest.mark.slow  # predicts thirteen times
def test_every_frame_of_a_long_cine_has_masks(run, tmp_path):
    """The model sees a few frames at a time; what it says of the first of them is kept, the others are filled in."""
    long = PhantomSource(count=16, size=48, slices=4, frames=13, spacing_mm=(3.9, 4.1))
    study = long.load(long.study_ids()[2])
    write_study(study.with_series({"sax": study.series["sax"]}), tmp_path / "study")
    masks, told, written = {}, {}, {}
    for frames in ("all", "seen", "ed_es", "[4]", "[12,1]"):
        result = prediction(run, tmp_path / "study", tmp_path / "out", f"frames={frames}")
        masks[frames] = nib.load(tmp_path / "out" / "sax_mask.nii.gz").get_fdata()
        told[frames] = result["from_masks"]["frames"]
        assert ("ed" in told[frames]) == (
            "[" not in frames
        )  # two frames that somebody chose are not ED and ES
        assert (
            "[" not in frames
            or result["from_masks"]["not_computable"]["lvef_percent"]
            == "no frame is known to be ed"
        )
        written[frames] = result.get("mask_frames")
        known = masks[frames] != 255
        assert np.array_equal(masks["all"][known], masks[frames][known])
    known = {
        name: np.flatnonzero((one != 255).any(axis=(0, 1, 2))).tolist()
        for name, one in masks.items()
    }
    assert not (masks["all"] == 255).any()
    assert 1 < len(known["seen"]) < 13
    assert (known["[4]"], known["[12,1]"]) == ([4], [1, 12])
    assert {name: one["seen"] for name, one in told.items()} == {
        "all": 13,
        "seen": len(known["seen"]),
        "ed_es": 13,
        "[4]": 1,
        "[12,1]": 2,
    }
    assert {one["of"] for one in told.values()} == {13}
    assert told["ed_es"] == told["all"]
    assert written == {
        name: None if name == "all" else {"sax": frames} for name, frames in known.items()
    }
    assert known["ed_es"] == sorted(told["all"][phase] for phase in ("ed", "es"))
    for odd in ("[13]", "[-1]", "[0.5]", "some", "[]", "null", "4", "true"):
        with pytest.raises(CmrvlmError, match=r"frames"):
            prediction(run, tmp_path / "study", tmp_path / "out", f"frames={odd}")


def test_filled_in_frames_do_not_hide_that_a_heart_ran_out_of_view(run, tmp_path, monkeypatch):
    """Later looks, which see nothing here, fill in whole frames that were not seen, and change no other."""
    from cmrvlm.inference import study_answering as module

    wide = PhantomSource(count=16, size=64, slices=4, frames=13, spacing_mm=(3.9, 4.1))
    study = wide.load(wide.study_ids()[2])
    write_study(study.with_series({"sax": study.series["sax"]}), tmp_path / "study")
    looks = []

    def labels(answers, _sequence):
        mask = np.zeros_like(answers[-1].mask, dtype=np.uint8)
        mask[:, :, 20:30, : 0 if looks else 10] = LV
        looks.append(mask.shape[1])
        return mask

    monkeypatch.setattr(module, "label_map", labels)
    result = prediction(
        run, tmp_path / "study", tmp_path / "out", "ask='Segment the left ventricle'"
    )
    written = nib.load(tmp_path / "out" / "sax_mask.nii.gz").get_fdata()
    seen = (written == LV).any(axis=(0, 1, 2))
    assert seen.sum() == looks[0] < 13
    assert len(looks) > 1
    assert np.array_equal((written == 255).any(axis=(0, 1, 2)), seen)
    assert not (written == 255).all(axis=(0, 1, 2)).any()
    assert result["from_masks"]["frames"]["seen"] == 13
    assert SEGMENT in result["answer"]
    elsewhere = prediction(
        run, tmp_path / "study", tmp_path / "out", "ask='Segment the LV on the four-chamber view'"
    )
    assert elsewhere["answer"] == "left ventricular blood pool: not assessed."


def test_what_is_found_in_later_frames_is_not_said_to_be_absent(source):
    study = source.load(source.study_ids()[3])
    for language in ("en", "zh"):
        [asked] = SegmentTask("rv").ask(study, language)
        empty = np.zeros((1, 1, 2, 2), bool)
        answer = Answer(question=asked, text=absent_sentence("rv", language), mask=empty)
        for value, text in (("rv", asked.allowed[0]), ("lv", answer.text)):
            assert (
                sentence_of_structure(answer, {"sax": np.full((1, 2, 2, 2), STRUCTURES[value])})
                == text
            )
        assert sentence_of_structure(answer, {}) == answer.text


def test_nothing_of_an_earlier_prediction_is_left(run, study_folder, tmp_path):
    prediction(run, study_folder, tmp_path)
    (tmp_path / "notes.txt").write_text("of the user")
    assert (tmp_path / "sax_mask.nii.gz").is_file()
    lge = tmp_path / "only" / "lge.nii.gz"
    lge.parent.mkdir()
    lge.write_bytes((study_folder / "lge.nii.gz").read_bytes())
    prediction(run, lge.parent, tmp_path)
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {
        "notes.txt",
        "prediction.json",
    }


def test_masks_in_another_coding():
    labels = np.array(
        [STRUCTURES[one] for one in ("background", "lv", "myo", "rv", "scar")] + [255], np.uint8
    )
    assert recoded(labels, None) is labels
    assert recoded(labels, {"rv": 1, "myo": 2, "lv": 3}).tolist() == [
        0,
        3,
        2,
        1,
        2,
        255,
    ]  # a scar is wall
    assert recoded(labels, {"lv": 1, "scar": 9}).tolist() == [0, 1, 0, 0, 9, 255]
    for odd in (
        {"atrium": 1},
        {"lv": 1, "rv": 1},
        {"lv": 255},
        {"lv": 0},
        {"lv": 1.5},
        {"lv": "x"},
    ):
        with pytest.raises(CmrvlmError, match="mask_values"):
            check_coding(odd)


@pytest.mark.slow
def test_a_question_for_three_structures_is_three_questions(run, study_folder, tmp_path):
    names = ("left ventricle", "myocardium", "right ventricle")
    each = [
        prediction(run, study_folder, tmp_path / name, f"ask='Segment the {name}'")["answer"]
        for name in names
    ]
    asked = "Please segment the left ventricle, the myocardium and the right ventricle"
    together = prediction(run, study_folder, tmp_path / "all", f"ask='{asked}'")
    assert together["answer"] == " ".join(each)
    masks = [nib.load(tmp_path / name / "sax_mask.nii.gz").get_fdata() for name in (*names, "all")]
    assert all(np.array_equal(one, masks[0]) for one in masks)


def test_a_structure_that_is_not_shown_is_said_to_be_so_and_has_no_mask(
    run, study_folder, tmp_path
):
    asked = "ask='Segment the left ventricle and the scar'"
    result = prediction(run, study_folder / "sax.nii.gz", tmp_path, asked)
    assert SEGMENT in result["answer"].split(". ")[0]
    assert SEGMENT not in result["answer"].split("scar", 1)[1]
    assert not (tmp_path / "lge_mask.nii.gz").exists()
    assert not np.isin(nib.load(tmp_path / "sax_mask.nii.gz").get_fdata(), (4, 5)).any()


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize(
    ("scar", "core", "there"),
    [
        ((6, 8), (6, 8), (False, False)),  # beside the wall
        ((1, 3), (6, 8), (True, False)),  # beside the scar
        ((1, 3), (2, 3), (True, True)),
        ((0, 0), (1, 3), (False, False)),  # no scar, and a zone without reflow in it
    ],
)
def test_what_is_said_of_a_structure_is_what_the_written_mask_shows(
    study_folder, language, scar, core, there
):
    study = read_study(study_folder)
    for spoken in (True, False):
        answers = []
        for structure, rows in (("myo", (0, 4)), ("scar", scar), ("no_reflow", core)):
            [one] = SegmentTask(structure, "lge").ask(study, language)
            mask = np.zeros(study.series["lge"].image.shape, bool)
            mask[:, :, slice(*rows)] = True
            answers.append(
                Answer(
                    question=one,
                    text=one.allowed[0] if spoken else absent_sentence(structure, language),
                    mask=mask,
                )
            )
        maps = {"lge": label_map(answers, "lge")}
        for one, shown in zip(answers[1:], there, strict=True):
            structure = one.question.region.structure
            expected = one.question.allowed[0] if shown else absent_sentence(structure, language)
            assert sentence_of_structure(one, maps) == expected


def test_no_mask_is_no_label_map():
    assert label_map([], "sax") is None


def test_a_scar_is_drawn_into_the_wall_that_was_asked_for():
    def said(structure, *places):
        mask = np.zeros((1, 1, 1, 6), bool)
        mask[..., list(places)] = True
        region = Region("lge", structure, (), (0,), (None,))
        return an_answer(an_instruction(region=region), "", mask)

    wall, scar, core, cavity = (
        said("myo", 1, 2, 3),
        said("scar", 3, 4, 5),
        said("no_reflow", 2, 3),
        said("lv", 0, 1),
    )
    names = {value: name for name, value in STRUCTURES.items()}
    drawn = [names[int(one)] for one in label_map([scar, core, wall, cavity], "lge").ravel()]
    assert drawn == ["lv", "lv", "myo", "no_reflow", "background", "background"]
    assert [names[int(one)] for one in label_map([scar], "lge").ravel()] == ["background"] * 3 + [
        "scar"
    ] * 3


def test_times_and_the_body_are_read_beside_the_images(run, study_folder, source, tmp_path):
    told, truth = read_study(study_folder), source.load(source.study_ids()[3])
    assert told.series["sax"].frame_times_ms == truth.series["sax"].frame_times_ms
    assert told.labels.demographics == truth.labels.demographics
    assert told.labels.diseases is None
    assert not told.series["sax"].phases
    result = prediction(run, study_folder, tmp_path)["from_masks"]
    assert (result["frames"]["seen"], result["frames"]["of"]) == (5, 5)


def test_an_earlier_prediction_stays_until_the_new_one_is_whole(
    run, study_folder, tmp_path, monkeypatch
):
    """A failure at any point leaves what was there, and nothing of its own."""
    out = tmp_path / "out"
    prediction(run, study_folder, out)
    (out / "notes.txt").write_text("of the user")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for name in ("study_panel", "measure_masks", "write_json"):
        with monkeypatch.context() as patched:

            def fail(*_args, **_settings):
                raise CmrvlmError("the disk is full")

            patched.setattr(f"cmrvlm.inference.prediction.{name}", fail)
            with pytest.raises(CmrvlmError, match="disk is full"):
                prediction(run, study_folder, out)
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
    in_the_way = tmp_path / "file"
    in_the_way.write_text("x")
    with pytest.raises(CmrvlmError, match="no folder"):
        prediction(run, study_folder, in_the_way)


def test_unknown_height_stays_unknown_and_a_wrong_one_is_named(run, study_folder, tmp_path):
    exam = tmp_path / "exam"
    shutil.copytree(study_folder, exam)
    told = json.loads((exam / "study.json").read_text())
    told["labels"]["demographics"] = {"height_cm": None, "weight_kg": 80}
    (exam / "study.json").write_text(json.dumps(told))
    result = prediction(run, exam, tmp_path / "out")
    assert not any(name.endswith("per_m2") for name in result["from_masks"])
    told["labels"]["demographics"]["height_cm"] = 1.7
    (exam / "study.json").write_text(json.dumps(told))
    with pytest.raises(CmrvlmError, match=r"study\.json, field 'height_cm': 1\.7"):
        prediction(run, exam, tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_frames_in_a_folder_and_a_third_axis_of_time_are_predicted(run, study_folder, tmp_path):
    whole = nib.load(study_folder / "sax.nii.gz")
    values = np.asarray(whole.dataobj)
    (tmp_path / "exam" / "sax").mkdir(parents=True)
    for frame in range(values.shape[3]):
        path = tmp_path / "exam" / "sax" / f"frame{frame}.nii.gz"
        nib.save(nib.Nifti1Image(values[..., frame], whole.affine), path)
    prediction(run, tmp_path / "exam", tmp_path / "frames")
    prediction(run, study_folder / "sax.nii.gz", tmp_path / "whole")
    masks = [
        np.asarray(nib.load(tmp_path / name / "sax_mask.nii.gz").dataobj)
        for name in ("frames", "whole")
    ]
    assert (masks[0] == masks[1]).all()
    single = tmp_path / "single.nii.gz"
    nib.save(nib.Nifti1Image(values[:, :, 1], np.diag([4.0, 4.0, 8.0, 1.0])), single)
    with pytest.raises(CmrvlmError, match="third_axis"):
        prediction(run, single, tmp_path / "single")
    prediction(run, single, tmp_path / "single", "third_axis=t")
    assert nib.load(tmp_path / "single" / "sax_mask.nii.gz").shape == values[:, :, 1].shape


@pytest.mark.parametrize("shown", ["lge", "static"])
def test_nothing_is_stated_that_the_series_cannot_show(run, study_folder, tmp_path, shown):
    exam = tmp_path / "exam"
    exam.mkdir()
    if shown == "lge":
        shutil.copy(study_folder / "lge.nii.gz", exam)
    else:
        for name in ("sax", "lax_4ch"):
            image = nib.load(study_folder / f"{name}.nii.gz")
            first = np.asarray(image.dataobj)[..., :1]
            nib.save(nib.Nifti1Image(first, image.affine), exam / f"{name}.nii.gz")
    result = prediction(run, exam, tmp_path / "out", "ask='What is the ejection fraction?'")
    assert not set(result["measurements"]) & set(MEASUREMENTS)
    assert set(result["not_computable"]) == set(MEASUREMENTS)
    for text in (result["report"], result["answer"]):
        assert not numbers_stated(text)
        assert "lvef" not in findings_stated(text)
        assert "la_diameter" not in findings_stated(text)
