from dataclasses import replace

import numpy as np
import pytest
import torch

from cmrvlm.config.build import build
from cmrvlm.errors import CmrvlmError
from cmrvlm.study.study import Series, Study, StudyLabels
from cmrvlm.transforms.artefacts import BiasField, Blur, Ghosting
from cmrvlm.transforms.augment import Augment, in_plane_motion
from cmrvlm.transforms.geometry import box_mm
from cmrvlm.transforms.intensity import PercentileIntensity
from cmrvlm.transforms.subject import from_subject, to_subject
from tests.conftest import composed

STILL_GREY = {"gamma": 0.0, "brightness": 0.0, "noise": 0.0}
OBLIQUE = np.array(
    [[0.0, 1.4, 3.0, 5.0], [1.8, 0.0, 0.0, -7.0], [0.0, 0.9, -7.0, 2.0], [0, 0, 0, 1]]
)


@pytest.fixture
def scaled(study):
    """Phantom with grey values in [0, 1]."""
    return PercentileIntensity()(study)


def ellipse_series(affine, shape=(3, 2, 80, 72), middle=(50.0, 30.0)):
    """Ellipse of `lv` in (H, W), the same in all frames and slices; the image shows it as 1 on 0."""
    h, w = np.mgrid[: shape[2], : shape[3]]
    inside = ((h - middle[0]) / 12) ** 2 + ((w - middle[1]) / 7) ** 2 < 1
    mask = np.broadcast_to(inside, shape).astype(np.uint8)
    return Series(image=mask.astype(np.float32), affine=affine, mask=mask, phases={"ed": 0})


def centroid_mm(weights, series):
    """Centroid of weights (H, W) along (H, W) in mm from the image's centre."""
    positions = np.indices(weights.shape).reshape(2, -1).T - (np.array(weights.shape) - 1) / 2
    return (positions * series.spacing_mm[1:]).T @ weights.ravel() / weights.sum()


@pytest.mark.parametrize("affine", [np.diag([2.0, 2.0, 8.0, 1.0]), OBLIQUE])
def test_image_and_mask_rotate_about_the_centre_in_plane(affine):
    """The centroid of a rotated and shifted ellipse is where the rotation matrix puts it, in mm."""
    series = ellipse_series(affine)
    degrees, shift = 25.0, np.array([6.0, -9.0])
    moved = from_subject(in_plane_motion(degrees, tuple(shift))(to_subject(series)), series)
    sine, cosine = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))
    # Rotation from the axis of columns (w) towards that of rows (h), written for (h, w).
    rotation = np.array([[cosine, sine], [-sine, cosine]])
    before = centroid_mm(series.mask[0, 0], series)
    expected = rotation @ before + shift
    for z, t in np.ndindex(3, 2):
        lv = moved.mask[z, t] == 1
        assert centroid_mm(lv, series) == pytest.approx(expected, abs=0.25)
        assert centroid_mm(moved.image[z, t], series) == pytest.approx(expected, abs=0.25)
        assert lv.sum() == pytest.approx(series.mask[0, 0].sum(), rel=0.03)
        # The image interpolates what the mask takes from the nearest voxel.
        assert ((moved.image[z, t] > 0.5) != lv).mean() < 0.01


def test_slices_and_frames_stay_apart():
    rng = np.random.default_rng(0)
    values = rng.integers(1, 4, (4, 3)).astype(np.uint8)
    mask = np.ones((4, 3, 40, 40), np.uint8) * values[:, :, None, None]
    series = Series(image=mask.astype(np.float32), affine=np.diag([2.0, 2.0, 8.0, 1.0]), mask=mask)
    moved = from_subject(in_plane_motion(20.0, (8.0, 4.0))(to_subject(series)), series)
    for z, t in np.ndindex(4, 3):
        assert set(np.unique(moved.mask[z, t])) == {values[z, t], 255}
        np.testing.assert_allclose(moved.image[z, t][moved.mask[z, t] != 255].max(), values[z, t])


