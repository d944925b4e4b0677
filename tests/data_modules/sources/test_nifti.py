"""NIfTI as people have it: headers of all kinds, series in one file or in one for each frame."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.files import read_study, write_nifti, write_study
from cmrvlm.study.series_files import read_nifti
from cmrvlm.study.study import Series
from cmrvlm.study.vocabulary import STRUCTURES
from data_modules.sources.masks import measure_masks
from data_modules.sources.nifti import NiftiSource

AFFINE = np.diag([1.25, 1.5, 10.0, 1.0])
SHAPE = (32, 24, 4, 25)  # x, y, z, t


def oblique():
    c, s = np.cos(0.4), np.sin(0.4)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]]
    )
    affine[:3, :3] = affine[:3, :3] @ np.diag([-1.25, 1.5, 10.0])
    affine[:3, 3] = (30.0, -20.0, 7.0)
    return affine


def plain(path, affine, header):
    header(image := nib.Nifti1Image(marker(), affine))
    nib.save(image, path)


def marker():
    data = np.zeros((12, 10, 6), np.float32)
    data[8:10, 3, 4] = 1
    return data


def qform_alone(image):
    image.set_qform(image.affine, code=1)
    image.set_sform(None, code=0)


HEADERS = {
    "acdc": (np.diag([-1.25, -1.5, 10.0, 1.0]), lambda image: None),
    "oblique": (oblique(), lambda image: image.set_qform(image.affine, code=1)),
    "qform": (oblique(), qform_alone),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_mask_lies_in_the_world_where_its_image_does(tmp_path, kind):
    """For nibabel and for ITK, which count axes and directions differently."""
    affine, header = HEADERS[kind]
    plain(tmp_path / "sax.nii.gz", affine, header)
    image, own = read_nifti(tmp_path / "sax.nii.gz")
    write_nifti(tmp_path / "mask.nii.gz", (image > 0.5).astype(np.uint8), own)
    voxel = np.argwhere(marker() > 0).mean(axis=0)
    truth = affine[:3, :3] @ voxel + affine[:3, 3]
    for name in ("sax", "mask"):
        read = nib.load(tmp_path / f"{name}.nii.gz")
        place = (
            read.affine[:3, :3] @ np.argwhere(np.asarray(read.dataobj) > 0).mean(axis=0)
            + read.affine[:3, 3]
        )
        np.testing.assert_allclose(place, truth, atol=0.01)
        other = SimpleITK.ReadImage(str(tmp_path / f"{name}.nii.gz"))
        zyx = np.argwhere(SimpleITK.GetArrayFromImage(other) > 0).mean(axis=0)
        lps = other.TransformContinuousIndexToPhysicalPoint(zyx[::-1].tolist())
        np.testing.assert_allclose(np.array(lps) * (-1, -1, 1), truth, atol=0.01)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(1, 4000, SHAPE).astype(np.int16)


def study_of(folder, **settings):
    source = NiftiSource(str(folder), **settings)
    return source.load(source.study_ids()[0])


def test_one_file_and_one_for_each_frame_are_the_same(tmp_path, image):
    (tmp_path / "a" / "one").mkdir(parents=True)
    (tmp_path / "b" / "one" / "sax").mkdir(parents=True)
    nib.save(nib.Nifti1Image(image, AFFINE), tmp_path / "a" / "one" / "sax.nii.gz")
    for t in range(SHAPE[3]):
        nib.save(
            nib.Nifti1Image(image[..., t], AFFINE),
            tmp_path / "b" / "one" / "sax" / f"frame{t}.nii.gz",
        )
    whole, frames = (study_of(tmp_path / name).series["sax"] for name in "ab")
    assert (whole.image == image.transpose(2, 3, 1, 0)).all()
    assert (whole.image == frames.image).all()
    assert (whole.affine == frames.affine).all()
    odd = image[:, :-1, :, 0]
    nib.save(nib.Nifti1Image(odd, AFFINE), tmp_path / "b" / "one" / "sax" / "frame99.nii.gz")
    with pytest.raises(CmrvlmError, match="frame99"):
        study_of(tmp_path / "b")


def test_one_slice_with_frames_and_an_axis_that_may_be_either(tmp_path, image):
    folder = tmp_path / "one"
    folder.mkdir()
    nib.save(nib.Nifti1Image(image[:, :, :1], AFFINE), folder / "sax.nii.gz")
    single = study_of(tmp_path).series["sax"]
    assert single.image.shape == (1, 25, 24, 32)
    nib.save(nib.Nifti1Image(image[:, :, 0], AFFINE), folder / "sax.nii.gz")
    with pytest.raises(CmrvlmError, match="third_axis"):
        study_of(tmp_path)
    assert (study_of(tmp_path, third_axis="t").series["sax"].image == single.image).all()
    assert study_of(tmp_path, third_axis="z").series["sax"].image.shape == (25, 1, 24, 32)
    nib.save(nib.Nifti1Image(image[..., 0], AFFINE), folder / "lge.nii.gz")
    (folder / "sax.nii.gz").unlink()
    assert study_of(tmp_path).series["lge"].image.shape == (4, 1, 24, 32)


def test_what_was_written_is_read_with_everything_that_is_known(tmp_path, study):
    sax = study.series["sax"]
    places = tuple(10.0 * k + 5.0 * (k > 1) for k in range(sax.image.shape[0]))
    study = study.with_series({**study.series, "sax": replace(sax, slice_places_mm=places)})
    write_study(study, tmp_path / study.study_id)
    back = study_of(tmp_path)
    assert back.patient_id == study.patient_id
    assert back.labels == study.labels
    for name, one in study.series.items():
        own = back.series[name]
        assert np.allclose(own.image, one.image, rtol=1e-3)
        assert (own.mask is None) == (one.mask is None)
        assert one.mask is None or (own.mask == one.mask).all()
        assert own.drawn == one.drawn
        assert (own.phases, own.levels, own.slice_places_mm) == (
            one.phases,
            one.levels,
            one.slice_places_mm,
        )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("frame_times_ms", [0.0, 30.0]),
        ("slice_places_mm", [0.0, 8.0]),
        ("levels", ["basal", "mid"]),
    ],
)
def test_metadata_of_another_image_is_refused_with_the_name_of_its_file(
    tmp_path, study, field, value
):
    write_study(study, tmp_path / study.study_id)
    path = tmp_path / study.study_id / "study.json"
    told = json.loads(path.read_text())
    told["series"]["sax"][field] = value
    path.write_text(json.dumps(told))
    readers = [lambda: study_of(tmp_path)] + [lambda: read_study(path.parent)] * (field != "levels")
    for read in readers:
        with pytest.raises(CmrvlmError, match=rf"study\.json, field '{field}': 2 "):
            read()


def test_a_mask_off_the_grid_of_its_image_is_refused_and_rounding_is_not(tmp_path, image):
    folder = tmp_path / "one"
    folder.mkdir()
    nib.save(nib.Nifti1Image(image, AFFINE), folder / "sax.nii.gz")
    mask = (image % 4).astype(np.uint8)
    for shift, fits in ((1e-6, True), (2.0, False)):
        affine = AFFINE.copy()
        affine[0, 3] += shift
        nib.save(nib.Nifti1Image(mask, affine), folder / "sax_mask.nii.gz")
        if fits:
            assert study_of(tmp_path).series["sax"].mask.max() == 3
        else:
            with pytest.raises(CmrvlmError, match=r"2\.0.*one grid|one grid.*2\.0"):
                study_of(tmp_path)
    nib.save(nib.Nifti1Image(mask.transpose(1, 0, 2, 3), AFFINE), folder / "sax_mask.nii.gz")
    with pytest.raises(CmrvlmError, match="one grid"):
        study_of(tmp_path)


def test_series_there_twice_and_folders_without_any_are_refused(tmp_path, image):
    with pytest.raises(CmrvlmError, match=r"data\.root"):
        NiftiSource(str(tmp_path))
    folder = tmp_path / "one"
    folder.mkdir()
    for name in ("sax.nii", "sax.nii.gz"):
        nib.save(nib.Nifti1Image(image, AFFINE), folder / name)
    with pytest.raises(CmrvlmError, match="twice"):
        study_of(tmp_path)


@pytest.mark.parametrize("count", [1, 2])
def test_no_volume_follows_from_one_or_two_slices(count):
    mask = np.full((count, 2, 8, 8), STRUCTURES["lv"], np.uint8)
    mask[:, 1, 4:] = 0
    one = Series(
        image=np.zeros(mask.shape, np.float32), affine=AFFINE, mask=mask, phases={"ed": 0, "es": 1}
    )
    assert measure_masks(one) == {}
