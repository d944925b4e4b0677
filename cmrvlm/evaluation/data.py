"""Build the data module on which a run is scored: its own, or one that is changed."""

from __future__ import annotations

import json
import sys

from cmrvlm.config.command import Config, with_changes
from cmrvlm.runs.data import DataModule
from cmrvlm.runs.lineage import SPLIT
from cmrvlm.runs.run_folder import TrainedRun
from cmrvlm.runs.wiring import build_data

# Settings of data that decide which studies there are, or in which part they are.
_SETTINGS_OF_STUDIES = {"source", "root", "path", "_target_", "split_file", "shares"}


def evaluation_data(run: TrainedRun, changes: Config) -> DataModule:
    """Return the run's data module on the run's own split.

    A change of the source, its root or its path means other data: the split is then made anew.
    Broken studies are left out and counted, however many there are.

    Args:
        run: Trained run.
        changes: Changes to the settings of its data.
    """
    # A deep copy, for the run keeps its configuration.
    config = json.loads(json.dumps(run.config))
    # The settings of one source mean nothing to another.
    if "_target_" in (changes.get("source") or {}):
        config["data"].pop("source")
    config["data"] = with_changes(config["data"], changes)
    if "root" in changes and "root" in config["data"].get("source", {}):
        config["data"]["source"]["root"] = changes["root"]
    has_other_studies = not _SETTINGS_OF_STUDIES.isdisjoint(changes)
    split = run.folder / SPLIT
    if not has_other_studies and split.is_file():
        config["data"]["split_file"] = str(split)
    data = build_data(config, allowed_failures=sys.maxsize)
    data.prepare_data()
    return data
