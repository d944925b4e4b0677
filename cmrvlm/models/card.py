"""Sizes of the parts of a model, and how much of each is trained."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table
from torch import nn

# Parts that exist once for each sequence.
_PARTS_BY_SEQUENCE = ("encoders", "projectors", "mask_head")


@dataclass(frozen=True)
class PartSize:
    """Number of parameters of one part.

    Attributes:
        name: For example `encoders.sax`, `llm`, or `llm, additions`.
        total: Number of values; quantized weights count as before their quantization.
        trained: Number of those that are trained.
    """

    name: str
    total: int
    trained: int


def part_sizes(model: nn.Module) -> list[PartSize]:
    """Count the parameters of each part of a model.

    Encoders and projectors are counted by sequence, adapters and token embeddings that were added
    to the language model apart from its own weights.
    """
    total: Counter[str] = Counter()
    trained: Counter[str] = Counter()
    for key, parameter in model.named_parameters():
        part = _part_of(key)
        values = _count_values(parameter)
        total[part] += values
        if parameter.requires_grad:
            trained[part] += values
    return [PartSize(part, total[part], trained[part]) for part in total]


def _part_of(key: str) -> str:
    """Return the part that a parameter belongs to, by its dotted name in the model."""
    names = key.split(".")
    if names[0] == "llm":
        if names[1] in ("rows", "out_rows"):
            return "llm, own tokens"
        if "lora_" in key:
            return "llm, additions"
        return "llm"
    if names[0] in _PARTS_BY_SEQUENCE:
        return ".".join(names[:2])
    return names[0]


def _count_values(parameter: nn.Parameter) -> int:
    """Return the number of values of a parameter."""
    # Quantized weights of four bits lie two in a byte: bitsandbytes keeps their shape beside them.
    quantization = getattr(parameter, "quant_state", None)
    shape = getattr(quantization, "shape", None)
    if shape is None:
        shape = parameter.shape
    return shape.numel()


def parameter_table(model: nn.Module) -> Table:
    """Return `part_sizes` as a table with its sum."""
    sizes = part_sizes(model)
    table = Table("part", "parameters", "trained", title="Model")
    for size in sizes:
        table.add_row(escape(size.name), f"{size.total:,}", f"{size.trained:,}")
    table.add_section()
    total = sum(size.total for size in sizes)
    trained = sum(size.trained for size in sizes)
    table.add_row("all", f"{total:,}", f"{trained:,}")
    return table
