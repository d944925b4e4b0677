"""Shared parts of the commands: readable errors, resolved configurations, folder of the configs.

Nothing here loads PyTorch, so that commands answer `--help` and a misspelled key within a second.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_original_cwd
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from cmrvlm.config.console import silence_libraries
from cmrvlm.config.terminal import PlainConsole, one_line
from cmrvlm.errors import CmrvlmError, missing_run

# Relative to the folder of the command's module, as Hydra takes it.
CONFIG_PATH = "../conf"
Config = dict[str, Any]
_INTERRUPTED = "error: interrupted. Give the same command once more."


def _place(*, _root_: DictConfig) -> str:
    """Return the folder that a command writes into, for `hydra.run.dir`.

    Hydra asks for it before anything of this project runs, and would end in a traceback.
    """
    with exit_on_error():
        try:
            place = OmegaConf.select(_root_, "out", throw_on_missing=True)
        except (InterpolationResolutionError, MissingMandatoryValue) as error:
            raise _missing(error) from error
        _check_there(_root_)
        return str(place)


def _check_there(config: DictConfig) -> None:
    """Refuse a run or an archive that is not there: Hydra would make the folder of the output first.

    Raises:
        CmrvlmError: It is not there.
    """
    run = OmegaConf.select(config, "run")
    if run is not None and not Path(run).is_dir():
        raise missing_run(run)
    source = OmegaConf.select(config, "source", throw_on_missing=False)
    if source is not None and not Path(source).exists():
        raise CmrvlmError(
            "there is no such folder",
            file=source,
            field="source",
            remedy="Give the folder of the archive.",
        )


OmegaConf.register_new_resolver("cmrvlm.place", _place, replace=True)


def with_readable_errors(main: Callable[[DictConfig], Any]) -> Callable[[DictConfig], Any]:
    """Decorate a command so that a `CmrvlmError` is printed in one line with exit status 1.

    It runs in the folder in which it was started.

    In a sweep the error is raised, so that the sweep goes on with its other jobs.
    """

    @wraps(main)
    def run(config: DictConfig) -> Any:
        silence_libraries()
        # Paths are those of where the command was started, whatever `hydra.job.chdir` says; all
        # that is written has a path of its own.
        os.chdir(get_original_cwd())
        with exit_on_error():
            _check_command_line(config)
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            return main(config)
        with exit_on_error():
            return main(config)

    return run


def _check_command_line(config: DictConfig) -> None:
    """Refuse settings that were added on the command line and that nothing reads.

    Raises:
        CmrvlmError: There is one.
    """
    hydra = GlobalHydra.instance().hydra
    overrides = [text for text in HydraConfig.get().overrides.task if text.startswith("+")]
    added = [re.split("[.=@/]", text.lstrip("+"), maxsplit=1)[0] for text in overrides]
    # Choices such as `+experiment=stage3` add no key of their own.
    added = [key for key in added if key in config]
    if hydra is None or not added:
        return
    composed = hydra.compose_config(
        HydraConfig.get().job.config_name,
        overrides=[],
        run_mode=RunMode.RUN,
        with_log_configuration=False,
    )
    check_added_keys(added, {str(key) for key in composed if key != "hydra"})


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Print a `CmrvlmError` that is raised inside in one red line, and exit with status 1.

    Ctrl-C and SIGTERM end in one line, too, after temporary files were removed.
    """
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _exit) if is_main else None
    console = PlainConsole(stderr=True, soft_wrap=True, highlight=False)
    try:
        yield
    except CmrvlmError as error:
        console.print(f"error: {one_line(str(error))}", style="red", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print(_INTERRUPTED, style="red")
        _exit(signal.SIGINT)
    except SystemExit as ending:
        if ending.code == 128 + signal.SIGTERM:
            console.print(_INTERRUPTED, style="red")
        raise
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
        raise _missing(error) from error
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def _missing(error: OmegaConfBaseException) -> CmrvlmError:
    """Return the error for a value that is missing, or an interpolation that leads nowhere."""
    return CmrvlmError(
        f"a value is missing: {str(error).splitlines()[0]}",
        field=str(error.full_key),
        remedy="Set it on the command line.",
    )


def check_added_keys(added: Iterable[str], known: Collection[str]) -> None:
    """Refuse keys that were added by `+key=value` and that nothing of the command reads.

    Args:
        added: Keys at the top of the configuration that were added.
        known: Keys at the top of the command's own configuration.

    Raises:
        CmrvlmError: There is such a key.
    """
    for key in added:
        if key in known:
            continue
        alike = get_close_matches(key, known, n=1)
        meant = f"Is it {alike[0]}? " if alike else ""
        raise CmrvlmError(
            "the command has no such setting",
            field=key,
            remedy=f"{meant}Known: {', '.join(sorted(known))}.",
        )


def quoted(path: Path) -> str:
    """Return a path as a quoted text of Hydra's overrides."""
    # Backslashes stand for themselves, but before a quote and at the end.
    text = re.sub(r"(\\*)'", r"\1\1\\'", str(path))
    return "'" + re.sub(r"(\\+)$", r"\1\1", text) + "'"


def with_changes(base: Config, changes: Config) -> Config:
    """Return a copy of a plain configuration with changes, which may be nested."""
    changed = OmegaConf.to_container(OmegaConf.merge(base, changes))
    assert isinstance(changed, dict)
    return {str(key): value for key, value in changed.items()}
