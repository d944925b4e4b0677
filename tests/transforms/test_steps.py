from dataclasses import replace

import numpy as np
import pytest

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.orientation import LAYOUT, flip_slices
from cmrvlm.study.study import Series, Study
from cmrvlm.transforms.augment import Augment
from cmrvlm.transforms.frames import SampleFrames, frames_to_keep
from cmrvlm.transforms.grid import BaseToApex, ToGrid, heart_center_voxel
from cmrvlm.transforms.intensity import PercentileIntensity
from cmrvlm.transforms.preprocessing import Preprocessing


def world_of(series, value):
    """Mean world position of the voxels that hold a mask value."""
    voxels = np.argwhere(series.mask[:, 0] == value)[:, ::-1]
    return (voxels @ series.affine[:3, :3].T + series.affine[:3, 3]).mean(axis=0)


def test_flipping_slices_moves_nothing_in_the_world(study):
    one = study.series["sax"]
    flipped = flip_slices(one)
    assert flipped.levels == one.levels[::-1]
    for value in (1, 2, 3):
        np.testing.assert_allclose(world_of(flipped, value), world_of(one, value), atol=1e-9)
    assert np.array_equal(flip_slices(flipped).image, one.image)


def test_uneven_slices_are_turned_with_their_places_and_never_resampled_along_the_stack(study):
    count = study.series["sax"].image.shape[0]
    places = tuple(10.0 * k + 5.0 * (k > 1) for k in range(count))
    one = replace(study.series["sax"], slice_places_mm=places)
    assert np.allclose(flip_slices(one).slice_volumes_ml, one.slice_volumes_ml[::-1])
    uneven = study.with_series({"sax": one})
    assert ToGrid((None, 2.0, 2.0), (None, 48, 48))(uneven).series["sax"].slice_places_mm == places
    for settings in (((5.0, 2.0, 2.0), (None, 48, 48)), ((None, 2.0, 2.0), (2, 48, 48))):
        with pytest.raises(CmrvlmError, match="equally far apart"):
            ToGrid(*settings)(uneven)


def test_reversed_stack_equals_the_clean_one(study):
    upside_down = study.with_series(study.series | {"sax": flip_slices(study.series["sax"])})
    for given in (study, upside_down):
        one = BaseToApex()(given).series["sax"]
        assert np.array_equal(one.image, study.series["sax"].image)
        np.testing.assert_allclose(one.affine, study.series["sax"].affine)
        assert one.levels == study.series["sax"].levels


def test_unoriented_affine_is_left_alone():
    series = Series(
        image=np.random.default_rng(0).random((4, 1, 5, 5)), affine=np.diag([-1.0, -1, 10, 1])
    )
    assert BaseToApex()(Study("a", "a", {"sax": series})).series["sax"] is series


def test_grid_has_the_stated_spacing_and_size(study):
    moved = ToGrid((None, 3.0, 2.5), (None, 40, 44))(study)
    for name, one in moved.series.items():
        z = study.series[name].spacing_mm[0]
        assert one.spacing_mm == pytest.approx((z, 3.0, 2.5))
        assert one.image.shape[2:] == (40, 44)
        assert one.mask.shape == one.image.shape
    for value in (1, 3):
        offset = world_of(moved.series["sax"], value) - world_of(study.series["sax"], value)
        assert np.abs(offset).max() < 1.5


def test_heart_center_finds_what_moves(source):
    for study_id in source.study_ids()[:8]:
        one = source.load(study_id).series["sax"]
        _, h, w = heart_center_voxel(one.image)
        heart = np.argwhere((one.mask > 0).any(axis=(0, 1))).mean(axis=0)
        assert np.hypot(h - heart[0], w - heart[1]) * one.spacing_mm[1] < 40  # mm


def test_still_image_has_its_middle_as_centre():
    assert heart_center_voxel(np.ones((3, 2, 9, 7))) == (1, 4, 3)


