"""What a model is made of and what of it is trained."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from rich.table import Table
from torch import nn


@dataclass(frozen=True)
class PartSize:
    """Parameters of one part.

    Attributes:
        name: For example `encoders.sax`, `llm`, or `llm, additions`.
        total: Number of values; those of quantized weights are counted as they were before.
        trained: Of these, how many are trained.
    """

    name: str
    total: int
    trained: int


def part_sizes(model: nn.Module) -> list[PartSize]:
    """Parameters by part: encoders and projectors by sequence, the language model with additions and rows apart."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for key, parameter in model.named_parameters():
        names = key.split(".")
        if names[0] == "llm":
            own = names[1] in ("rows", "out_rows")
            name = "llm, own tokens" if own else "llm, additions" if "lora_" in key else "llm"
        else:
            name = (
                ".".join(names[:2])
                if names[0] in ("encoders", "projectors", "mask_head")
                else names[0]
            )
        shape = getattr(
            getattr(parameter, "quant_state", None), "shape", None
        )  # four bits lie two in a byte
        size = shape.numel() if shape is not None else parameter.numel()
        counts[name][0] += size
        counts[name][1] += size * parameter.requires_grad
    return [PartSize(name, total, trained) for name, (total, trained) in counts.items()]


def parameter_table(model: nn.Module) -> Table:
    """`part_sizes` as a table with its sum."""
    rows = part_sizes(model)
    rows.append(PartSize("all", sum(one.total for one in rows), sum(one.trained for one in rows)))
    table = Table("part", "parameters", "trained", title="Model")
    for one in rows:
        table.add_row(one.name, f"{one.total:,}", f"{one.trained:,}", end_section=one is rows[-2])
    return table
