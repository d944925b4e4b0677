"""Exchange between the processes of a distributed training: rows to contrast, and normalisers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_gather


def several_processes() -> bool:
    """Return whether this is one of several processes that train together."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return False
    return distributed.get_world_size() > 1


def mean_over_processes(
    values: Mapping[str, float],
    device: torch.device,
) -> dict[str, float]:
    """Average named numbers over all processes.

    All processes must call it, with the same names.

    Args:
        values: Name to number.
        device: Device for the exchange.
    """
    if not several_processes():
        return dict(values)
    # Processes may name them in different orders.
    names = sorted(values)
    numbers = [float(values[name]) for name in names]
    sums = torch.tensor(numbers, dtype=torch.float64, device=device)
    distributed.all_reduce(sums)
    means = sums / distributed.get_world_size()
    averaged = means.tolist()
    return dict(zip(names, averaged, strict=True))


def gather_rows(rows: Tensor) -> Tensor:
    """Concatenate the rows of all processes; gradients flow back to the process of each row.

    Processes may have different numbers of rows, even none, but all of them must call it.

    Args:
        rows: Rows of this process (n, ...).

    Returns:
        Rows of all processes (n_1 + n_2 + ..., ...), in the order of their ranks.
    """
    if not several_processes():
        return rows
    count = torch.tensor([len(rows)], device=rows.device)
    processes = distributed.get_world_size()
    counts = [torch.zeros_like(count) for _ in range(processes)]
    distributed.all_gather(counts, count)
    sizes = [int(size) for size in counts]

    # Only tensors of one size can be gathered: shorter ones are padded, then cut again.
    lacking = max(sizes) - len(rows)
    padding = rows.new_zeros(lacking, *rows.shape[1:])
    padded = torch.cat([rows, padding]).contiguous()
    gathered = all_gather(padded)  # type: ignore[no-untyped-call]
    unpadded = [process_rows[:size] for process_rows, size in zip(gathered, sizes, strict=True)]
    return torch.cat(unpadded)