def test_what_comes_in_from_outside_is_black_and_not_annotated():
    ones = np.ones((2, 1, 30, 30), np.uint8)
    series = Series(image=ones.astype(np.float32), affine=np.diag([2.0, 2.0, 8.0, 1.0]), mask=ones)
    moved = from_subject(in_plane_motion(0.0, (10.0, 0.0))(to_subject(series)), series)
    assert (moved.mask[:, :, :5] == 255).all()
    assert (moved.mask[:, :, 5:] == 1).all()
    assert (moved.image[:, :, :5] == 0).all()
    assert (moved.image[:, :, 5:] == 1).all()


def test_one_slice_with_one_frame_is_legal(study):
    series = study.series["lax_4ch"]
    flat = replace(
        series,
        image=series.image[:1, :1],
        mask=series.mask[:1, :1],
        frame_times_ms=None,
        phases={},
        levels=(),
    )
    moved = Augment(geometry_probability=1.0)(
        Study("a", "a", {"lax_4ch": flat}), np.random.default_rng(0)
    )
    assert moved.series["lax_4ch"].image.shape == flat.image.shape
    assert np.isfinite(moved.series["lax_4ch"].image).all()


def test_to_subject_and_back_changes_nothing(study):
    series = study.series["sax"]
    back = from_subject(to_subject(series), series)
    assert np.array_equal(back.image, series.image.astype(np.float32))
    assert np.array_equal(back.mask, series.mask)
    assert back.mask.dtype == np.uint8


@pytest.mark.parametrize("seed", range(10))
def test_no_mask_value_appears_and_not_annotated_stays(scaled, seed):
    mask = scaled.series["sax"].mask.copy()
    mask[:, 1] = 255
    series = replace(scaled.series["sax"], mask=mask)
    augment = Augment(rotation_degrees=40, shift_pixels=10, geometry_probability=1.0)
    moved = augment(scaled.with_series({"sax": series}), np.random.default_rng(seed))
    assert set(np.unique(moved.series["sax"].mask)) <= set(np.unique(mask))
    assert (moved.series["sax"].mask[:, 1] == 255).all()


def test_masks_move_with_their_images(scaled):
    augment = Augment(25, 4, **STILL_GREY, geometry_probability=1.0)
    cine = scaled.with_series({"sax": scaled.series["sax"]})
    moved = augment(cine, np.random.default_rng(3)).series["sax"]
    cavity, wall = moved.image[moved.mask == 1], moved.image[moved.mask == 2]
    assert not np.array_equal(moved.mask, scaled.series["sax"].mask)
    assert np.median(cavity) > 1.5 * np.median(wall)  # blood stays under the cavity's mask


def test_boxes_follow_the_mask():
    series = ellipse_series(OBLIQUE)
    box = box_mm(series.mask[:, 0] == 1, series.affine)
    labels = StudyLabels(boxes_mm={"lv": box, "rv": box})
    study = Study("a", "a", {"sax": series}, labels)
    moved = Augment(30, 5, geometry_probability=1.0)(study, np.random.default_rng(1))
    voxels = np.argwhere(moved.series["sax"].mask[:, 0] == 1)[:, ::-1]
    points = voxels @ OBLIQUE[:3, :3].T + OBLIQUE[:3, 3]
    expected = (*points.min(axis=0), *points.max(axis=0))
    assert set(moved.labels.boxes_mm) == {"lv"}  # the mask shows no right ventricle
    assert moved.labels.boxes_mm["lv"] == pytest.approx(expected)
    assert np.abs(np.subtract(moved.labels.boxes_mm["lv"], box)).max() > 2

    still = Augment(geometry_probability=0.0)(study, np.random.default_rng(1))
    assert still.labels.boxes_mm == labels.boxes_mm
    unknown = study.with_series({"sax": replace(series, mask=None)})
    moved = Augment(geometry_probability=1.0)(unknown, np.random.default_rng(1))
    assert moved.labels.boxes_mm == {}


def images_of(study, augment, seed):
    return [one.image for one in augment(study, np.random.default_rng(seed)).series.values()]


