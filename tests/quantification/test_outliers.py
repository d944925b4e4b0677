"""Frames and stroke volumes that do not fit the others."""

from dataclasses import replace

import numpy as np
import pytest

from cmrvlm.quantification.outliers import notes_on_stroke_volumes, outlier_frames
from cmrvlm.quantification.summary import summarize_ventricles
from cmrvlm.quantification.ventricles import quantify
from cmrvlm.quantification.volumes import phases_of_masks
from cmrvlm.study.vocabulary import STRUCTURES
from data_modules.sources.phantom.source import PhantomSource


def cycle(frames, ejection=0.5, end_systole=0.35):
    """A volume curve of steep ejection and two-step filling, as in a healthy heart."""
    phase = np.arange(frames) / frames
    knots = (0, end_systole * 0.5, end_systole, end_systole + 0.15, 0.75, 1)
    heights = (1, 1 - 0.6 * ejection, 1 - ejection, 1 - 0.35 * ejection, 1 - 0.2 * ejection, 1)
    return 150 * np.interp(phase, knots, heights)


@pytest.mark.parametrize("frames", [8, 10, 12, 20, 25, 30])
@pytest.mark.parametrize("ejection", [0.2, 0.5, 0.7])
def test_a_healthy_or_failing_heart_has_no_outlier(frames, ejection):
    rng = np.random.default_rng(0)
    for end_systole in (0.3, 0.35, 0.4):
        curve = cycle(frames, ejection, end_systole)
        assert outlier_frames(curve + rng.normal(0, 0.5, frames)) == {}


@pytest.mark.parametrize("frames", [10, 12, 25, 30])
def test_a_frame_that_lost_a_third_is_found_wherever_it_is(frames):
    for lost in range(frames):
        curve = cycle(frames)
        curve[lost] *= 0.66
        lacking = np.where(np.arange(frames) == lost, 3, 0)
        found = outlier_frames(curve, lacking)
        assert set(found) == {lost}
        assert found[lost] < 0


def test_a_cine_that_ends_before_the_cycle_does_has_no_outlier():
    for kept in (0.7, 0.8, 0.9):
        curve = cycle(30)[: int(30 * kept)]
        assert outlier_frames(curve) == {}


def test_few_or_unknown_frames_are_not_judged():
    assert outlier_frames(np.array([150.0, 70.0])) == {}
    assert outlier_frames(np.array([150.0, 20.0, 140.0, 150.0, 150.0])) == {}
    curve = np.full(25, np.nan)
    curve[[0, 8]] = 150, 60
    assert outlier_frames(curve) == {}


@pytest.fixture(scope="module")
def beating():
    source = PhantomSource(count=6, seed=3, size=64, slices=10, frames=10, spacing_mm=(3.0, 3.0))
    return replace(source.load(source.study_ids()[5]).series["sax"], phases={})


@pytest.mark.parametrize("lost", [2, 6, 8])
def test_a_frame_without_its_basal_slices_is_neither_ed_nor_es(beating, lost):
    sound = quantify(beating)
    mask = beating.mask.copy()
    shown = (mask == STRUCTURES["lv"]).any(axis=(2, 3))
    slices = np.flatnonzero(shown[:, lost - 1] & shown[:, lost] & shown[:, lost + 1])[:3]
    mask[: slices[-1] + 1, lost] = 0
    damaged = replace(beating, mask=mask)
    found = quantify(damaged)
    assert lost not in found.phases.values()
    assert phases_of_masks(damaged) == found.phases
    assert found.values["lvef_percent"] == pytest.approx(sound.values["lvef_percent"], abs=4)
    [note] = [note for note in summarize_ventricles(damaged, {})["notes"] if "frame" in note]
    assert note.startswith(f"frame {lost} ")
    assert f"lacks slices {', '.join(map(str, slices))}" in note
    assert not any("frame" in note for note in sound.notes)


def test_stroke_volumes_are_compared():
    for left, right, differs in ((80, 78, False), (80, 65, False), (80, 50, True), (40, 90, True)):
        notes = notes_on_stroke_volumes({"lvsv_ml": float(left), "rvsv_ml": float(right)})
        assert bool(notes) == differs
        assert not differs or f"LV {left} ml, RV {right} ml" in notes[0]
    assert notes_on_stroke_volumes({"lvsv_ml": 80.0}) == []
    assert notes_on_stroke_volumes({"lvsv_ml": 0.0, "rvsv_ml": 0.0}) == []
