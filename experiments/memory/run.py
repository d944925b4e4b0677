"""What training MiniCPM3-4B takes of a GPU's memory: computed, from its architecture alone.

    python -m experiments.memory.run [tokens=<of a row>] [answers=<of these, answer tokens>]

A row is a study with eight instructions behind one copy of its images. Writes `metrics.json` and `table.md` here.
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
HEADROOM_GB = 2.0  # the CUDA context, buffers of kernels, and encoders with their activations
GB = 1e9


def main() -> None:
    """Compute and keep the table."""
    settings = given({"tokens": "560", "answers": "240"})
    tokens, answers = int(settings["tokens"]), int(settings["answers"])
    config = MiniCPM3Config()  # its defaults are those of MiniCPM3-4B
    lines = [
        "| tuning | checkpointing | rows | weights | gradients | optimizer | activations | all, GB | fits |",
        "|---|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    content = []
    for how, checkpointing, batch in itertools.product(TUNING, (False, True), (1, 2, 4)):
        found = estimate_memory(config, batch, tokens, answers, how, checkpointing=checkpointing)
        fits = [size for size in GPUS_GB if found.total / GB + HEADROOM_GB <= size]
        parts = " | ".join(f"{value / GB:.1f}" for value in asdict(found).values())
        lines.append(
            f"| {how} | {'yes' if checkpointing else 'no'} | {batch} | {parts} | {found.total / GB:.1f} | "
            f"{f'{fits[0]} GB' if fits else 'none of them'} |"
        )
        content.append(
            {
                "tuning": how,
                "checkpointing": checkpointing,
                "rows": batch,
                "fits_gb": fits,
                **{f"{name}_gb": value / GB for name, value in asdict(found).items()},
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
