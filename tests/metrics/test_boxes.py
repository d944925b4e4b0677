import numpy as np
import pytest

from cmrvlm.metrics.boxes import box_iou, box_of
from tests.metrics.answers import cube


def test_boxes_by_hand():
    assert box_of(cube(1, 2, 3, 4, 8, 9)) == (1, 2, 3, 4, 8, 9)
    assert box_of(np.zeros((2, 3, 4), bool)) is None
    assert box_iou((0, 0, 0, 2, 2, 2), (0, 0, 0, 2, 2, 2)) == 1
    assert box_iou((0, 0, 0, 2, 2, 2), (1, 0, 0, 3, 2, 2)) == pytest.approx(4 / 12)
    assert box_iou((0, 0, 0, 1, 1, 1), (2, 2, 2, 3, 3, 3)) == 0
