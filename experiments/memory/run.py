"""Estimate what training MiniCPM3-4B takes of a GPU's memory, from its architecture alone.

    python -m experiments.memory.run [tokens=<of a row>] [answers=<of these, answer tokens>]

A row is a study with eight instructions behind one copy of its images. Writes `metrics.json` and
`table.md` here.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict
from pathlib import Path

from transformers import MiniCPM3Config

from cmrvlm.language_model.memory import TUNING, estimate_memory
from experiments.commands import CONSOLE, given

HERE = Path(__file__).parent
GPUS_GB = (24, 48, 80)
# The CUDA context, buffers of kernels, and encoders with their activations.
HEADROOM_GB = 2.0
GB = 1e9


def main() -> None:
    """Compute and keep the table."""
    settings = given({"tokens": "560", "answers": "240"})
    tokens = int(settings["tokens"])
    answers = int(settings["answers"])
    # Its defaults are those of MiniCPM3-4B.
    config = MiniCPM3Config()
    lines = [
        "| tuning | checkpointing | rows | weights | gradients | optimizer | activations "
        "| all, GB | fits |",
        "|---|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    content = []
    for tuning, checkpointing, batch in itertools.product(TUNING, (False, True), (1, 2, 4)):
        memory = estimate_memory(
            config, batch, tokens, answers, tuning, checkpointing=checkpointing
        )
        total_gb = memory.total / GB
        fits = [size for size in GPUS_GB if total_gb + HEADROOM_GB <= size]
        smallest = "none of them"
        if fits:
            smallest = f"{fits[0]} GB"
        is_checkpointed = "no"
        if checkpointing:
            is_checkpointed = "yes"
        shares = " | ".join(f"{value / GB:.1f}" for value in asdict(memory).values())
        lines.append(
            f"| {tuning} | {is_checkpointed} | {batch} | {shares} | {total_gb:.1f} | {smallest} |"
        )
        content.append(
            {
                "tuning": tuning,
                "checkpointing": checkpointing,
                "rows": batch,
                "fits_gb": fits,
                **{f"{name}_gb": value / GB for name, value in asdict(memory).items()},
            }
        )
    kept = {
        "tokens": tokens,
        "answer_tokens": answers,
        "headroom_gb": HEADROOM_GB,
        "computed": True,
        "rows": content,
    }
    (HERE / "metrics.json").write_text(json.dumps(kept, indent=1))
    (HERE / "table.md").write_text("\n".join(lines) + "\n")
    CONSOLE.print("\n".join(lines), markup=False)


if __name__ == "__main__":
    main()
