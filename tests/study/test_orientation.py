"""One heart stored in many orders of rows, columns and slices: one study, one answer, masks in the file's own order."""

import itertools
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff

from cmrvlm.predict import predict
from cmrvlm.runs.run_folder import load_run
from cmrvlm.stages.training import train
from cmrvlm.study.files import read_study, write_mask, write_study
from cmrvlm.study.orientation import LAYOUT, from_layout, study_to_layout, to_layout
from data_modules.sources.manifest import ManifestSource
from data_modules.sources.nifti import NiftiSource
from tests.conftest import composed
from tests.study.storing import stored_in_order

EVERY = [
    np.array(list(zip(axes, signs, strict=True)), dtype=float)
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]
IN_PLANE = [one for one in EVERY if tuple(one[2]) == (2, 1)]  # the eight orders of rows and columns
OTHERS = [one for one in EVERY if one[2, 0] == 2 and one[2, 1] < 0][:1] + [
    one for one in EVERY if one[2, 0] != 2
][::12]


def names(orientation):
    return "".join(f"{'-' if sign < 0 else '+'}{'xyz'[int(axis)]}" for axis, sign in orientation)


def canonical_first(folder, to):
    """As `nibabel.as_closest_canonical`, which many tools apply, stores the images of a folder."""
    to.mkdir(parents=True)
    for path in folder.iterdir():
        if path.name.endswith(".nii.gz"):
            nib.save(nib.as_closest_canonical(nib.load(path)), to / path.name)
        else:
            shutil.copy(path, to)
    return to


@pytest.fixture(scope="module")
def exam(tmp_path_factory, source):
    folder = tmp_path_factory.mktemp("layouts") / "exam"
    write_study(source.load(source.study_ids()[3]), folder)
    return folder


def same(one, other):
    assert set(one.series) == set(other.series)
    for name, series in one.series.items():
        twin = other.series[name]
        np.testing.assert_array_equal(series.image, twin.image)
        np.testing.assert_allclose(series.affine, twin.affine, atol=1e-4)
        assert (series.levels, series.slice_places_mm) == (twin.levels, twin.slice_places_mm)
        assert (series.mask is None) == (twin.mask is None)
        if series.mask is not None:
            np.testing.assert_array_equal(series.mask, twin.mask)


@pytest.mark.parametrize("orientation", EVERY, ids=names)
def test_every_reader_brings_every_order_to_one(exam, tmp_path, orientation):
    other = stored_in_order(exam, orientation, tmp_path / "other" / "exam")
    same(read_study(exam), read_study(other))
    same(NiftiSource(str(exam.parent)).load("exam"), NiftiSource(str(other.parent)).load("exam"))
    table = "study_id,sax,sax_mask,lge\nexam,exam/sax.nii.gz,exam/sax_mask.nii.gz,exam/lge.nii.gz\n"
    studies = []
    for folder in (exam.parent, other.parent):
        (folder / "studies.csv").write_text(table)
        studies.append(ManifestSource(str(folder / "studies.csv")).load("exam"))
    same(*studies)


@pytest.mark.parametrize("orientation", EVERY, ids=names)
def test_a_mask_comes_back_in_the_order_of_its_file(exam, tmp_path, orientation):
    other = stored_in_order(exam, orientation, tmp_path / "other")
    for name in ("sax", "lge", "lax_4ch"):
        truth = nib.load(other / f"{name}_mask.nii.gz")
        labels = NiftiSource(str(other.parent)).load("other").series[name].mask
        write_mask(tmp_path / "back.nii.gz", labels, other / f"{name}.nii.gz", name)
        back = nib.load(tmp_path / "back.nii.gz")
        np.testing.assert_array_equal(back.get_fdata(), truth.get_fdata())
        np.testing.assert_allclose(back.affine, truth.affine, atol=1e-5)


