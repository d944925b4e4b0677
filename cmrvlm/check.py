"""What is wrong with a data set, before any training: `python -m cmrvlm.check data=manifest data.path=studies.csv`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import track
from rich.table import Table

from cmrvlm.config.build import build
from cmrvlm.config.command import CONFIG_PATH, Config, explained, plain

MOST_SHOWN = 40


def check(config: Config, console: Console) -> dict[str, Any]:
    """Check as `conf/check.yaml` says and return what is written to `check.json`.

    Args:
        config: Plain configuration.
        console: Where progress and the table go.
    """
    source = build(config["data"]["source"], "data.source")
    mixture = build(config["mix"], "mix")
    collator = _collator_of(Path(config["run"])) if config["run"] else None
    run = build(
        config["check"],
        "check",
        source=source,
        mixture=mixture,
        out=Path(config["out"]),
        collator=collator,
    )
    ids = source.study_ids()
    checked = list(track(run.run(), "Checking studies", len(ids), console=console))
    content = run.finish(checked, source.declared_split(), f"Check of {type(source).__name__}")
    table = Table(
        "level",
        "kind",
        "study",
        "what",
        title=f"{content['studies']} studies: {content['verdict']}",
    )
    for fault in content["faults"][:MOST_SHOWN]:
        table.add_row(*(fault[name] for name in ("level", "code", "study", "text")))
    console.print(table)
    if len(content["faults"]) > MOST_SHOWN:
        console.print(f"and {len(content['faults']) - MOST_SHOWN} more")
    if collator is None:
        console.print(
            "Lengths of prompts were not counted: give run=<folder> of a run whose tokenizer is to be used."
        )
    else:
        console.print(
            f"Longest prompt with its answer: {content['longest_row']} of {collator.max_length} tokens"
        )
    console.print(f"Page with pictures: {run.out / 'check.html'}", markup=False)
    return content


def _collator_of(run: Path) -> Any:
    """The collator of a run, whose tokenizer counts the lengths of prompts."""
    from cmrvlm.runs.run_folder import (
        load_run,
    )  # loads the language model's libraries, which other checks do without

    return load_run(run).collator


@hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="check")
@explained
def main(config: DictConfig) -> None:
    """Entry point."""
    if check(plain(config), Console(width=150))["errors"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
