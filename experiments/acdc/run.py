"""Train the phantoms' model further on ACDC, and score it on patients it never saw.

    python -m experiments.acdc.run root=<ACDC training folder> [init=<run of stage 3>]
        [out=<folder>] [steps=<steps>]

Nothing is shown but the ED and ES frames of the short axis. Writes `metrics.json` and `panel.png`
here.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

from experiments.commands import CONSOLE, given, metrics, run, train_anew, training_facts

HERE = Path(__file__).parent


def main() -> None:
    """Train, evaluate, and keep the result."""
    settings = given(
        {"root": "", "init": "runs/benchmark/stage3", "out": "runs/acdc", "steps": "1000"}
    )
    if not settings["root"]:
        sys.exit("root=<folder with patient001, patient002, ...> is missing")
    started = time.monotonic()
    train_anew(
        "+experiment=acdc",
        f"data.root={settings['root']}",
        f"stage.init_from={settings['init']}",
        f"out={settings['out']}",
        "hardware=cpu_bf16",
        f"trainer.max_steps={settings['steps']}",
    )
    training = training_facts(started, settings["steps"])
    run("cmrvlm.evaluate", f"run={settings['out']}", "probes=[blind]")
    evaluation = Path(settings["out"]) / "evaluation"
    (HERE / "metrics.json").write_text(
        json.dumps(metrics(evaluation) | {"training": training}, indent=1)
    )
    shutil.copy(evaluation / "panel.png", HERE / "panel.png")
    CONSOLE.print(
        f"Trained in {training['minutes']} minutes on real patients; "
        f"result: {HERE / 'metrics.json'}",
        markup=False,
    )


if __name__ == "__main__":
    main()
