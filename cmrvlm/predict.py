"""Apply a run to one study: `python -m cmrvlm.predict run=<folder> study=<folder or file>`."""

from __future__ import annotations

import logging

import hydra
from omegaconf import DictConfig
from rich.console import Console

from cmrvlm.config.command import CONFIG_PATH, explained, plain

log = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="predict")
@explained
def main(config: DictConfig) -> None:
    """Entry point."""
    settings = plain(config)
    from cmrvlm.inference.prediction import (
        predict,
    )  # loads PyTorch, which a misspelled key need not wait for

    result = predict(settings)
    console = Console(soft_wrap=True, highlight=False)
    if "answer" in result:
        console.print(f"{result['question']}\n{result['answer']}\n", markup=False)
    console.print(f"{result['report']}\n", markup=False)
    log.info("written to %s", settings["out"])


if __name__ == "__main__":
    main()
