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
from cmrvlm.stages.sweep_job import end_with_the_sweep, run_job

log = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="train")
@with_readable_errors
def main(config: DictConfig) -> float | None:
    """Train as the configuration says, each job of a sweep in its own process.

    Returns:
        Value of `optimized_metric`, or None.
    """
    hydra_config = HydraConfig.get()
    run = Path(hydra_config.runtime.output_dir)
    if hydra_config.mode == RunMode.MULTIRUN:
        return run_job(run, hydra_config, config)

    overrides = list(hydra_config.overrides.task)
    end_with_the_sweep()
    with recorded(run, overrides) as result:
        settings = resolved(config)
        # Loads PyTorch: a misspelled key is reported without waiting for it.
        from cmrvlm.stages.training import train

        result["metric"] = train(settings, run)
    log.info("run folder: %s", run)
    return result["metric"]


if __name__ == "__main__":
    main()