EVERYTHING = {
    "shading": BiasField(1.0),
    "blur": Blur(1.0),
    "left_out": None,
    "ghosts": Ghosting(1.0),
}


@pytest.mark.parametrize("extra", [None, EVERYTHING])
def test_augmentation_is_a_function_of_its_generator(scaled, extra):
    augment = Augment(geometry_probability=1.0, extra=extra)
    before = [one.image.copy() for one in scaled.series.values()]
    torch.manual_seed(1)
    first = images_of(scaled, augment, 1)
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002 - the global state is what must not matter
    again = images_of(scaled, augment, 1)
    other = images_of(scaled, augment, 2)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    assert all(
        np.array_equal(a, b.image) for a, b in zip(before, scaled.series.values(), strict=True)
    )


def test_augmentation_leaves_global_random_states_alone(scaled):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    Augment(geometry_probability=1.0, extra=EVERYTHING)(scaled, np.random.default_rng(0))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


@pytest.mark.parametrize("artefact", [BiasField(1.0), Blur(1.0), Ghosting(1.0)])
def test_artefacts_change_grey_values_of_all_frames_alike(scaled, artefact):
    series = scaled.series["sax"]
    repeated = replace(series, image=np.repeat(series.image[:, :1], series.image.shape[1], axis=1))
    augment = Augment(**STILL_GREY, geometry_probability=0.0, extra={"artefact": artefact})
    changed = augment(scaled.with_series({"sax": repeated}), np.random.default_rng(0)).series["sax"]
    assert np.abs(changed.image - repeated.image).max() > 0.01
    np.testing.assert_allclose(changed.image, changed.image[:, :1].repeat(series.image.shape[1], 1))
    assert np.array_equal(changed.mask, series.mask)


@pytest.mark.parametrize("artefact", [BiasField(0.0), Blur(0.0), Ghosting(0.0)])
def test_artefacts_of_probability_zero_change_nothing(scaled, artefact):
    augment = Augment(**STILL_GREY, geometry_probability=0.0, extra={"artefact": artefact})
    changed = augment(scaled, np.random.default_rng(0))
    for name, series in scaled.series.items():
        assert np.array_equal(changed.series[name].image, series.image)


def test_blur_is_in_plane(scaled):
    image = np.zeros((3, 1, 20, 20), np.float32)
    image[1] = scaled.series["sax"].image[0, 0, :20, :20]
    series = Series(image=image, affine=np.diag([2.0, 2.0, 8.0, 1.0]))
    augment = Augment(**STILL_GREY, geometry_probability=0.0, extra={"blur": Blur(1.0)})
    blurred = (
        augment(Study("a", "a", {"sax": series}), np.random.default_rng(0)).series["sax"].image
    )
    assert (blurred[[0, 2]] == 0).all()
    assert not np.array_equal(blurred[1], image[1])


def test_a_configuration_adds_artefacts_by_name():
    config = composed(
        "run_dir=.",
        "+transform.augmentation.extra.shading._target_=cmrvlm.transforms.artefacts.BiasField",
        "+transform.augmentation.extra.shading.coefficient=0.5",
        "+transform.augmentation.extra.ghosts._target_=cmrvlm.transforms.artefacts.Ghosting",
        "+transform.augmentation.extra.ghosts.ghosts=[3,4]",
    )["transform"]["augmentation"]
    augment = build(config, "transform.augmentation")
    assert [type(one) for one in augment.extra] == [BiasField, Ghosting]
    assert augment.extra[0].transform.coefficients_range == (-0.5, 0.5)
    config["extra"]["shading"]["coefficient"] = -1.0
    with pytest.raises(CmrvlmError, match=r"transform\.augmentation.*coefficient"):
        build(config, "transform.augmentation")
    config["extra"]["shading"] = {"_target_": "cmrvlm.transforms.frames.SampleFrames"}
    with pytest.raises(CmrvlmError, match="not what is built here"):
        build(config, "transform.augmentation")
