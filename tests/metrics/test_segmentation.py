from dataclasses import replace

import numpy as np
import pytest

from cmrvlm.instructions.question import Region
from cmrvlm.metrics.segmentation import dice, surface_distances_mm
from cmrvlm.tasks.segmentation import DetectTask, SegmentTask
from tests.metrics.answers import answer, cube, mask_answer


def mask_scores(answers):
    return scored(SegmentTask("lv"), answers)


def box_scores(answers):
    return scored(DetectTask(), answers)


def scored(task, answers):
    """Score answers as evaluations do, which keep what is measured of a mask and not the mask."""
    return task.score(
        [replace(one, measures=task.measure(one), mask=None, truth_mask=None) for one in answers]
    )


def test_dice_by_hand_and_of_empty_masks():
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert dice(a, b) is None
    a[:2] = True
    assert dice(a, b) == 0
    b[1:3] = True
    assert dice(a, b) == pytest.approx(0.5)


def test_dice_counts_do_not_overflow():
    full = np.ones(300, bool)
    assert dice(full, full) == 1.0


def test_mask_scores_by_phase_ignore_voxels_not_annotated():
    truth = np.zeros((2, 2, 4, 4), np.uint8)
    truth[:, 0, :2] = 1
    truth[:, 1, :1] = 1
    truth[:, :, 3] = 255
    predicted = truth == 1
    predicted[:, :, 3] = True  # not annotated: counts for nothing
    predicted[:, 1] = False
    scores = mask_scores([mask_answer(predicted, truth, ("ed", "es"))])
    assert scores["dice_ed"].value == 1
    assert scores["dice_es"].value == 0
    assert scores["dice"].value == pytest.approx(2 * 16 / (16 + 24))


def test_two_empty_masks_are_undefined_and_no_mask_counts_as_empty():
    nothing = np.zeros((1, 1, 4, 4), np.uint8)
    scores = mask_scores(
        [
            mask_answer(np.zeros(nothing.shape, bool), nothing),
            mask_answer(None, np.ones_like(nothing)),
        ]
    )
    assert scores["dice"].value == 0
    assert (scores["dice"].n, scores["dice"].undefined) == (1, 1)
    assert scores["mask_share"].value == 0.5


def test_presence_has_sensitivity_and_specificity():
    """Sensitivity over those who have it, specificity over those who do not; 255 is neither."""
    there, nothing = np.ones((1, 1, 4, 4), np.uint8), np.zeros((1, 1, 4, 4), np.uint8)
    unknown = np.where(np.eye(4) > 0, 255, 0).astype(np.uint8)[None, None]
    scores = mask_scores(
        [
            mask_answer(said > 0, truth)
            for truth, said in (
                (there, there),
                (there, nothing),
                (there, there),
                (nothing, there),
                (nothing, nothing),
                (unknown, unknown),
            )
        ]
    )
    assert (scores["presence_sensitivity"].value, scores["presence_sensitivity"].n) == (
        pytest.approx(2 / 3),
        3,
    )
    assert (scores["presence_specificity"].value, scores["presence_specificity"].n) == (
        pytest.approx(2 / 3),
        3,
    )
    scores = mask_scores([mask_answer(nothing > 0, np.full_like(nothing, 255))])
    assert scores["presence_specificity"].value is None


def test_slices_of_one_mask_only_are_counted():
    """Four slices: both empty, only predicted, only true, equal."""
    truth, predicted = np.zeros((4, 1, 6, 6), np.uint8), np.zeros((4, 1, 6, 6), bool)
    truth[2:, 0, 1:3, 1:3] = 1
    predicted[1, 0, 1:3, 1:3] = predicted[3, 0, 1:3, 1:3] = True
    per_slice = [dice(predicted[k], truth[k] == 1) for k in range(4)]
    assert per_slice == [None, 0, 0, 1]
    scores = mask_scores([mask_answer(predicted, truth)])
    assert scores["false_positive_slices"].value == 1
    assert scores["missed_slices"].value == 1


def test_distances_are_in_mm_along_each_axis():
    """A cube moved by n voxels along an axis is n times the spacing away, at least at its far side."""
    truth = cube(1, 4, 4, 4, 12, 12)
    for moved, spacing, expected in (
        (cube(1, 4, 6, 4, 12, 14), (10.0, 1.5, 2.0), 4.0),
        (cube(1, 7, 4, 4, 15, 12), (10.0, 1.5, 2.0), 4.5),
    ):
        far, near = surface_distances_mm(moved, truth, spacing)
        assert far == pytest.approx(expected)
        assert 0 < near < expected
    assert surface_distances_mm(truth, truth, (8.0, 1.0, 1.0)) == (0.0, 0.0)
    flat = surface_distances_mm(
        cube(0, 4, 6, 1, 12, 14)[:1], cube(0, 4, 4, 1, 12, 12)[:1], (10.0, 1.0, 1.0)
    )
    assert flat[0] == pytest.approx(2.0)


def test_distance_to_the_next_slice_is_the_slice_distance():
    one, two = np.zeros((3, 5, 5), bool), np.zeros((3, 5, 5), bool)
    one[0, 2, 2] = two[1, 2, 2] = True
    assert surface_distances_mm(one, two, (10.0, 1.5, 1.25))[0] == pytest.approx(10.0)
    one, two = (np.zeros((1, 20, 20), bool) for _ in range(2))
    one[0, 5, 5] = True
    for shift, expected in (((0, 4), 5.0), ((4, 0), 6.0)):
        two[:] = False
        two[0, 5 + shift[0], 5 + shift[1]] = True
        assert surface_distances_mm(one, two, (10.0, 1.5, 1.25))[0] == pytest.approx(expected)


def test_distance_to_an_empty_mask_is_undefined():
    truth = np.zeros((1, 2, 8, 8), np.uint8)
    truth[0, :, 2:5, 2:5] = 1
    predicted = truth == 1
    predicted[:, 1] = False
    scores = mask_scores([mask_answer(predicted, truth, ("ed", "es"))])
    assert scores["hd95_ed_mm"].value == 0
    for name in ("hd95_es_mm", "hd95_mm", "asd_mm"):
        assert scores[name].value is None
        assert scores[name].undefined == 1
    assert scores["dice_es"].value == 0


def test_answer_without_a_box_has_an_overlap_of_zero():
    truth = cube(1, 4, 4, 4, 12, 12).astype(np.uint8)[:, None]
    target = Region("sax", "lv", (1,), (0,), ("ed",), as_box=True)
    said = [
        answer("", region=target, mask=mask, truth_mask=truth)
        for mask in (truth == 1, None, truth == 9)
    ]
    said.append(answer("", region=target, mask=truth == 1, truth_mask=np.zeros_like(truth)))
    scores = box_scores(said)
    assert scores["iou"].value == pytest.approx(1 / 3)
    assert (scores["iou"].n, scores["iou"].undefined) == (3, 1)
    assert scores["box_share"].value == 0.5


def test_boxes_ignore_voxels_not_annotated():
    truth = cube(1, 4, 4, 4, 12, 12).astype(np.uint8)[:, None]
    target = Region("sax", "lv", (1,), (0,), ("ed",), as_box=True)
    truth[:, :, :2] = 255
    drawn = (truth == 1) | (truth == 255)
    assert box_scores([answer("", region=target, mask=drawn, truth_mask=truth)])["iou"].value == 1
