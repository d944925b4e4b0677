"""Time the implementations of attention that the project can choose between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from cmrvlm.encoders.window_attention import WindowAttention
from cmrvlm.language_model.packing import arrange
from experiments.gpu.bench import Bench, Case, Row
from experiments.gpu.guard import SkippedError
from experiments.gpu.setups import Setup, configured, language_model, set_up, studies

_BACKENDS = {
    "math": SDPBackend.MATH,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}
# Windows of a batch: efficient attention takes fewer than 2 ** 16 of them.
_MANY_WINDOWS = 80_000
_IMPLEMENTATIONS = ("sdpa", "eager", "flex_attention")


def attention(bench: Bench) -> Iterator[Case]:
    """Yield the cases."""
    for name in _BACKENDS:
        yield Case(f"window attention, {name}", partial(_windows, bench, [name]))
    yield Case("window attention, as chosen", partial(_windows, bench, list(_BACKENDS)))
    yield Case("frames of many windows, in one call", partial(_many_windows, bench, 1))
    yield Case("frames of many windows, in two calls", partial(_many_windows, bench, 2))
    name = "qwen3_small" if bench.small else "qwen3_0_6b"
    chosen = [*studies(bench), *language_model(bench, name), "adapter=full"]
    setup = set_up(configured(bench, chosen), bench.device)
    for implementation in _IMPLEMENTATIONS:
        work = partial(_packed, bench, setup, implementation)
        needs_s = 60.0 if implementation == "flex_attention" else 10.0
        yield Case(f"packed rows, {implementation}", work, needs_s)
    work = partial(_decoded, bench, setup)
    yield Case("decoding, flex_attention", work, 60)


def _windows(bench: Bench, backends: Sequence[str]) -> Row:
    """Time attention within shifted windows of a stack of cines, forward and backward."""
    size = 12 if bench.small else 24
    width = 48
    torch.manual_seed(0)
    layer = WindowAttention(width, 2, (2, 1, 6, 6), shifted=True).to(bench.device)
    x = torch.randn(2, 9, 15, size, size, width, device=bench.device, requires_grad=True)

    def compute() -> None:
        with sdpa_kernel([_BACKENDS[name] for name in backends]), bench.autocast():
            layer(x).float().square().mean().backward()

    with bench.peak_memory() as memory:
        seconds = bench.seconds(compute)
    return {"ms": 1000 * seconds, **memory}


def _many_windows(bench: Bench, calls: int) -> Row:
    """Time attention along time of very many short sequences, as large batches of cines have."""
    count = 2000 if bench.small else _MANY_WINDOWS
    shape = (count, 2, 15, 24)
    q, k, v = (
        torch.randn(shape, device=bench.device, dtype=torch.bfloat16, requires_grad=True)
        for _ in range(3)
    )
    bias = torch.randn(1, 2, 15, 15, device=bench.device, dtype=torch.bfloat16)

    def compute() -> None:
        parts = zip(q.chunk(calls), k.chunk(calls), v.chunk(calls), strict=True)
        mixed = [scaled_dot_product_attention(a, b, c, attn_mask=bias) for a, b, c in parts]
        torch.cat(mixed).float().square().mean().backward()

    with bench.peak_memory() as memory:
        seconds = bench.seconds(compute)
    return {"windows": count, "ms": 1000 * seconds, **memory}


def _packed(bench: Bench, setup: Setup, implementation: str) -> Row:
    """Time the language model on a packed batch, forward and backward, and compare with SDPA."""
    if implementation == "flex_attention" and not bench.on_gpu:
        raise SkippedError("the backward pass of flex_attention is for a GPU")
    llm = setup.model.llm
    batch = setup.batch().to(bench.device)
    packed = arrange(batch.rows, llm)
    torch.manual_seed(0)
    embeddings = torch.randn(*packed.ids.shape, llm.width, device=bench.device)
    embeddings = embeddings.to(torch.bfloat16)

    def compute() -> Tensor:
        hidden = llm.hidden(embeddings, packed.layout)
        hidden.float().square().mean().backward()
        return hidden

    llm.train()
    network = llm.network
    network.set_attn_implementation("sdpa")
    is_token = packed.layout.groups >= 0
    expected = compute().detach()[is_token].float()
    network.set_attn_implementation(implementation)
    try:
        found = compute().detach()[is_token].float()
        with bench.peak_memory() as memory:
            seconds = bench.seconds(compute)
    finally:
        network.set_attn_implementation("sdpa")
        llm.zero_grad(set_to_none=True)
    difference = float((found - expected).norm() / expected.norm())
    row: Row = {"rows": list(packed.ids.shape), "ms": 1000 * seconds}
    return row | {"difference_from_sdpa": difference, **memory}


def _decoded(bench: Bench, setup: Setup) -> Row:
    """Time the decoding of few tokens with `flex_attention`, which may compile for every length."""
    from experiments.gpu.generation import generate

    if not bench.on_gpu:
        raise SkippedError("flex_attention is for a GPU")
    setup.model.eval()
    setup.model.llm.network.set_attn_implementation("flex_attention")
    try:
        return generate(bench, setup, batch=8, new_tokens=16)
    finally:
        setup.model.llm.network.set_attn_implementation("sdpa")
