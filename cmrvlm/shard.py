"""Preprocess a data set and write it as shards.

`python -m cmrvlm.shard data=manifest data.path=studies.csv out=<folder>`
"""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from cmrvlm.config.build import build
from cmrvlm.config.command import CONFIG_PATH, Config, resolved, with_readable_errors
from cmrvlm.config.terminal import PlainConsole


def shard(config: Config) -> int:
    """Preprocess and write all studies as `conf/shard.yaml` says.

    Args:
        config: Plain configuration.

    Returns:
        Number of studies.
    """
    source = build(config["data"]["source"], "data.source")
    preprocessing = build(config["transform"]["preprocessing"], "transform.preprocessing")
    writer = build(config["shards"], "shards", source=source, preprocessing=preprocessing)
    study_count: int = writer.write()
    return study_count


@hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="shard")
@with_readable_errors
def main(config: DictConfig) -> None:
    """Write the shards and print how to train on them."""
    settings = resolved(config)
    study_count = shard(settings)
    out = settings["out"]
    PlainConsole().print(
        f"{study_count} studies in {out}; train on them with data=shards data.root={out}",
        markup=False,
        # What is to be typed again must not be broken into lines.
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
