"""Compare losses, gradients, answers and masks on the device with those on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cmrvlm.inference.answering import answer_batch
from cmrvlm.instructions.answer import AnswerWithTruth
from cmrvlm.instructions.batch import Batch
from experiments.gpu.bench import Bench, Case, Row, largest, relative_difference
from experiments.gpu.setups import SMALLEST, Setup, configured, set_up

_ENCODERS = {
    "swin": [],
    "conv": ["encoder@encoders.sax=conv"],
    "unet": ["encoder@encoders.sax=unet", "projector=mlp"],
}
# Float32 with and without the tensor cores' short products, and mixed precision.
_PRECISIONS = ("float32", "tf32", "bfloat16")
_NEW_TOKENS = 16
# Share by which float32 may differ; sums are in another order.
TOLERANCE = 1e-3


def agreement(bench: Bench) -> Iterator[Case]:
    """Yield a case for each kind of encoder and precision."""
    names = ["swin"] if bench.small else list(_ENCODERS)
    size = SMALLEST if bench.small else ["+debug=fast"]
    for name in names:
        setup = set_up(configured(bench, [*size, *_ENCODERS[name]]))
        batch = setup.batch()
        expected = _Outcome.of(setup, batch, bench=None, precision="float32")
        for precision in _PRECISIONS:
            work = partial(_compare, bench, setup, batch, expected, precision)
            yield Case(f"{name}, {precision}", work)


class _Outcome:
    """What a model gives for a batch.

    Attributes:
        losses: Name to value.
        gradients: Parameter to gradient.
        answers: Answers with their masks.
    """

    def __init__(
        self,
        losses: dict[str, float],
        gradients: dict[str, Tensor],
        answers: list[AnswerWithTruth],
    ) -> None:
        self.losses = losses
        self.gradients = gradients
        self.answers = answers

    @classmethod
    def of(cls, setup: Setup, batch: Batch, bench: Bench | None, precision: str) -> _Outcome:
        """Compute it on a copy of the model.

        Args:
            setup: Stage and model on the CPU.
            batch: Training batch on the CPU.
            bench: Device to compute on; None computes on the CPU.
            precision: One of `_PRECISIONS`.
        """
        device = torch.device("cpu") if bench is None else bench.device
        stage = copy.deepcopy(setup.stage).to(device)
        model: Any = stage.model
        moved = batch.to(device)
        half = precision == "bfloat16"
        with _float32_as(precision):
            torch.manual_seed(0)
            stage.train()
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                losses = stage.means(moved)
            stage.total(losses).backward()
            model.eval()
            model.precision = "bf16-mixed" if half else "32-true"
            answers = answer_batch(model, setup.collator, batch, _NEW_TOKENS)
        gradients = {
            name: parameter.grad.cpu()
            for name, parameter in model.named_parameters()
            if parameter.grad is not None
        }
        return cls({name: float(loss) for name, loss in losses.items()}, gradients, answers)


@contextmanager
def _float32_as(precision: str) -> Iterator[None]:
    """Compute products of float32 in full, or as TF32."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def _compare(bench: Bench, setup: Setup, batch: Batch, expected: _Outcome, precision: str) -> Row:
    """Compute on the device and compare with what the CPU gave in float32."""
    found = _Outcome.of(setup, batch, bench, precision)
    losses = {
        name: abs(found.losses[name] - value) / max(1.0, abs(value))
        for name, value in expected.losses.items()
    }
    gradients = {
        name: relative_difference(found.gradients[name], gradient)
        for name, gradient in expected.gradients.items()
        if name in found.gradients and float(gradient.norm()) > 0
    }
    worst = max(gradients, key=lambda name: gradients[name])
    row: Row = {
        "loss_difference": largest(list(losses.values())),
        "gradient_difference": gradients[worst],
        "gradient_median": float(np.median(list(gradients.values()))),
        "worst_gradient": worst,
        "missing_gradients": sorted(expected.gradients.keys() ^ found.gradients.keys()),
        **_compare_answers(found.answers, expected.answers),
    }
    if precision == "float32":
        row["agrees"] = (
            row["loss_difference"] < TOLERANCE
            and row["gradient_median"] < TOLERANCE
            and row["same_answers"] == row["answers"]
            and row["same_voxels"] > 1 - TOLERANCE
        )
    return row


def _compare_answers(found: list[AnswerWithTruth], expected: list[AnswerWithTruth]) -> Row:
    """Count equal texts and equal voxels of masks, and compare the read-outs."""
    same_texts = 0
    voxels = 0
    same_voxels = 0
    read_outs = [0.0]
    for one, other in zip(found, expected, strict=True):
        same_texts += one.text == other.text
        for name, values in other.read_outs.items():
            difference = np.abs(np.asarray(one.read_outs[name]) - np.asarray(values))
            read_outs.append(float(np.nanmax(difference)) if difference.size else 0.0)
        if one.mask is not None and other.mask is not None:
            voxels += other.mask.size
            same_voxels += int((one.mask == other.mask).sum())
    return {
        "answers": len(expected),
        "same_answers": same_texts,
        "masks_voxels": voxels,
        "same_voxels": same_voxels / voxels if voxels else 1.0,
        "read_out_difference": largest(read_outs),
    }
