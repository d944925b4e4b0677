"""Check a data set before any training.

`python -m cmrvlm.check data=manifest data.path=studies.csv`
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from cmrvlm.config.build import build
from cmrvlm.config.command import CONFIG_PATH, Config, resolved, with_readable_errors
from cmrvlm.config.console import print_table
from cmrvlm.config.terminal import PlainConsole

# Faults that are printed; the page holds all of them.
MOST_SHOWN = 40


def check(config: Config, console: PlainConsole) -> dict[str, Any]:
    """Check a data set as `conf/check.yaml` says.

    Args:
        config: Plain configuration.
        console: PlainConsole for the progress and the table.

    Returns:
        Content of `check.json`.
    """
    source = build(config["data"]["source"], "data.source")
    mixture = build(config["mix"], "mix")
    collator = None
    if config["run"]:
        collator = _collator_of(Path(config["run"]))
    run = build(
        config["check"],
        "check",
        source=source,
        mixture=mixture,
        out=Path(config["out"]),
        collator=collator,
    )
    study_count = len(source.study_ids())
    checked = list(track(run.run(), "Checking studies", study_count, console=console))
    title = f"Check of {type(source).__name__}"
    content: dict[str, Any] = run.finish(checked, source.declared_split(), title)

    _print_faults(content, console)
    if collator is None:
        console.print(
            "Lengths of prompts were not counted: "
            "give run=<folder> of a run whose tokenizer is to be used."
        )
    else:
        longest = content["longest_row"]
        console.print(f"Longest prompt with its answer: {longest} of {collator.max_length} tokens")
    # A path that is broken into lines cannot be opened.
    console.print(f"Page with pictures: {run.out / 'check.html'}", markup=False, soft_wrap=True)
    return content


def _print_faults(content: dict[str, Any], console: PlainConsole) -> None:
    """Print the first faults in the content of `check.json` as a table."""
    faults = content["faults"]
    title = f"{content['studies']} studies: {content['verdict']}"
    table = Table("level", "kind", "study", "what", title=title)
    for fault in faults[:MOST_SHOWN]:
        # Ids and values of a table are no markup.
        texts = (escape(fault[name]) for name in ("level", "code", "study", "text"))
        table.add_row(*texts)
    print_table(table, console)
    if len(faults) > MOST_SHOWN:
        console.print(f"and {len(faults) - MOST_SHOWN} more")


def _collator_of(run: Path) -> Any:
    """Load the collator of a run, whose tokenizer counts the lengths of prompts."""
    # Loads the language model's libraries, which other checks do without.
    from cmrvlm.runs.run_folder import load_run

    return load_run(run).collator


@hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="check")
@with_readable_errors
def main(config: DictConfig) -> None:
    """Check the data set and exit with status 1 on errors."""
    content = check(resolved(config), PlainConsole(width=150))
    if content["errors"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
