"""Build the data module on which a run is scored: its own, or one that is changed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from cmrvlm.config.command import Config, with_changes
from cmrvlm.errors import CmrvlmError
from cmrvlm.runs.data import DataModule
from cmrvlm.runs.lineage import SPLIT
from cmrvlm.runs.run_folder import TrainedRun
from cmrvlm.runs.wiring import build_data

# Settings of data that say where its source lies.
_PLACES = ("root", "path")
# Settings of data that decide which studies there are, or in which part they are.
_SETTINGS_OF_STUDIES = {"source", *_PLACES, "_target_", "split_file", "shares"}
# Name of the file that says what the studies of a cache were made from.
_ENTRIES_OF_CACHES = "*/entry.json"


def evaluation_data(run: TrainedRun, changes: Config, cache_dir: str = "cache") -> DataModule:
    """Return the run's data module on the run's own split.

    A change of the source, its root or its path means other data: the split is then made anew.
    Broken studies are left out and counted, however many there are.

    Args:
        run: Trained run.
        changes: Changes to the settings of its data.
        cache_dir: Folder of the cache, for a run whose own cache is not on this machine.

    Raises:
        CmrvlmError: A folder or a table is given for data that has none.
    """
    # A deep copy, for the run keeps its configuration.
    config = json.loads(json.dumps(run.config))
    # The settings of one source mean nothing to another.
    if "_target_" in (changes.get("source") or {}):
        config["data"].pop("source")
    config["data"] = with_changes(_without_places(config["data"], cache_dir), changes)
    _place_source(config["data"], changes)
    has_other_studies = not _SETTINGS_OF_STUDIES.isdisjoint(changes)
    split = run.folder / SPLIT
    if not has_other_studies and split.is_file():
        config["data"]["split_file"] = str(split)
    data = build_data(config, allowed_failures=sys.maxsize)
    data.prepare_data()
    return data


def _place_source(data: Config, changes: Config) -> None:
    """Let a source read from the folder or table that changes name.

    Args:
        data: Settings of data with the changes; its source is changed.
        changes: The changes.

    Raises:
        CmrvlmError: The source has no such setting.
    """
    # The configuration of a run is resolved: the source holds the earlier place itself.
    for place in (name for name in _PLACES if name in changes):
        if place not in data["source"]:
            raise CmrvlmError(
                f"the data of this run has no {place}",
                field=f"data.{place}",
                remedy="Name the data set as well, as in +data=manifest data.path=<table>.",
            )
        data["source"][place] = changes[place]


def _without_places(data: Config, cache_dir: str) -> Config:
    """Return settings of data that name no folder to write into but a cache.

    The run may come from another person, or from another machine. A folder that holds a cache is
    written as one; any other is somebody's own.

    Args:
        data: Settings of the run's data.
        cache_dir: Folder of the cache where the run names none.
    """
    places: Config = {}
    recorded = data.get("cache_dir")
    if not _is_cache(recorded):
        places["cache_dir"] = cache_dir
    source = data.get("source")
    # Chunks of shards that are downloaded.
    if isinstance(source, dict) and source.get("local") is not None:
        places["source"] = source | {"local": None}
    return data | places


def _is_cache(folder: object) -> bool:
    """Return whether a folder holds an entry of a cache."""
    try:
        return any(Path(str(folder)).glob(_ENTRIES_OF_CACHES))
    # It may be too long, or hold what no path holds.
    except (OSError, ValueError):
        return False