def test_slices_that_are_not_equally_far_apart_keep_their_places(tmp_path, source):
    """Places stand in study.json in the order that the files had when it was written."""
    from dataclasses import replace

    study = source.load(source.study_ids()[3])
    sax = study.series["sax"]
    assert sax.image.shape[0] == 4
    uneven = replace(
        sax, slice_places_mm=(0.0, 10.0, 19.0, 40.0), levels=("basal", "mid", "mid", "apical")
    )
    write_study(study.with_series({"sax": uneven}), tmp_path / "one" / "exam")
    for orientation in EVERY[::5]:
        other = stored_in_order(
            tmp_path / "one" / "exam", orientation, tmp_path / names(orientation) / "exam"
        )
        same(read_study(tmp_path / "one" / "exam"), read_study(other))
        same(
            NiftiSource(str(tmp_path / "one")).load("exam"),
            NiftiSource(str(other.parent)).load("exam"),
        )
        assert read_study(other).series["sax"].slice_places_mm == uneven.slice_places_mm
    back = stored_in_order(
        tmp_path / "one" / "exam", np.array([[0, 1], [1, 1], [2, -1.0]]), tmp_path / "back"
    )
    told = json.loads((back / "study.json").read_text())
    told["series"]["sax"] |= {
        "affine": nib.load(back / "sax.nii.gz").affine.tolist(),
        "slice_places_mm": [0, 21, 30, 40],
    }
    (back / "study.json").write_text(json.dumps(told))
    assert read_study(back).series["sax"].slice_places_mm == uneven.slice_places_mm


@pytest.mark.parametrize("affine", [np.diag([1.5, 1.5, 10, 1]), np.diag([-1.5, -1.4, 10, 1.0])])
def test_what_has_no_orientation_stays_as_it_is(affine):
    image = np.random.default_rng(0).random((4, 2, 6, 5))
    for sequence in ("sax", "lax_4ch", "lge"):
        moved, own = to_layout(image, affine, sequence)
        assert moved is image
        assert own is affine
        np.testing.assert_array_equal(
            from_layout(image, affine, (5, 6, 4), sequence), image.transpose(3, 2, 0, 1)
        )


def test_phantoms_are_in_the_one_layout(source):
    """Lateral wall to the right, inferior wall down, base first: told by their masks, not by their affines."""
    for study_id in source.study_ids()[:16]:
        study = source.load(study_id)
        same(study, study_to_layout(study))
        sax = study.series["sax"]
        lv, rv = (
            np.argwhere(sax.mask[:, sax.phases["ed"]] == value).mean(axis=0) for value in (1, 3)
        )
        assert lv[2] - rv[2] > 2 * abs(lv[1] - rv[1])
        known = [("basal", "mid", "apical").index(one) for one in sax.levels if one]
        assert known == sorted(known)


@pytest.fixture(scope="module")
def run(tmp_path_factory, cache):
    folder = tmp_path_factory.mktemp("layout_run") / "run"
    train(
        composed(
            "+experiment=stage3",
            "+debug=fast",
            "mix=segmentation_lge",
            "model.mask_sequences=[sax,lge]",
            "+task@mix.tasks.segment_lv=segment_lv",
            "+task@mix.tasks.segment_rv=segment_rv",
            "callbacks.samples=null",
            f"paths.cache={cache}",
            f"out={folder}",
            f"run_dir={folder}",
        ),
        folder,
    )
    return folder


def prediction(run, study, out):
    return predict(
        composed(f"run={run}", f"study={study}", f"out={out}", "max_new_tokens=24", name="predict")
    )


@pytest.fixture(scope="module")
def told(run, exam, tmp_path_factory):
    out = tmp_path_factory.mktemp("told")
    return prediction(run, exam, out), out


