"""Weights that are not finite are refused where they come in, by name: one of them spoils whatever it touches."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from cmrvlm.errors import CmrvlmError


def first_not_finite(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """Return the name of the first tensor that holds NaN or infinity; None when all are finite."""
    for name, tensor in tensors:
        if not (tensor.is_floating_point() or tensor.is_complex()):
            continue
        values = (
            tensor.float() if tensor.element_size() == 1 else tensor
        )  # of eight bits torch cannot tell it
        if not bool(torch.isfinite(values).all()):
            return name
    return None


def check_weights(
    tensors: Iterable[tuple[str, Tensor]], file: str | Path, field: str, remedy: str
) -> None:
    """Refuse weights that are not finite.

    Args:
        tensors: Name and values of each.
        file: Where they are from.
        field: Setting that named the file.
        remedy: What to do about it.

    Raises:
        CmrvlmError: One holds NaN or infinity; it is named.
    """
    name = first_not_finite(tensors)
    if name is not None:
        raise CmrvlmError(
            f"the weight '{name}' holds numbers that are not finite",
            file=file,
            field=field,
            remedy=remedy,
        )
