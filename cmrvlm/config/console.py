"""What all commands print alike: tables, and no messages of libraries that tell a user nothing."""

from __future__ import annotations

import logging
import warnings

from rich.console import Console
from rich.table import Table

# These libraries log much that does not help a user.
_TALKATIVE = ("matplotlib", "fontTools", "numexpr")
# Beginning, category and module of each warning that is silenced. Others of the same library stay, and all of ours and
# of a user's code do.
SILENCED: tuple[tuple[str, type[Warning], str], ...] = (
    # Lightning uses a class of PyTorch that has another name now.
    (
        r"`isinstance\(treespec, LeafSpec\)` is deprecated",
        FutureWarning,
        r"lightning\.pytorch\.utilities\._pytree",
    ),
    # A training that is resumed goes on in its own folder; one that is taken is refused before.
    (
        r"Checkpoint directory .* exists and is not empty",
        UserWarning,
        r"lightning\.pytorch\.callbacks\.model_checkpoint",
    ),
    # Our sampler takes up its place in the epoch by itself, so that no batch is repeated or lost.
    (
        r"You're resuming from a checkpoint that ended before the epoch ended",
        UserWarning,
        r"lightning\.pytorch\.loops\.training_epoch_loop",
    ),
    # Steps are counted through all epochs, so that short ones are logged, too.
    (
        r"The number of training batches \(.*\) is smaller than the logging interval",
        UserWarning,
        r"lightning\.pytorch\.loops\.fit_loop",
    ),
    # A training says itself of how many studies each part is.
    (
        r"Total length of `.*` across ranks is zero",
        UserWarning,
        r"lightning\.pytorch\.utilities\.data",
    ),
)


def silence_libraries() -> None:
    """Silence the messages of libraries that are known to be harmless, each by its own words."""
    for library in _TALKATIVE:
        logging.getLogger(library).setLevel(logging.WARNING)
    for message, category, module in SILENCED:
        warnings.filterwarnings("ignore", message=message, category=category, module=module)


def print_table(table: Table, console: Console) -> None:
    """Print a table, or its title alone where it has no rows."""
    if table.row_count:
        console.print(table)
        return
    # Titles are markup, in which names of others are escaped.
    console.print(table.title)
