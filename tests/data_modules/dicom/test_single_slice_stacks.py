"""Multi-frame files that call each slice a stack of its own."""

import numpy as np
import pytest

from data_modules.dicom.stacks import stacks_of
from data_modules.dicom.volumes import series_of
from tests.data_modules.dicom.archive import Archive, enhanced
from tests.data_modules.dicom.test_odd_series import images_of
from tests.data_modules.dicom.test_phase_series import TRUTH


def frames_of(image):
    """Return content, place and trigger of each frame of a multi-frame file."""
    for group in image.PerFrameFunctionalGroupsSequence:
        yield (
            group.FrameContentSequence[0],
            group.PlanePositionSequence[0],
            group.CardiacSynchronizationSequence[0],
        )


def counted_from_one(content):
    return str(content.InStackPositionNumber)


def counted_downwards(content):
    return str(9 - content.InStackPositionNumber)


def named(content):
    return f"slice {content.InStackPositionNumber}"


@pytest.mark.parametrize("name", [counted_from_one, counted_downwards, named])
@pytest.mark.parametrize("phases", [1, 8])
def test_a_stack_for_each_slice_is_one_stack(tmp_path, name, phases):
    image = enhanced(3, phases, stacks=1)
    for content, _, trigger in frames_of(image):
        content.StackID = name(content)
        # A heart does not beat alike in every breath hold.
        trigger.NominalCardiacTriggerDelayTime *= 1 + 0.05 * content.InStackPositionNumber
        content.InStackPositionNumber = 1
    Archive(tmp_path).save(image)
    (stack,) = stacks_of(images_of(tmp_path)).stacks
    means = series_of(stack)[0].image.mean(axis=(2, 3))
    np.testing.assert_array_equal(means, TRUTH[:, :phases])


@pytest.mark.parametrize("kind", ["one place", "other times", "stacks of slices"])
def test_stacks_that_differ_in_more_than_their_place_stay_apart(tmp_path, kind):
    image = enhanced(2, 8, stacks=2 if kind == "stacks of slices" else 1)
    for content, place, trigger in frames_of(image):
        if kind != "stacks of slices":
            content.StackID = str(content.InStackPositionNumber)
        if kind == "one place":
            place.ImagePositionPatient = [0.0, 0.0, 0.0]
        if kind == "other times":
            trigger.NominalCardiacTriggerDelayTime *= content.InStackPositionNumber
    Archive(tmp_path).save(image)
    assert len(stacks_of(images_of(tmp_path)).stacks) == 2
