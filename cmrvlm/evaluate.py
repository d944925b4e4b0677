"""Score a run on the test part of its own data: `python -m cmrvlm.evaluate run=<folder>`."""

from __future__ import annotations

import logging
from pathlib import Path

import hydra
from omegaconf import DictConfig

from cmrvlm.config.command import CONFIG_PATH, resolved, with_readable_errors

log = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="evaluate")
@with_readable_errors
def main(config: DictConfig) -> None:
    """Evaluate the run that the configuration names."""
    settings = resolved(config)
    # Loads PyTorch: a misspelled key is reported without waiting for it.
    from cmrvlm.evaluation.evaluate import evaluate

    evaluate(settings)
    log.info("scores: %s", Path(settings["out"]) / "metrics.json")


if __name__ == "__main__":
    main()