def check_same_answer(run, other, told, out):
    """Equal words and numbers, and masks on the files that differ nowhere once they are brought back to one order."""
    result, first = told
    assert prediction(run, other, out) == result
    for name in ("sax", "lge"):
        before, mask, image = (
            nib.load(path / file)
            for path, file in (
                (first, f"{name}_mask.nii.gz"),
                (out, f"{name}_mask.nii.gz"),
                (other, f"{name}.nii.gz"),
            )
        )
        assert mask.shape == image.shape
        np.testing.assert_allclose(mask.affine, image.affine, atol=1e-4)
        assert (
            name == "lge" or len(np.unique(before.get_fdata())) > 1
        )  # two steps of training find no scar
        one, two = (nib.as_closest_canonical(each).get_fdata() for each in (before, mask))
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    "orientation",
    [
        *IN_PLANE[1:4],
        OTHERS[0],
        *(pytest.param(one, marks=pytest.mark.slow) for one in (*IN_PLANE[4:], *OTHERS[1:])),
    ],
    ids=names,
)
def test_the_same_heart_has_the_same_answer(run, exam, told, tmp_path, orientation):
    check_same_answer(
        run, stored_in_order(exam, orientation, tmp_path / "exam"), told, tmp_path / "out"
    )


def test_the_order_that_other_tools_write_gives_the_same_answer(run, exam, told, tmp_path):
    check_same_answer(run, canonical_first(exam, tmp_path / "exam"), told, tmp_path / "out")


def test_the_layout_is_stated_and_its_lack_is_said(run, exam, told, tmp_path, caplog, real_data):
    assert told[0]["layout"] == dict.fromkeys(("sax", "lax_4ch", "lge"), LAYOUT)
    assert json.loads((run / "preprocessing.json").read_text())["layout"] == LAYOUT
    acdc = real_data / "acdc" / "training" / "patient001" / "patient001_frame01.nii.gz"
    with caplog.at_level("WARNING"):
        result = prediction(run, acdc, tmp_path / "out")
    assert "no scanner orientation" in result["layout"]["sax"]
    assert "no scanner orientation" in caplog.text
    old = shutil.copytree(run, tmp_path / "old")
    made = json.loads((old / "preprocessing.json").read_text())
    del made["layout"]
    (old / "preprocessing.json").write_text(json.dumps(made))
    # Runs of that time kept none.
    (old / "fingerprints.json").unlink()
    with caplog.at_level("WARNING"):
        load_run(old)
    assert "as files stored them" in caplog.text


@pytest.mark.parametrize("sequence", ["sax", "lax_4ch", "lge"])
def test_a_stack_that_lies_along_one_world_axis_alone_has_an_orientation(sequence):
    """Turned by 45 degrees within its planes: all orders are one."""
    turn = np.sqrt(0.5) * 1.5
    affine = np.array([[turn, -turn, 0, 5], [turn, turn, 0, -7], [0, 0, 8, 30], [0, 0, 0, 1.0]])
    image = np.random.default_rng(0).random((5, 7, 4, 2))  # (x, y, z, t)
    found = []
    for orientation in EVERY:
        stored = apply_orientation(image, orientation)
        own = affine @ inv_ornt_aff(orientation, image.shape[:3])
        found.append(to_layout(stored.transpose(2, 3, 1, 0), own, sequence)[0])
    assert all(np.array_equal(found[0], other) for other in found)


def test_quaternions_in_two_orders_place_image_and_mask_on_one_grid(exam, tmp_path):
    for index, orientation in enumerate(EVERY):
        folder = tmp_path / str(index) / "exam"
        stored_in_order(exam, orientation, folder)
        shutil.copy(exam / "sax_mask.nii.gz", folder / "sax_mask.nii.gz")
        for path in folder.glob("*.nii.gz"):
            image = nib.load(path)
            image.set_qform(image.affine, 1)
            image.set_sform(None, 0)
            nib.save(nib.Nifti1Image(np.asarray(image.dataobj), None, image.header), path)
        same(
            NiftiSource(str(folder.parent)).load("exam").with_series({}),
            read_study(exam).with_series({}),
        )
        truth = NiftiSource(str(exam.parent)).load("exam").series["sax"].mask
        np.testing.assert_array_equal(
            NiftiSource(str(folder.parent)).load("exam").series["sax"].mask, truth
        )
