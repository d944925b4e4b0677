"""A data set to shards, preprocessed: `python -m cmrvlm.shard data=manifest data.path=studies.csv out=<folder>`."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig
from rich.console import Console

from cmrvlm.config.build import build
from cmrvlm.config.command import CONFIG_PATH, Config, explained, plain


def shard(config: Config) -> int:
    """Preprocess and write all studies as `conf/shard.yaml` says, and return their number.

    Args:
        config: Plain configuration.
    """
    source = build(config["data"]["source"], "data.source")
    preprocessing = build(config["transform"]["preprocessing"], "transform.preprocessing")
    count: int = build(
        config["shards"], "shards", source=source, preprocessing=preprocessing
    ).write()
    return count


@hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="shard")
@explained
def main(config: DictConfig) -> None:
    """Entry point."""
    settings = plain(config)
    count = shard(settings)
    Console().print(
        f"{count} studies in {settings['out']}; train on them with data=shards data.root={settings['out']}",
        markup=False,
    )


if __name__ == "__main__":
    main()
