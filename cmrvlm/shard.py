"""A data set to shards, preprocessed: `python -m cmrvlm.shard data=manifest data.path=studies.csv out=<folder>`."""

from __future__ import annotations

from pathlib import Path

import hydra
from omegaconf import DictConfig
from rich.console import Console

from cmrvlm.entry import CONFIG_PATH, explained
from cmrvlm.instantiate import build
from cmrvlm.stages.wiring import Config, plain
from data_modules.cache import StudyCache
from data_modules.shards import write_shards


def shard(config: Config) -> int:
    """Preprocess and write all studies as `conf/shard.yaml` says, and return their number.

    Args:
        config: Plain configuration.
    """
    source = build(config["data"]["source"], "data.source")
    preprocessing = build(config["transform"]["preprocessing"], "transform.preprocessing")
    cache = StudyCache(Path(config["data"]["cache_dir"]), source, preprocessing)
    cache.fill(source.study_ids())
    return write_shards(cache, source, preprocessing.spec(), Path(config["out"]), config["chunk_bytes"])


@hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="shard")
@explained
def main(config: DictConfig) -> None:
    """Entry point."""
    settings = plain(config)
    count = shard(settings)
    Console().print(f"{count} studies in {settings['out']}; train on them with data=shards data.root={settings['out']}",
                    markup=False)  # fmt: skip


if __name__ == "__main__":
    main()
