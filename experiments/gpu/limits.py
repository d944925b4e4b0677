"""Measure what the card can do at most: matrix products and copies."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from experiments.gpu.bench import GB, Bench, Case, Row


def limits(bench: Bench) -> Iterator[Case]:
    """Yield the cases."""
    yield Case("card", partial(_card, bench))
    yield Case("matrix product, bfloat16", partial(_product, bench, "bfloat16"))
    yield Case("matrix product, TF32", partial(_product, bench, "tf32"))
    yield Case("matrix product, float32", partial(_product, bench, "float32"))
    yield Case("copy", partial(_copy, bench))


def _card(bench: Bench) -> Row:
    """Return what the device is."""
    row: Row = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    if bench.on_gpu:
        properties = torch.cuda.get_device_properties(bench.device)
        row |= {
            "name": properties.name,
            "memory_gb": properties.total_memory / GB,
            "multiprocessors": properties.multi_processor_count,
            "cuda": str(torch.version.cuda),
            "capability": list(torch.cuda.get_device_capability(bench.device)),
        }
    return row


def _product(bench: Bench, kind: str) -> Row:
    """Time the product of two square matrices of random numbers."""
    size = 256 if bench.small else 8192
    dtype = torch.bfloat16 if kind == "bfloat16" else torch.float32
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if kind == "tf32" else "highest")
    try:
        left = torch.randn(size, size, device=bench.device).to(dtype)
        right = torch.randn(size, size, device=bench.device).to(dtype)
        seconds = bench.seconds(lambda: left @ right)
    finally:
        torch.set_float32_matmul_precision(before)
    flop = 2.0 * size**3
    bench.limits[kind] = flop / seconds
    return {"size": size, "ms": 1000 * seconds, **bench.rates(flop, seconds, "none")}


def _copy(bench: Bench) -> Row:
    """Time a copy within the memory of the device, bytes read and written counted."""
    count = 2**20 if bench.small else 2**30
    source = torch.randint(0, 100, (count,), dtype=torch.int32, device=bench.device)
    target = torch.empty_like(source)
    seconds = bench.seconds(lambda: target.copy_(source))
    return {"gb": 8 * count / GB, "ms": 1000 * seconds, "gb_per_s": 8 * count / GB / seconds}
