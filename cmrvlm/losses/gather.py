"""Rows of all processes together, for losses that compare every one with every other."""

from __future__ import annotations

import torch
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_gather


def gather_rows(rows: Tensor) -> Tensor:
    """Rows (n, ...) of all processes one after another; gradients go back to where a row came from.

    Processes may have different numbers of rows, none among them, but all of them must call it.
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return rows
    own = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.zeros_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(counts, own)
    sizes = [int(one) for one in counts]
    padding = rows.new_zeros(max(sizes) - len(rows), *rows.shape[1:])
    found = all_gather(torch.cat([rows, padding]).contiguous())  # type: ignore[no-untyped-call]
    return torch.cat([one[:size] for one, size in zip(found, sizes, strict=True)])
