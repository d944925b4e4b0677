"""Time training steps of stage 3 with a language model of billions, in Lightning as users train."""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Iterator, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from cmrvlm.instructions.batch import Batch
from cmrvlm.language_model.packing import arrange
from cmrvlm.stages.memory_estimate import memory_of
from experiments.gpu.bench import GB, Bench, Case, Row
from experiments.gpu.guard import SkippedError
from experiments.gpu.setups import Setup, configured, language_model, set_up, studies

# Steps before those that are timed: the first ones allocate memory and choose kernels.
_WARM_UP = 2
_TIMED = 3


class StepClock(Callback):
    """Times each step of a training, and counts the operations of one of them.

    Args:
        bench: Where is measured.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.times: list[float] = []
        self.flop = 0.0
        self.started = 0.0
        self.counter = FlopCounterMode(display=False)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock; the last step is counted in place of timed."""
        if batch_idx == _WARM_UP + _TIMED:
            self.counter.__enter__()
        self.bench.wait()
        self.started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop the clock."""
        self.bench.wait()
        if batch_idx == _WARM_UP + _TIMED:
            self.counter.__exit__(None, None, None)
            self.flop = float(self.counter.get_total_flops())
        elif batch_idx >= _WARM_UP:
            self.times.append(time.perf_counter() - self.started)


def training(bench: Bench) -> Iterator[Case]:
    """Yield the cases: with and without packing and checkpointing, full, LoRA and QLoRA."""
    large = "qwen3_small" if bench.small else "qwen3_4b"
    medium = "qwen3_small" if bench.small else "qwen3_0_6b"
    checkpointed = ["llm.network.gradient_checkpointing=true"]
    lora = ["adapter=lora", *checkpointed]
    yield Case("4B, LoRA, packed, checkpointing", partial(_train, bench, large, lora), 60)
    yield Case(
        "4B, LoRA, not packed, checkpointing", partial(_train, bench, large, lora, False), 60
    )
    many = [*lora, "mix.per_study=24"]
    yield Case("4B, LoRA, packed, checkpointing, long", partial(_train, bench, large, many), 60)
    yield Case("4B, LoRA, packed", partial(_train, bench, large, ["adapter=lora"]), 60)
    yield Case("0.6B, every weight, packed", partial(_train, bench, medium, ["adapter=full"]), 30)
    yield Case("0.6B, QLoRA, packed, checkpointing", partial(_quantized, bench), 60)


def _train(bench: Bench, name: str, overrides: Sequence[str], packs: bool = True) -> Row:
    """Build a model with random weights and train it for a few steps.

    Args:
        bench: Where and how long is measured.
        name: Architecture of the language model.
        overrides: Its adapter and checkpointing.
        packs: Instructions share their images.
    """
    started = time.monotonic()
    chosen = [
        *studies(bench),
        *language_model(bench, name),
        *overrides,
        "optimizer.lr=1.0e-5",
    ]
    setup = set_up(configured(bench, chosen), bench.device)
    setup.model.llm.packs = packs
    batch = setup.batch()
    row: Row = {"build_s": round(time.monotonic() - started, 1)}
    return row | _facts(setup, batch) | _timed(bench, setup, batch)


def _facts(setup: Setup, batch: Batch) -> Row:
    """Return the sizes of a batch, and the memory that the project estimates for it."""
    estimate = memory_of(setup.model, batch)
    packed = arrange(batch.rows, setup.model.llm)
    return {
        "packs": setup.model.llm.packs,
        "studies": len(batch.study_ids),
        "instructions": len(batch.instructions),
        "rows": list(packed.ids.shape),
        "tokens": int((packed.layout.groups >= 0).sum()),
        "tokens_without_packing": int(batch.rows.lengths.sum()),
        "parameters": sum(p.numel() for p in setup.model.llm.network.parameters()),
        "trained": sum(p.numel() for p in setup.model.parameters() if p.requires_grad),
        "estimated_gb": estimate.total / GB,
    }


def _timed(bench: Bench, setup: Setup, batch: Batch) -> Row:
    """Train on one batch again and again, and return times, rates and memory."""
    clock = StepClock(bench)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    steps = _WARM_UP + _TIMED + 1
    with bench.peak_memory() as memory:
        trainer = Trainer(
            accelerator="gpu" if bench.on_gpu else "cpu",
            devices=1,
            precision="bf16-mixed",
            max_steps=steps,
            logger=False,
            callbacks=[clock],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            gradient_clip_val=1.0,
            use_distributed_sampler=False,
            default_root_dir=str(bench.scratch),
        )
        # Batches as they are: without a batch size the loader joins none of them.
        loader: DataLoader[Batch] = DataLoader([batch] * steps, batch_size=None)  # type: ignore[arg-type]
        trainer.fit(setup.stage, train_dataloaders=loader)
    seconds = median(clock.times)
    tokens = int((arrange(batch.rows, setup.model.llm).layout.groups >= 0).sum())
    parameters = sum(p.numel() for p in setup.model.llm.network.parameters())
    # Frozen weights need no gradients of their own: two products forward and two backward.
    needed = 4.0 * parameters * tokens
    if not setup.model.llm.borrows:
        needed *= 1.5
    row: Row = {
        "seconds": seconds,
        "tokens_per_s": tokens / seconds,
        "answers_per_s": len(batch.instructions) / seconds,
        "loss": float(trainer.callback_metrics["train/loss"]),
        **bench.rates(clock.flop, seconds),
        **memory,
    }
    if "bfloat16" in bench.limits:
        row["mfu"] = needed / seconds / bench.limits["bfloat16"]
    return row


def _quantized(bench: Bench) -> Row:
    """Train over a base in four bits, which is loaded from a checkpoint with random weights."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise SkippedError("bitsandbytes is not installed")
    if not bench.on_gpu:
        raise SkippedError("four bits are for a GPU")
    folder = bench.scratch / "qwen3_0_6b"
    overrides = ["adapter=qlora", "llm.network.gradient_checkpointing=true"]
    with_weights = [one for one in language_model(bench, folder.name) if "weights" not in one]
    _write_weights(bench, folder.name)
    chosen = [*studies(bench), *with_weights, *overrides]
    setup = set_up(configured(bench, chosen))
    batch = setup.batch()
    return _facts(setup, batch) | _timed(bench, setup, batch)


def _write_weights(bench: Bench, name: str) -> None:
    """Write a checkpoint with random weights into the folder of an architecture."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = bench.scratch / name
    with bench.device:
        config = AutoConfig.from_pretrained(folder)
        network = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    network.save_pretrained(folder)
