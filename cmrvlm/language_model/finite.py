"""Check that weights are finite where they are loaded: a single NaN spoils whatever it touches."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from cmrvlm.errors import CmrvlmError


def first_not_finite(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """Return the name of the first tensor that holds NaN or infinity, or None if all are finite.

    Args:
        tensors: Names and tensors of any shape; integers are skipped.
    """
    for name, tensor in tensors:
        if not (tensor.is_floating_point() or tensor.is_complex()):
            continue
        # torch.isfinite does not take floats of eight bits.
        values = tensor.float() if tensor.element_size() == 1 else tensor
        if not bool(torch.isfinite(values).all()):
            return name
    return None


def check_weights(
    tensors: Iterable[tuple[str, Tensor]], file: str | Path, field: str, remedy: str
) -> None:
    """Check that all weights are finite.

    Args:
        tensors: Names and weights of any shape.
        file: File or folder that they were loaded from.
        field: Setting that named the file, for the error.
        remedy: What the user can do about it, for the error.

    Raises:
        CmrvlmError: A weight holds NaN or infinity; the error names it.
    """
    name = first_not_finite(tensors)
    if name is not None:
        raise CmrvlmError(
            f"the weight '{name}' holds numbers that are not finite",
            file=file,
            field=field,
            remedy=remedy,
        )
