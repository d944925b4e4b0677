"""Train, evaluate and predict on the device, as a user does, with small models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from cmrvlm.config.command import resolved
from cmrvlm.evaluation.evaluate import evaluate
from cmrvlm.predict import predict
from cmrvlm.stages.training import train
from cmrvlm.study.files import write_study
from data_modules.sources.phantom.source import PhantomSource
from experiments.gpu.bench import Bench, Case, Row
from experiments.gpu.setups import CONF, SMALLEST, augmentation, language_model

_VARIANTS = {
    "tiny, float32": ["trainer.precision=32"],
    "tiny, bf16-mixed": ["trainer.precision=bf16-mixed"],
    "tiny, 16-mixed": ["trainer.precision=16-mixed"],
}


def commands(bench: Bench) -> Iterator[Case]:
    """Yield a case for each stage and language model."""
    bfloat16 = language_model(bench, "qwen3_small")
    variants: dict[str, Sequence[str]] = {
        **_VARIANTS,
        "qwen3 in bfloat16, LoRA": [*bfloat16, "adapter=lora", "trainer.precision=bf16-mixed"],
        "qwen3 in bfloat16, every weight, float32 heads": [*bfloat16, "trainer.precision=32"],
    }
    if bench.small:
        variants = {"tiny, bf16-mixed": _VARIANTS["tiny, bf16-mixed"]}
    for name, overrides in variants.items():
        yield Case(f"stage 3, {name}", partial(_whole_path, bench, overrides), 15)
    for stage in () if bench.small else ("stage1", "stage2"):
        overrides = ["trainer.precision=bf16-mixed"]
        yield Case(f"{stage}, tiny, bf16-mixed", partial(_train, bench, stage, overrides), 15)


def _composed(name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Return a plain configuration of a command."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return resolved(compose(name, overrides=list(overrides)))


def _train(bench: Bench, stage: str, overrides: Sequence[str]) -> Row:
    """Train a stage for two steps and return its loss."""
    run = bench.scratch / "trained"
    hardware = "gpu" if bench.on_gpu else "cpu"
    chosen = [
        f"+experiment={stage}",
        "+debug=fast",
        f"hardware={hardware}",
        f"paths.cache={bench.scratch / 'cache'}",
        f"out={run}",
        f"run_dir={run}",
        "overwrite=true",
        *(SMALLEST[1:] if bench.small else ()),
        "keep_familiarity=true",
        *augmentation(),
        *overrides,
    ]
    return {"loss": train(_composed("train", chosen), run)}


def _whole_path(bench: Bench, overrides: Sequence[str]) -> Row:
    """Train, evaluate the run, and apply it to a study."""
    row = _train(bench, "stage3", overrides)
    run = bench.scratch / "trained"
    device = "cuda" if bench.on_gpu else "cpu"
    shared = [f"run={run}", f"device={device}", "max_new_tokens=8"]
    evaluation = [
        *shared,
        f"out={run / 'evaluation'}",
        "cases_per_task=1",
        "bootstrap=10",
        "probes=[]",
    ]
    if bench.small:
        evaluation.append("tasks=[segment_lv,disease]")
    metrics = evaluate(_composed("evaluate", evaluation))
    source = PhantomSource(count=4, size=48, slices=4, frames=5, spacing_mm=(3.9, 4.1))
    exam = bench.scratch / "exam"
    if not exam.is_dir():
        write_study(source.load(source.study_ids()[3]), exam)
    result = predict(
        _composed("predict", [*shared, f"study={exam}", f"out={run / 'out'}", "gate=false"])
    )
    return row | {
        "failures": metrics["failures"],
        "masks": metrics["tasks"]["segment_lv"]["dice"]["n"],
        "diseases": len(result["probabilities"]),
    }
