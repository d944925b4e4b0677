"""Measure this project on one GPU: does everything work there, how fast is it, and what is lost.

    python -m experiments.gpu.run [out=<folder>] [device=cuda] [budget_s=480] [small=false]
        [parts=<names, joined by commas>]

Every part is guarded: one that fails, hangs or does not fit into the time that is left costs itself
alone. Writes `metrics.json` and `table.md` into `out` after every case, this folder by default.
`device=cpu small=true` tries the same script without a GPU.
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from experiments.commands import CONSOLE, given
from experiments.gpu.agreement import agreement
from experiments.gpu.attention import attention
from experiments.gpu.bench import Bench, Row
from experiments.gpu.commands import commands
from experiments.gpu.encoders import encoders
from experiments.gpu.generation import generation
from experiments.gpu.guard import Part, run_parts
from experiments.gpu.limits import limits
from experiments.gpu.syncs import syncs
from experiments.gpu.tables import tables
from experiments.gpu.training import training

HERE = Path(__file__).parent
# In the order of what matters most, so that a short budget loses the rest.
PARTS: dict[str, Part] = {
    "limits": limits,
    "agreement": agreement,
    "commands": commands,
    "training": training,
    "encoders": encoders,
    "syncs": syncs,
    "generation": generation,
    "attention": attention,
}
_PACKAGES = ("torch", "transformers", "lightning", "peft", "numpy", "triton", "monai")


def main() -> None:
    """Run the parts and keep what they give."""
    defaults = {
        "out": str(HERE),
        "device": "cuda",
        "budget_s": "480",
        "small": "false",
        "parts": ",".join(PARTS),
    }
    settings = given(defaults)
    chosen = settings["parts"].split(",")
    unknown = set(chosen) - set(PARTS)
    if unknown:
        sys.exit(f"unknown parts: {', '.join(sorted(unknown))}; known: {', '.join(PARTS)}")
    measure(
        Path(settings["out"]),
        torch.device(settings["device"]),
        float(settings["budget_s"]),
        small=settings["small"] == "true",
        chosen=chosen,
    )


def measure(
    out: Path, device: torch.device, budget_s: float, *, small: bool, chosen: Sequence[str]
) -> dict[str, list[Row]]:
    """Run some parts and write `metrics.json` and `table.md`.

    Args:
        out: Folder for both.
        device: Device that is measured.
        budget_s: Seconds after which no further case begins.
        small: Use small sizes.
        chosen: Names of the parts.

    Returns:
        Rows of each part.
    """
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(device, small, Path(scratch), started + budget_s)
        write = partial(_write, out, started, small)
        return run_parts({name: PARTS[name] for name in chosen}, bench, write)


def _write(out: Path, started: float, small: bool, results: Mapping[str, Sequence[Row]]) -> None:
    """Keep the rows so far, and print the last one."""
    content: dict[str, Any] = {
        "small": small,
        "seconds": round(time.monotonic() - started, 1),
        "python": platform.python_version(),
        "versions": _versions(),
        "parts": results,
    }
    (out / "metrics.json").write_text(json.dumps(content, indent=1, default=str) + "\n")
    (out / "table.md").write_text(tables(results))
    for name, rows in list(results.items())[-1:]:
        CONSOLE.print(f"{name}: {rows[-1]}"[:1000], markup=False)


def _versions() -> dict[str, str]:
    """Return the versions of the packages that decide the numbers."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


if __name__ == "__main__":
    main()
