"""Shared parts of the commands: readable errors, resolved configurations, folder of the configs.

Nothing here loads PyTorch, so that commands answer `--help` and a misspelled key within a second.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import FrameType
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_original_cwd
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue
from rich.console import Console

from cmrvlm.errors import CmrvlmError

# Relative to the folder of the command's module, as Hydra takes it.
CONFIG_PATH = "../conf"
Config = dict[str, Any]


def with_readable_errors(main: Callable[[DictConfig], Any]) -> Callable[[DictConfig], Any]:
    """Decorate a command so that a `CmrvlmError` is printed in one line with exit status 1.

    It runs in the folder in which it was started.

    In a sweep the error is raised, so that the sweep goes on with its other jobs.
    """

    @wraps(main)
    def run(config: DictConfig) -> Any:
        # These libraries log much that does not help a user.
        for library in ("matplotlib", "fontTools", "numexpr"):
            logging.getLogger(library).setLevel(logging.WARNING)
        # Paths are those of where the command was started, whatever `hydra.job.chdir` says; all
        # that is written has a path of its own.
        os.chdir(get_original_cwd())
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            return main(config)
        with exit_on_error():
            return main(config)

    return run


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Print a `CmrvlmError` that is raised inside in one red line, and exit with status 1.

    Ctrl-C ends in one line, too. SIGTERM ends as Ctrl-C does, so that temporary files are removed.
    """
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _exit) if is_main else None
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        yield
    except CmrvlmError as error:
        console.print(f"error: {error}", style="red", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("error: interrupted", style="red")
        _exit(signal.SIGINT)
    finally:
        if is_main:
            signal.signal(signal.SIGTERM, before)


def _exit(number: int, frame: FrameType | None = None) -> None:
    """Exit with the status of a program that a signal ended."""
    sys.exit(128 + number)


def resolved(config: DictConfig) -> Config:
    """Return the configuration as dicts, lists and values, with all interpolations resolved.

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
    """Return a copy of a plain configuration with changes, which may be nested."""
    changed = OmegaConf.to_container(OmegaConf.merge(base, changes))
    assert isinstance(changed, dict)
    return {str(key): value for key, value in changed.items()}
