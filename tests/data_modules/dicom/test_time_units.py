"""Trigger times that a tool wrote in other units than ms."""

import numpy as np
import pytest

from data_modules.dicom.stacks import stacks_of
from data_modules.dicom.volumes import frame_times_ms
from data_modules.sources.nifti import NiftiSource
from tests.data_modules.dicom.archive import Archive, clock
from tests.data_modules.dicom.test_faulty_studies import ingest
from tests.data_modules.dicom.test_odd_series import images_of


def stack_with(folder, beat_ms, factor, frames=20, slices=2):
    def change(image, s, t):
        image.TriggerTime = round(beat_ms * t / frames * factor, 4)
        image.ContentTime = clock(36000 + 900 * s + beat_ms * t / frames / 1000)

    Archive(folder).cine(slices, frames, change=change)
    (stack,) = stacks_of(images_of(folder)).stacks
    return stack


@pytest.mark.parametrize(("factor", "unit"), [(1e-3, "seconds"), (1e3, "microseconds")])
@pytest.mark.parametrize("beat_ms", [400.0, 860.0, 1800.0])
def test_a_beat_in_another_unit_is_read_in_ms(tmp_path, beat_ms, factor, unit):
    stack = stack_with(tmp_path, beat_ms, factor)
    np.testing.assert_allclose(frame_times_ms(stack)[0], beat_ms * np.arange(20) / 20, atol=0.1)
    assert f"trigger times are read as {unit}" in stack.notes


@pytest.mark.parametrize(("beat_ms", "frames"), [(400, 20), (2000, 10), (40000, 40), (600000, 30)])
def test_times_in_ms_and_those_of_slow_series_stay(tmp_path, beat_ms, frames):
    stack = stack_with(tmp_path, float(beat_ms), 1.0, frames, slices=1)
    times = [image.times["trigger_time_ms"] for image in stack.frames[0]]
    np.testing.assert_allclose(times, beat_ms * np.arange(frames) / frames, atol=0.1)
    assert not any("read as" in note for note in stack.notes)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_series_that_are_phases_are_read_in_ms(tmp_path, factor):
    archive = Archive(tmp_path)
    for phase in range(8):

        def change(image, s, t, phase=phase):
            image.TriggerTime = 50.0 * phase * factor
            image.SeriesNumber = phase + 1

        archive.cine(3, 1, series=f"1.2.3.{phase}", change=change)
    (stack,) = stacks_of(images_of(tmp_path)).stacks
    assert (stack.slices, stack.phases) == (3, 8)
    assert frame_times_ms(stack)[0] == pytest.approx(tuple(50.0 * np.arange(8)))


@pytest.mark.parametrize(
    ("step_ms", "frames", "is_known"),
    [(350.0, 8, False), (320.0, 8, False), (5.0, 8, False), (1.0, 20, False), (110.0, 20, True), (40.0, 5, True)],
)  # fmt: skip
def test_what_the_intake_writes_of_times_is_read_again(tmp_path, step_ms, frames, is_known):
    def change(image, s, t):
        image.TriggerTime = step_ms * t

    Archive(tmp_path / "in").cine(4, frames, change=change)
    # A rule takes it for a cine, whatever its times are.
    _, results = ingest(tmp_path / "in", tmp_path / "out", rules={".": "sax"})
    (study_id,) = results
    times_ms = NiftiSource(str(tmp_path / "out")).load(study_id).series["sax"].frame_times_ms
    notes = [note for decision in results[study_id].decisions for note in decision["notes"]]
    assert any("times of frames count as unknown" in note for note in notes) != is_known
    if is_known:
        assert times_ms == pytest.approx(tuple(step_ms * np.arange(frames)))
    else:
        assert times_ms is None
