"""Slices and whole series that were acquired twice, as scanners and operators leave them."""

import numpy as np
import pytest

from data_modules.dicom.stacks import stacks_of
from data_modules.dicom.volumes import series_of
from tests.data_modules.dicom.archive import Archive, clock
from tests.data_modules.dicom.test_odd_series import images_of
from tests.data_modules.dicom.test_phase_series import TRUTH

FRAMES = 8
# Grey values of the later of two acquisitions lie by so much above those of the first.
LATER = 400


def by_number(image, s, t, again):
    image.AcquisitionTime = image.ContentTime = clock(36000 + 600 * again)


def by_pause(image, s, t, again):
    del image.AcquisitionNumber
    image.AcquisitionTime = clock(36000 + 600 * again + 10 * s)
    image.ContentTime = clock(36000 + 600 * again + 10 * s + 0.03 * t)


def by_trigger(image, s, t, again):
    del image.AcquisitionNumber
    del image.AcquisitionTime
    del image.ContentTime


def counted(image, s, t, again):
    by_pause(image, s, t, again)
    image.AcquisitionNumber = image.InstanceNumber


def without_triggers(image, s, t, again):
    by_pause(image, s, t, again)
    del image.TriggerTime


def by_temporal_position(image, s, t, again):
    by_trigger(image, s, t, again)
    del image.TriggerTime
    image.TemporalPositionIdentifier = t + 1


def acquired_twice(folder, slices, change):
    """Write a cine twice into one series, the second time of a heart that beats more slowly."""
    archive = Archive(folder)
    for again in range(2):

        def alter(image, s, t, again=again):
            image.TriggerTime = round((30.0 + 2.25 * again) * t, 2)
            image.InstanceNumber += again * slices * FRAMES
            image.AcquisitionNumber = 1 + again
            change(image, s, t, again)

        archive.cine(slices, FRAMES, offset=LATER * again, change=alter)
    return images_of(folder)


@pytest.mark.parametrize("slices", [1, 3])
@pytest.mark.parametrize("keep", ["later", "first"])
@pytest.mark.parametrize(
    "change",
    [by_number, by_pause, by_trigger, counted, without_triggers, by_temporal_position],
)
def test_a_series_that_was_acquired_twice_is_one_beat(tmp_path, slices, keep, change):
    (stack,) = stacks_of(acquired_twice(tmp_path, slices, change), keep).stacks
    assert (stack.slices, stack.phases) == (slices, FRAMES)
    expected = TRUTH[:slices] + LATER * (keep == "later")
    np.testing.assert_array_equal(series_of(stack)[0].image.mean(axis=(2, 3)), expected)
    assert f"slice 0 was acquired 2 times, the {keep} one is kept" in stack.notes


def halves(image, s, t):
    image.AcquisitionNumber = 1 + t // (FRAMES // 2)
    image.AcquisitionTime = clock(36000 + 60 * (t // (FRAMES // 2)))


def alternating(image, s, t):
    image.AcquisitionNumber = 1 + t % 2


def from_the_middle(image, s, t):
    image.InstanceNumber = 1 + (t + FRAMES // 2) % FRAMES


@pytest.mark.parametrize("change", [halves, alternating, from_the_middle])
@pytest.mark.parametrize("frames", [FRAMES, 2 * FRAMES])
def test_parts_of_one_beat_are_no_repeats(tmp_path, change, frames):
    Archive(tmp_path).cine(2, frames, change=change)
    (stack,) = stacks_of(images_of(tmp_path)).stacks
    assert stack.phases == frames
    assert not any("acquired" in note for note in stack.notes)


def test_a_few_images_at_one_place_are_left_as_they_are(tmp_path):
    for count in (1, 3, 5):
        images = images_of(Archive(tmp_path / str(count)).cine(1, count).folder)
        assert [len(stack.images) for stack in stacks_of(images).stacks] == [count]


def numbered_first(image, s, t):
    image.AcquisitionNumber = 1


def numbered(image, s, t):
    image.AcquisitionNumber = 2


def without_acquisition(image, s, t):
    for name in ("AcquisitionNumber", "AcquisitionTime", "ContentTime"):
        delattr(image, name)


def other_beat(image, s, t):
    numbered(image, s, t)
    image.TriggerTime = 32.25 * t


@pytest.mark.parametrize("off_mm", [0.4, -0.3, 1.5])
@pytest.mark.parametrize("frames", [1, FRAMES])
@pytest.mark.parametrize("change", [numbered, without_acquisition, other_beat])
def test_a_repeat_that_lies_a_little_off_replaces_its_slice(tmp_path, off_mm, frames, change):
    first = change if change is without_acquisition else numbered_first
    archive = Archive(tmp_path).cine(4, frames, position=lambda index: 8.0 * index, change=first)

    def alter(image, s, t):
        image.InstanceNumber += 100
        change(image, s, t)

    archive.cine(
        1,
        frames,
        offset=LATER,
        position=lambda index: 16 + off_mm,
        change=alter,
        start_s=37000.0,
    )
    (stack,) = stacks_of(images_of(tmp_path)).stacks
    assert (stack.slices, stack.phases) == (4, frames)
    assert "slice 2 was acquired 2 times, the later one is kept" in stack.notes
    expected = np.vstack([TRUTH[:2], TRUTH[:1] + LATER, TRUTH[2:] + 10])[:, :frames]
    np.testing.assert_array_equal(series_of(stack)[0].image.mean(axis=(2, 3)), expected)
    assert stack.slice_positions_mm()[2] == pytest.approx(16 + off_mm, abs=0.01)


def test_a_whole_stack_that_is_repeated_a_little_off_replaces_the_first(tmp_path):
    archive = Archive(tmp_path)
    for again in range(2):
        archive.cine(
            3,
            FRAMES,
            offset=LATER * again,
            position=lambda index, again=again: 8.0 * index + 0.4 * again,
            start_s=36000.0 + 600 * again,
        )
    (stack,) = stacks_of(images_of(tmp_path)).stacks
    assert (stack.slices, stack.phases) == (3, FRAMES)
    np.testing.assert_array_equal(series_of(stack)[0].image.mean(axis=(2, 3)), TRUTH + LATER)


@pytest.mark.parametrize("gaps_mm", [(1.0,) * 5, (0.5,) * 5, (8, 8, 4, 8, 8), (1.0, 1.0, 10.0)])
def test_slices_that_lie_close_by_plan_are_kept(tmp_path, gaps_mm):
    places_mm = np.concatenate([[0.0], np.cumsum(gaps_mm)])

    def thin(image, s, t):
        image.SliceThickness = min(gaps_mm)

    Archive(tmp_path).cine(len(places_mm), 6, position=lambda index: places_mm[index], change=thin)
    (stack,) = stacks_of(images_of(tmp_path)).stacks
    np.testing.assert_allclose(stack.slice_positions_mm(), places_mm, atol=0.01)
