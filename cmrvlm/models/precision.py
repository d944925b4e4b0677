"""Numeric precision of a run: the same in training, its samples, evaluation and prediction."""

from __future__ import annotations

import torch

from cmrvlm.errors import CmrvlmError

# Name of a mixed precision to the type that autocast computes in.
MIXED = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
_SINGLE = ("32", "32-true")
# Short names, as Lightning takes them.
_SYNONYMS = {"bf16": "bf16-mixed", "16": "16-mixed", "None": "32-true"}


def check_precision(precision: str | int | None) -> str:
    """Return the name of a precision that models of this project can be trained and applied in.

    Args:
        precision: As Lightning's trainer names it, such as `32` or `bf16-mixed`.

    Raises:
        CmrvlmError: It is another one.
    """
    name = _SYNONYMS.get(str(precision), str(precision))
    if name not in (*_SINGLE, *MIXED):
        raise CmrvlmError(
            f"precision '{name}' is not supported",
            field="trainer.precision",
            remedy=f"Use 32-true, {' or '.join(MIXED)}; "
            "the language model's own weights follow llm.network.dtype.",
        )
    return name


def autocast_of(precision: str, device: torch.device) -> torch.autocast:
    """Return the context in which a model computes, switched off for float32.

    Args:
        precision: A name that `check_precision` returned.
        device: Where the model is.
    """
    return torch.autocast(
        device.type,
        dtype=MIXED.get(precision),
        enabled=precision in MIXED,
    )
