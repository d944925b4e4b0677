from dataclasses import replace

import numpy as np
import pytest

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.orientation import LAYOUT, flip_slices
from cmrvlm.study.study import Series, Study
from cmrvlm.transforms.frames import SampleFrames, frames_to_keep
from cmrvlm.transforms.grid import BaseToApex, ToGrid, heart_center_voxel
from cmrvlm.transforms.intensity import PercentileIntensity
from cmrvlm.transforms.preprocessing import Preprocessing


def world_of(series, value):
    """Mean world position of the voxels that hold a mask value."""
    voxels = np.argwhere(series.mask[:, 0] == value)[:, ::-1]
    return (voxels @ series.affine[:3, :3].T + series.affine[:3, 3]).mean(axis=0)


def test_flipping_slices_moves_nothing_in_the_world(study):
    series = study.series["sax"]
    flipped = flip_slices(series)
    assert flipped.levels == series.levels[::-1]
    for value in (1, 2, 3):
        np.testing.assert_allclose(world_of(flipped, value), world_of(series, value), atol=1e-9)
    assert np.array_equal(flip_slices(flipped).image, series.image)


def test_uneven_slices_are_flipped_but_never_resampled_along_the_stack(study):
    count = study.series["sax"].image.shape[0]
    places = tuple(10.0 * k + 5.0 * (k > 1) for k in range(count))
    series = replace(study.series["sax"], slice_places_mm=places)
    assert np.allclose(flip_slices(series).slice_volumes_ml, series.slice_volumes_ml[::-1])
    uneven = study.with_series({"sax": series})
    assert ToGrid((None, 2.0, 2.0), (None, 48, 48))(uneven).series["sax"].slice_places_mm == places
    for settings in (((5.0, 2.0, 2.0), (None, 48, 48)), ((None, 2.0, 2.0), (2, 48, 48))):
        with pytest.raises(CmrvlmError, match="equally far apart"):
            ToGrid(*settings)(uneven)


def test_reversed_stack_equals_the_clean_one(study):
    upside_down = study.with_series(study.series | {"sax": flip_slices(study.series["sax"])})
    for given in (study, upside_down):
        series = BaseToApex()(given).series["sax"]
        assert np.array_equal(series.image, study.series["sax"].image)
        np.testing.assert_allclose(series.affine, study.series["sax"].affine)
        assert series.levels == study.series["sax"].levels


def test_unoriented_affine_is_left_alone():
    series = Series(
        image=np.random.default_rng(0).random((4, 1, 5, 5)), affine=np.diag([-1.0, -1, 10, 1])
    )
    assert BaseToApex()(Study("a", "a", {"sax": series})).series["sax"] is series


def test_grid_has_the_stated_spacing_and_size(study):
    moved = ToGrid((None, 3.0, 2.5), (None, 40, 44))(study)
    for name, series in moved.series.items():
        z = study.series[name].spacing_mm[0]
        assert series.spacing_mm == pytest.approx((z, 3.0, 2.5))
        assert series.image.shape[2:] == (40, 44)
        assert series.mask.shape == series.image.shape
    for value in (1, 3):
        offset = world_of(moved.series["sax"], value) - world_of(study.series["sax"], value)
        assert np.abs(offset).max() < 1.5


def test_heart_center_finds_what_moves(source):
    for study_id in source.study_ids()[:8]:
        series = source.load(study_id).series["sax"]
        _, h, w = heart_center_voxel(series.image)
        heart = np.argwhere((series.mask > 0).any(axis=(0, 1))).mean(axis=0)
        assert np.hypot(h - heart[0], w - heart[1]) * series.spacing_mm[1] < 40  # mm


def test_still_image_has_its_middle_as_centre():
    assert heart_center_voxel(np.ones((3, 2, 9, 7))) == (1, 4, 3)


def test_heart_centre_also_serves_lge(study):
    moved = ToGrid((None, 4.0, 4.0), (None, 32, 32), center="heart")(study)
    assert {series.image.shape[2:] for series in moved.series.values()} == {(32, 32)}
    assert (moved.series["lge"].mask == 1).any()


def scaled_image(step, image):
    study = Study("a", "a", {"sax": Series(image=image, affine=np.eye(4))})
    return step(study).series["sax"].image


def test_percentiles_become_zero_and_one():
    image = np.linspace(-50, 950, 1001, dtype=np.float32).reshape(1, 1, 1, -1)
    scaled = scaled_image(PercentileIntensity(10, 90), image)
    assert scaled.min() == 0
    assert scaled.max() == 1
    assert scaled[0, 0, 0, 500] == pytest.approx(0.5, abs=1e-3)


def test_constant_image_does_not_divide_by_zero():
    image = np.full((1, 1, 4, 4), 7.0, np.float32)
    assert np.isfinite(scaled_image(PercentileIntensity(), image)).all()


def test_known_phases_survive_sampling():
    keep = frames_to_keep(25, 10, {"ed": 0, "es": 11})
    assert len(keep) == 10
    assert {0, 11} <= set(keep)
    assert frames_to_keep(2, 10, {"ed": 0, "es": 1}) == [0, 1]
    assert frames_to_keep(30, 10, {}) == list(range(0, 30, 3))


@pytest.mark.parametrize("frames", [1, 4, 18, 25, 30, 50])
@pytest.mark.parametrize("limit", [2, 8, 10])
def test_any_frame_count_gives_sorted_unique_frames(frames, limit):
    phases = {"ed": 0, "es": frames // 3}
    keep = frames_to_keep(frames, limit, phases)
    assert keep == sorted(set(keep))
    assert len(keep) <= max(limit, 1)
    assert set(phases.values()) <= set(keep)
    assert max(keep) < frames


@pytest.mark.parametrize(
    ("limit", "phases"), [(1, {"ed": 0, "es": 4}), (1, {"ed": 3, "es": 0}), (1, {"ed": 8, "es": 9})]
)
def test_more_phases_than_frames_are_one_clear_error(limit, phases):
    with pytest.raises(CmrvlmError, match=r"ed and es.*frames\.frames to 2"):
        frames_to_keep(10, limit, phases)


@pytest.mark.parametrize("phases", [{}, {"ed": 4}, {"ed": 4, "es": 4}])
def test_one_frame_is_the_one_phase_that_is_known(phases):
    assert frames_to_keep(10, 1, phases) == sorted(set(phases.values()) or {0})


@pytest.mark.parametrize("frames", [0, -1])
def test_no_frame_at_all_is_refused(frames):
    with pytest.raises(CmrvlmError, match="field 'frames'"):
        SampleFrames(frames)


def test_sampling_keeps_frames_masks_times_and_phases_together(study):
    before, after = study.series["sax"], SampleFrames(3)(study).series["sax"]
    assert after.image.shape[1] == 3
    for phase, frame in after.phases.items():
        assert np.array_equal(after.image[:, frame], before.image[:, before.phases[phase]])
        assert np.array_equal(after.mask[:, frame], before.mask[:, before.phases[phase]])
        assert after.frame_times_ms[frame] == before.frame_times_ms[before.phases[phase]]


def test_preprocessing_applies_and_describes_its_steps(study):
    steps = Preprocessing(
        {"frames": SampleFrames(2), "dropped": None, "scale": PercentileIntensity()}
    )
    series = steps(study).series["sax"]
    assert series.image.shape[1] == 2
    assert series.image.max() <= 1
    assert steps.spec() == {
        "layout": LAYOUT,
        "frames": {"class": "SampleFrames", "frames": 2},
        "scale": {"class": "PercentileIntensity", "lower": 1.0, "upper": 99.0},
    }