def test_heart_centre_also_serves_lge(study):
    moved = ToGrid((None, 4.0, 4.0), (None, 32, 32), center="heart")(study)
    assert {one.image.shape[2:] for one in moved.series.values()} == {(32, 32)}
    assert (moved.series["lge"].mask == 1).any()


def test_percentiles_become_zero_and_one():
    image = np.linspace(-50, 950, 1001, dtype=np.float32).reshape(1, 1, 1, -1)
    one = (
        PercentileIntensity(10, 90)(Study("a", "a", {"sax": Series(image=image, affine=np.eye(4))}))
        .series["sax"]
        .image
    )
    assert one.min() == 0
    assert one.max() == 1
    assert one[0, 0, 0, 500] == pytest.approx(0.5, abs=1e-3)


def test_constant_image_does_not_divide_by_zero():
    image = np.full((1, 1, 4, 4), 7.0, np.float32)
    one = (
        PercentileIntensity()(Study("a", "a", {"sax": Series(image=image, affine=np.eye(4))}))
        .series["sax"]
        .image
    )
    assert np.isfinite(one).all()


def test_known_phases_survive_sampling():
    keep = frames_to_keep(25, 10, {"ed": 0, "es": 11})
    assert len(keep) == 10
    assert {0, 11} <= set(keep)
    assert frames_to_keep(2, 10, {"ed": 0, "es": 1}) == [0, 1]
    assert frames_to_keep(30, 10, {}) == list(range(0, 30, 3))


@pytest.mark.parametrize("frames", [1, 4, 18, 25, 30, 50])
@pytest.mark.parametrize("wanted", [2, 8, 10])
def test_any_frame_count_gives_sorted_unique_frames(frames, wanted):
    phases = {"ed": 0, "es": frames // 3}
    keep = frames_to_keep(frames, wanted, phases)
    assert keep == sorted(set(keep))
    assert len(keep) <= max(wanted, 1)
    assert set(phases.values()) <= set(keep)
    assert max(keep) < frames


def test_sampling_keeps_frames_masks_times_and_phases_together(study):
    before, after = study.series["sax"], SampleFrames(3)(study).series["sax"]
    assert after.image.shape[1] == 3
    for phase, frame in after.phases.items():
        assert np.array_equal(after.image[:, frame], before.image[:, before.phases[phase]])
        assert np.array_equal(after.mask[:, frame], before.mask[:, before.phases[phase]])
        assert after.frame_times_ms[frame] == before.frame_times_ms[before.phases[phase]]


def scaled(study):
    return PercentileIntensity()(study)


def test_augmentation_is_a_function_of_its_generator(study):
    one, two, other = (Augment()(scaled(study), np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one.series["sax"].image, two.series["sax"].image)
    assert not np.array_equal(one.series["sax"].image, other.series["sax"].image)


def test_masks_move_with_their_images(study):
    augment = Augment(
        rotation_degrees=25,
        shift_pixels=4,
        gamma=0,
        brightness=0,
        noise=0,
        geometry_probability=1.0,
    )
    lungs = {name: one for name, one in scaled(study).series.items() if name == "sax"}
    moved = augment(study.with_series(lungs), np.random.default_rng(3)).series["sax"]
    cavity, wall = moved.image[moved.mask == 1], moved.image[moved.mask == 2]
    assert not np.array_equal(moved.mask, study.series["sax"].mask)
    assert np.median(cavity) > 1.5 * np.median(wall)  # blood stays under the cavity's mask
    assert set(np.unique(moved.mask)) <= set(np.unique(study.series["sax"].mask))


def test_preprocessing_applies_and_describes_its_steps(study):
    steps = Preprocessing(
        {"frames": SampleFrames(2), "dropped": None, "scale": PercentileIntensity()}
    )
    one = steps(study).series["sax"]
    assert one.image.shape[1] == 2
    assert one.image.max() <= 1
    assert steps.spec() == {
        "layout": LAYOUT,
        "frames": {"class": "SampleFrames", "frames": 2},
        "scale": {"class": "PercentileIntensity", "lower": 1.0, "upper": 99.0},
    }
