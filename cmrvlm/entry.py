"""What the entry points share: one readable error, and where the configs are."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.console import Console

from cmrvlm.errors import CmrvlmError

CONFIG_PATH = "../conf"


def explained(main: Callable[[DictConfig], Any]) -> Callable[[DictConfig], Any]:
    """An entry point whose user errors end in one line and exit status 1; a sweep goes on with its other jobs."""

    @wraps(main)
    def run(config: DictConfig) -> Any:
        for noisy in ("lightning.pytorch", "matplotlib", "fontTools", "numexpr"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        try:
            return main(config)
        except CmrvlmError as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise
            Console(stderr=True, soft_wrap=True, highlight=False).print(f"error: {error}", style="red", markup=False)
            sys.exit(1)

    return run
