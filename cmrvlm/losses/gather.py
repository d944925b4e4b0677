"""What losses share over processes: rows to compare with, and what they are divided by."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_gather


def several_processes() -> bool:
    """Whether this is one of several processes that train together."""
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


def mean_over_processes(values: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """Numbers by name, each on average over all processes; all of them must call it with the same names."""
    if not several_processes():
        return dict(values)
    names = sorted(values)
    sums = torch.tensor([float(values[name]) for name in names], dtype=torch.float64, device=device)
    distributed.all_reduce(sums)
    return dict(zip(names, (sums / distributed.get_world_size()).tolist(), strict=True))


def gather_rows(rows: Tensor) -> Tensor:
    """Rows (n, ...) of all processes one after another; gradients go back to where a row came from.

    Processes may have different numbers of rows, none among them, but all of them must call it.
    """
    if not several_processes():
        return rows
    own = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.zeros_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(counts, own)
    sizes = [int(one) for one in counts]
    padding = rows.new_zeros(max(sizes) - len(rows), *rows.shape[1:])
    found = all_gather(torch.cat([rows, padding]).contiguous())  # type: ignore[no-untyped-call]
    return torch.cat([one[:size] for one, size in zip(found, sizes, strict=True)])
