"""Do what a training does with its data before the first step: split, cache, shares of classes.

python -m experiments.archive.fill table=<table> cache=<folder>
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import OmegaConf

from cmrvlm.config.build import build
from cmrvlm.tasks.mixture import Mixture
from data_modules.sources.manifest import ManifestSource
from data_modules.study_data_module import StudyDataModule
from experiments.commands import given

SETTINGS = Path(__file__).parents[2] / "conf" / "transform" / "default.yaml"


def main() -> None:
    """Prepare the data of a table."""
    settings = given({"table": "", "cache": ""})
    transform = OmegaConf.to_container(OmegaConf.load(SETTINGS))
    preprocessing = build(transform["preprocessing"], "transform.preprocessing")
    data = StudyDataModule(
        ManifestSource(settings["table"]),
        preprocessing,
        Mixture({}),
        settings["cache"],
        sequences=["sax"],
    )
    data.prepare_data()
    data.class_shares()


if __name__ == "__main__":
    main()
