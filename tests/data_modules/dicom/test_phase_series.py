"""A cine that is stored as one series for each phase is one cine; what only looks so is none."""

import numpy as np
import pytest

from data_modules.dicom.scan import files_of, scan
from data_modules.dicom.stacks import stacks_of
from data_modules.dicom.volumes import series_of
from tests.data_modules.dicom.archive import GAP_MM, TO_APEX, Archive, base_dataset, set_pixels

SLICES, PHASES = 3, 8
TRUTH = 100 + 10 * np.arange(SLICES)[:, None] + np.arange(PHASES)


def phase_series(folder, change=lambda image, s, t: None, slices=SLICES, phases=PHASES):
    """Write one series for each phase; `change` alters each image before it is written."""
    archive = Archive(folder)
    for t in range(phases):
        for s in range(slices):
            image = base_dataset(
                SeriesInstanceUID=f"1.2.3.{50 + t}",
                SeriesNumber=20 + t,
                SeriesDescription="cine sax",
                ImagePositionPatient=[float(v) for v in TO_APEX * s * GAP_MM],
                TriggerTime=12.0 + 40.0 * t,
                InstanceNumber=s + 1,
            )
            set_pixels(image, 100 + 10 * s + t)
            change(image, s, t)
            archive.save(image)
    return [image for images in scan(files_of(folder)) for image in images]


def only_times(image, s, t):
    """Take the order of series away: all have one number."""
    image.SeriesNumber = None
    image.SeriesInstanceUID = f"1.2.3.{50 + (t * 5) % PHASES}"


def only_positions_in_time(image, s, t):
    del image.TriggerTime
    image.TemporalPositionIdentifier = t + 1


def name_of(pattern, *, keep_times=False):
    """Return a change that numbers the phase in the name of the series."""

    def change(image, s, t):
        image.SpecificCharacterSet = "ISO_IR 192"
        image.SeriesDescription = pattern.format(t + 1)
        # The alphabet puts 10 before 2, and so do numbers of series that follow it.
        image.SeriesNumber = 100 - t
        if not keep_times:
            del image.TriggerTime

    return change


def other_interval_in_each_slice(image, s, t):
    image.TriggerTime = 12.0 + (36.0 + 2 * s) * t


def one_image_a_series(image, s, t):
    image.SeriesInstanceUID = f"1.2.3.{500 + 100 * s + t}"
    image.SeriesNumber = 1 + s * PHASES + t


ONE_CINE = {
    "number and time": lambda image, s, t: None,
    "time alone": only_times,
    "temporal position": only_positions_in_time,
    "SAX ph": name_of("SAX ph {}"),
    "phase of many, with times": name_of("cine_SAX_Phase{:02d}", keep_times=True),
    "Spanish": name_of("eje corto fase {}"),
    "Chinese": name_of("短轴 期相{}"),
    "heart beats of other length": other_interval_in_each_slice,
    "a series for each image": one_image_a_series,
}


@pytest.mark.parametrize("change", ONE_CINE.values(), ids=ONE_CINE)
def test_series_of_phases_are_one_cine(tmp_path, change):
    (stack,) = stacks_of(phase_series(tmp_path, change)).stacks
    series, _ = series_of(stack)
    np.testing.assert_array_equal(series.image.mean(axis=(2, 3)), TRUTH)


def test_a_cine_of_one_slice_in_series_of_phases_is_one(tmp_path):
    (stack,) = stacks_of(phase_series(tmp_path, slices=1)).stacks
    assert (stack.slices, stack.phases) == (1, PHASES)
    assert stack.time_key == "trigger_time_ms"


def test_a_slice_that_one_phase_lacks_is_filled_in_time(tmp_path):
    images = phase_series(tmp_path)
    lost = next(image for image in images if image.times["trigger_time_ms"] == 92.0)
    (stack,) = stacks_of([image for image in images if image is not lost]).stacks
    assert (stack.slices, stack.phases) == (SLICES, PHASES)
    assert list(stack.filled_frames().values()) == [[2]]


def test_of_a_stack_acquired_twice_in_series_of_phases_the_later_is_kept(tmp_path):
    def again(image, s, t):
        image.TriggerTime = 12.0 + 40.0 * (t % PHASES)

    (stack,) = stacks_of(phase_series(tmp_path, again, phases=2 * PHASES)).stacks
    assert sum("acquired 2 times" in note for note in stack.notes) == SLICES
    series, _ = series_of(stack)
    np.testing.assert_array_equal(series.image.mean(axis=(2, 3)), TRUTH + PHASES)


def same_time(image, s, t):
    image.TriggerTime = 600.0


def jitter(image, s, t):
    """Trigger delays of repeats differ by the heart's beating, not by steps of a cine."""
    image.TriggerTime = 600.0 + [0, 2.5, 40, 41, 90, 300, 302, 340][t]


def beat_after_beat(image, s, t):
    image.TriggerTime = 800.0 * t


def inversions(image, s, t):
    image.InversionTime = 100.0 + 80 * t


def one_inversion(image, s, t):
    image.InversionTime = 300.0


def echoes(image, s, t):
    image.EchoTime = 1.5 + 2.2 * t


def places(image, s, t):
    image.ImagePositionPatient = [float(v) for v in TO_APEX * (s + SLICES * t) * GAP_MM]


def between(image, s, t):
    image.ImagePositionPatient = [float(v) for v in TO_APEX * (s * GAP_MM + t)]


def unlike_names(image, s, t):
    image.SeriesDescription = f"series {'abcdefgh'[t]}"


def untimed(image, s, t):
    del image.TriggerTime


HOSTILE = (
    same_time,
    jitter,
    beat_after_beat,
    inversions,
    one_inversion,
    echoes,
    places,
    between,
    unlike_names,
    untimed,
)


@pytest.mark.parametrize("change", HOSTILE, ids=[change.__name__ for change in HOSTILE])
def test_other_series_are_not_put_together_as_phases(tmp_path, change):
    images = phase_series(tmp_path, change)
    assert all(stack.phases == 1 for stack in stacks_of(images).stacks)


def test_25_repeats_at_one_time_are_no_cine(tmp_path):
    images = phase_series(tmp_path, same_time, slices=1, phases=25)
    assert all(stack.phases == 1 for stack in stacks_of(images).stacks)
