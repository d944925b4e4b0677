"""What the entry points share: one readable error, the configuration as plain data, and where the configs are.

Nothing here loads PyTorch, so that the entry points which import no more at once answer `--help` and a misspelled key
in a second.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue
from rich.console import Console

from cmrvlm.errors import CmrvlmError

CONFIG_PATH = "../conf"
Config = dict[str, Any]


def with_readable_errors(main: Callable[[DictConfig], Any]) -> Callable[[DictConfig], Any]:
    """An entry point whose user errors end in one line and exit status 1; a sweep goes on with its other jobs."""

    @wraps(main)
    def run(config: DictConfig) -> Any:
        for noisy in ("matplotlib", "fontTools", "numexpr"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            return main(config)
        with exit_on_error():
            return main(config)

    return run


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Print a `CmrvlmError` that is raised inside in one red line, and exit with status 1."""
    try:
        yield
    except CmrvlmError as error:
        console = Console(stderr=True, soft_wrap=True, highlight=False)
        console.print(f"error: {error}", style="red", markup=False)
        sys.exit(1)


def resolved(config: DictConfig) -> Config:
    """The configuration as plain data with everything resolved.

    Raises:
        CmrvlmError: A required value is missing, or an interpolation leads nowhere.
    """
    try:
        content = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except (MissingMandatoryValue, InterpolationResolutionError) as error:
        raise CmrvlmError(
            f"a value is missing: {str(error).splitlines()[0]}",
            field=str(error.full_key),
            remedy="Set it on the command line.",
        ) from error
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def with_changes(base: Config, changes: Config) -> Config:
    """A plain configuration with changes to it, which may be nested."""
    whole = OmegaConf.to_container(OmegaConf.merge(base, changes))
    assert isinstance(whole, dict)
    return {str(key): value for key, value in whole.items()}
