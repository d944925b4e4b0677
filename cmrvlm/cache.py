"""List the entries of the cache, and remove those that nothing uses any more.

`python -m cmrvlm.cache`, and `python -m cmrvlm.cache prune=true` to remove what the list marks.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import hydra
from omegaconf import DictConfig
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from cmrvlm.config.build import build
from cmrvlm.config.command import CONFIG_PATH, Config, resolved, with_readable_errors
from cmrvlm.config.console import print_table
from cmrvlm.config.terminal import PlainConsole
from cmrvlm.errors import CmrvlmError


def cache(config: Config, console: PlainConsole) -> None:
    """List or prune the cache as `conf/cache.yaml` says.

    Args:
        config: Plain configuration.
        console: PlainConsole for the table.

    Raises:
        CmrvlmError: `prune` is neither true nor false, or something cannot be removed.
    """
    if not isinstance(config["prune"], bool):
        raise CmrvlmError(
            f"'{config['prune']}' is neither true nor false",
            field="prune",
            remedy="Write prune=true to remove what the list marks.",
        )
    folder = build(config["cache"], "cache")
    entries = folder.prune() if config["prune"] else folder.entries()
    _print_entries(entries, str(folder.root), console)

    studies = sum(len(entry.unused) for entry in entries)
    size = decimal(sum(entry.unused_bytes for entry in entries))
    leftovers = sum(len(entry.leftovers) for entry in entries)
    removed = f"{studies} studies, {size}, and {leftovers} half-written ones"
    if config["prune"]:
        console.print(f"removed: {removed}")
    else:
        console.print(f"prune=true would remove: {removed}")


def _print_entries(entries: list[Any], root: str, console: PlainConsole) -> None:
    """Print the entries as a table."""
    title = f"{len(entries)} entries in {escape(root)}"
    names = ("entry", "source", "preprocessing", "studies", "size", "last used", "to remove")
    table = Table(*names, title=title)
    for entry in entries:
        used = "never"
        if entry.used_at is not None:
            used = f"{datetime.fromtimestamp(entry.used_at, UTC):%Y-%m-%d}"
        table.add_row(
            escape(entry.folder.name),
            escape(entry.source),
            escape(", ".join(entry.steps)),
            str(len(entry.studies) + len(entry.unused)),
            decimal(entry.size_bytes),
            used,
            _verdict(entry),
        )
    print_table(table, console)


def _verdict(entry: Any) -> str:
    """Return in words what pruning removes of an entry."""
    if entry.is_in_use:
        return "nothing: in use"
    if not entry.is_current:
        return "all: the code has changed"
    if entry.is_removed_whole:
        return "all: unused"
    if entry.unused:
        return f"{len(entry.unused)} unused studies"
    return ""


@hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="cache")
@with_readable_errors
def main(config: DictConfig) -> None:
    """List the cache, or prune it."""
    cache(resolved(config), PlainConsole(width=150))


if __name__ == "__main__":
    main()
