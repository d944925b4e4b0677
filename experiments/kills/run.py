"""Kill a small training at random moments, go on as its messages say, and compare the weights.

    python -m experiments.kills.run [numbers=0,1,2] [seed=0] [folder=<of the runs>]

Each training is killed (SIGKILL), or told to end (SIGTERM, Ctrl-C), at a moment drawn by the seed.
Then the same command is given again, at once, with what its last message says to add, until it
ends well. The final weights must be those of a training that nobody broke, bit for bit. Every
result is kept at once, so that the experiment can itself be killed. Writes `metrics.json` and
`table.md` here.
"""

from __future__ import annotations

import json
import re
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.commands import CONSOLE, given
from experiments.kills.plan import CACHE, MOMENTS, Kill, plan
from experiments.kills.trainings import (
    Training,
    clear,
    has_processes,
    moment_of,
    reached,
    stop,
)

HERE = Path(__file__).parent
# A kill that misses its moment, which may last milliseconds, is tried again.
_TRIES = 5
_MOST_COMMANDS = 5

Record = dict[str, Any]


def unbroken(folder: Path, loading: tuple[int, int]) -> Training:
    """Return a training that nobody breaks, trained unless it was before.

    Args:
        folder: Folder of all trainings.
        loading: Workers and accumulation.
    """
    workers, accumulation = loading
    name = f"unbroken-{workers}-{accumulation}"
    training = Training(folder / name, folder / "cache", workers, accumulation)
    if not (training.run / "model.safetensors").is_file():
        clear(training.folder)
        if training.train() != 0:
            raise SystemExit(training.output.read_text())
    return training


def break_off(kill: Kill, folder: Path) -> tuple[Training, Record]:
    """Train until the moment of a kill, and return what was broken off and where."""
    number = getattr(signal, kill.signal)
    for tried in range(1, _TRIES + 1):
        place = folder / f"kill-{kill.number}"
        clear(place)
        cache = folder / "cache"
        if kill.moment == CACHE:
            cache = place / "cache"
        training = Training(place, cache, *kill.loading)
        process = training.start_announced()
        status = stop(process, reached(training, kill), kill.delay_s, number)
        _, batch, step = training.last_event()
        found = {
            "moment": moment_of(training),
            "batch": batch,
            "step": step,
            "status": status,
            "tries": tried,
        }
        # What was told to end goes on for a moment, and clears what it wrote.
        if kill.signal != "SIGKILL" or found["moment"] == kill.moment:
            break
    if kill.signal != "SIGKILL":
        found["moment"] = kill.moment
        output = training.output.read_text()
        says = output.strip().splitlines()[-1]
        found["says"] = says.replace(str(training.folder), "<folder>")
        found["traceback"] = "Traceback" in output
        found["checkpoint"] = (training.run / "checkpoints" / "last.ckpt").is_file()
    return training, found | {"session": process.pid}


def go_on(training: Training, again_s: float | None) -> tuple[int, list[int]]:
    """Give the same command until it ends well, each time with what the last message adds.

    Args:
        training: What was broken off.
        again_s: Seconds after its first batch at which the resumed training is killed, or None.

    Returns:
        The number of commands, and the steps after which they began to train.
    """
    steps = []
    more = training.next_arguments()
    for commands in range(1, _MOST_COMMANDS + 1):
        if again_s is not None:
            process = training.start_announced(*more)
            status = stop(process, lambda: training.has_begun("batch", 0), again_s, signal.SIGKILL)
            if status == -signal.SIGKILL:
                again_s = None
        else:
            status = training.train(*more)
        output = training.output.read_text()
        first = re.search(r"step (\d+) of", output)
        if first:
            steps.append(int(first[1]) - 1)
        if status == 0:
            return commands, steps
        more = training.next_arguments()
    return commands, steps


def kill_and_go_on(kill: Kill, folder: Path) -> Record:
    """Break off a training, go on with it, and compare its weights with the unbroken ones."""
    whole = unbroken(folder, kill.loading)
    training, found = break_off(kill, folder)
    session = found.pop("session")
    commands, steps = go_on(training, kill.again_s)
    ended = (training.run / "model.safetensors").is_file()
    record = {
        "number": kill.number,
        "signal": kill.signal,
        "workers": kill.workers,
        "accumulation": kill.accumulation,
        "killed_twice": kill.again_s is not None,
        **found,
        "commands": commands,
        "resumed_after_steps": steps,
        # What ended well was not broken off at all.
        "equal": found["status"] != 0 and ended and training.equals(whole),
        "leftovers": training.leftovers(),
        "processes_live_on": has_processes(session),
    }
    if record["equal"]:
        clear(training.folder)
    return record


def table_of(records: Sequence[Record]) -> str:
    """Return how many trainings ended with equal weights, by signal and moment."""
    lines = ["| signal | moment | trainings | equal weights |", "|---|---|---:|---:|"]
    for name in ("SIGKILL", "SIGTERM", "SIGINT"):
        for moment in MOMENTS:
            chosen = [one for one in records if (one["signal"], one["moment"]) == (name, moment)]
            if chosen:
                equal = sum(one["equal"] for one in chosen)
                lines.append(f"| {name} | {moment} | {len(chosen)} | {equal} |")
    equal = sum(one["equal"] for one in records)
    lines.append(f"| all | | {len(records)} | {equal} |")
    return "\n".join(lines) + "\n"


def chosen_kills(settings: dict[str, str]) -> list[Kill]:
    """Return the trainings of the plan that the settings ask for, all by default."""
    kills = plan(int(settings["seed"]))
    if not settings["numbers"]:
        return kills
    numbers = {int(number) for number in settings["numbers"].split(",")}
    return [kill for kill in kills if kill.number in numbers]


def main() -> None:
    """Kill the trainings that were not killed yet, and keep table and numbers."""
    default = str(Path(tempfile.gettempdir()) / "cmrvlm-kills")
    settings = given({"numbers": "", "seed": "0", "folder": default})
    path = HERE / "metrics.json"
    content: dict[str, Any] = {"seed": int(settings["seed"]), "trainings": []}
    if path.is_file():
        before = json.loads(path.read_text())
        if before["seed"] == content["seed"]:
            content = before
    records: list[Record] = content["trainings"]
    for kill in chosen_kills(settings):
        if kill.number in {record["number"] for record in records}:
            continue
        CONSOLE.print(f"{kill.number}: {kill.signal} {kill.moment}", style="bold")
        records.append(kill_and_go_on(kill, Path(settings["folder"])))
        CONSOLE.print(records[-1])
        path.write_text(json.dumps(content, indent=1) + "\n")
        (HERE / "table.md").write_text(table_of(records))
    CONSOLE.print(table_of(records), markup=False)


if __name__ == "__main__":
    main()
