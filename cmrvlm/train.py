"""Train one stage: `python -m cmrvlm.train +experiment=stage3`."""

from __future__ import annotations

import logging
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from cmrvlm.config.command import CONFIG_PATH, resolved, with_readable_errors
from cmrvlm.stages.callbacks.sweep_table import recorded
from cmrvlm.stages.sweep_job import run_job

log = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="train")
@with_readable_errors
def main(config: DictConfig) -> float | None:
    """Train as the configuration says; a job of a sweep has a process of its own."""
    hydra_config = HydraConfig.get()
    run, overrides = Path(hydra_config.runtime.output_dir), list(hydra_config.overrides.task)
    if hydra_config.mode == RunMode.MULTIRUN:
        return run_job(run, hydra_config)
    with recorded(run, overrides) as result:
        settings = resolved(config)
        from cmrvlm.stages.training import (
            train,
        )  # loads PyTorch, which a misspelled key need not wait for

        result["metric"] = train(settings, run)
    log.info("run folder: %s", run)
    return result["metric"]


if __name__ == "__main__":
    main()
