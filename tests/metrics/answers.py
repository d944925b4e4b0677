"""Answers and masks for the tests of metrics."""

import numpy as np

from cmrvlm.tasks.base import Answer, Case, Instruction, MaskTarget


def answer(text, truth=None, target="", language="en", **changes):
    case = Case((), truth=truth, mask=changes.pop("target_mask", None))
    return Answer(Instruction("s", "t", language, "?", target, case), text, **changes)


def mask_answer(predicted, truth, phases=("ed",)):
    target = MaskTarget("sax", "lv", (1,), tuple(range(truth.shape[1])), phases)
    return answer(
        "", target_mask=target, mask=predicted, truth_mask=truth, spacing_mm=(10.0, 2.0, 2.0)
    )


def cube(*corners):
    mask = np.zeros((6, 20, 20), bool)
    z0, h0, w0, z1, h1, w1 = corners
    mask[z0:z1, h0:h1, w0:w1] = True
    return mask
