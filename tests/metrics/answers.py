"""Answers and masks for the tests of metrics."""

import numpy as np

from cmrvlm.instructions.question import Region
from tests.records import an_answer, an_instruction


def answer(text, truth=None, target="", language="en", **changes):
    region = changes.pop("region", None)
    instruction = an_instruction(language=language, answer=target, truth=truth, region=region)
    return an_answer(instruction, text, **changes)


def mask_answer(predicted, truth, phases=("ed",)):
    target = Region("sax", "lv", (1,), tuple(range(truth.shape[1])), phases)
    return answer("", region=target, mask=predicted, truth_mask=truth, spacing_mm=(10.0, 2.0, 2.0))


def cube(*corners):
    mask = np.zeros((6, 20, 20), bool)
    z0, h0, w0, z1, h1, w1 = corners
    mask[z0:z1, h0:h1, w0:w1] = True
    return mask
