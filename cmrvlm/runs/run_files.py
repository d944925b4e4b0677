"""Read the files of a run folder, which may be damaged or come from another person.

Nothing but regular files is opened, no file is larger than such a file of a run can be, and
whatever is wrong with one is a single error that names it.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cmrvlm.errors import CmrvlmError

_REMEDY = "Copy the run folder again from where it was trained, or train it again."
_MEGABYTE = 1_000_000
# The list of the patients of a million studies is this large.
_MOST_JSON_BYTES = 200 * _MEGABYTE
# The configuration of a run has a few hundred lines.
_MOST_YAML_BYTES = _MEGABYTE


class _WithoutAliases(yaml.SafeLoader):
    """A loader of YAML that refuses aliases, by which a small text can claim endless content."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse an alias, and compose any other node."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it holds an alias, which no run writes")
        return super().compose_node(parent, index)


def check_regular(path: Path, field: str = "run") -> None:
    """Refuse what is no regular file; nothing is opened, as a pipe would wait for ever.

    Args:
        path: File of a run folder.
        field: Setting that named the run, for the error.

    Raises:
        CmrvlmError: There is nothing, or a folder, a pipe or a device.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        raise CmrvlmError(
            "there is no such file", file=path, field=field, remedy=_REMEDY
        ) from error
    if not stat.S_ISREG(mode):
        raise CmrvlmError("this is no regular file", file=path, field=field, remedy=_REMEDY)


@contextmanager
def naming_damage(path: Path, field: str = "run") -> Iterator[None]:
    """Turn errors of reading a file into one that names it.

    Args:
        path: File that is read inside the `with` block.
        field: Setting that named the run, for the error.

    Raises:
        CmrvlmError: Reading failed.
    """
    try:
        yield
    except CmrvlmError:
        raise
    # RuntimeError covers a text that is nested too deeply, RecursionError.
    except (
        OSError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        RuntimeError,
        yaml.YAMLError,
        SafetensorError,
    ) as error:
        raise damaged(path, error, field) from error


def damaged(path: Path, error: Exception, field: str = "run") -> CmrvlmError:
    """Return the error of a file that cannot be used, with its cause in one line."""
    reason = type(error).__name__
    if str(error):
        reason = f"{reason}: {str(error).splitlines()[0][:200]}"
    return CmrvlmError(
        f"the file is damaged or not of this kind ({reason})",
        file=path,
        field=field,
        remedy=_REMEDY,
    )


def _read_text(path: Path, most_bytes: int, field: str) -> str:
    """Read a text file in UTF-8.

    Raises:
        CmrvlmError: It is missing, no regular file, too large, or no such text.
    """
    check_regular(path, field)
    with naming_damage(path, field):
        size = path.stat().st_size
        if size > most_bytes:
            raise CmrvlmError(
                f"{size} bytes are more than such a file of a run has",
                file=path,
                field=field,
                remedy=_REMEDY,
            )
        return path.read_text(encoding="utf-8")


def _mapping(content: Any) -> dict[str, Any]:
    """Return the content of a file, if it is a mapping.

    Raises:
        TypeError: It is something else.
    """
    if not isinstance(content, dict):
        raise TypeError(f"a {type(content).__name__}, where names and values are needed")
    return content


def read_mapping(path: Path, field: str = "run") -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Args:
        path: File of a run folder.
        field: Setting that named the run, for the error.

    Raises:
        CmrvlmError: It is missing or damaged, or holds something else.
    """
    text = _read_text(path, _MOST_JSON_BYTES, field)
    with naming_damage(path, field):
        return _mapping(json.loads(text))


def read_yaml_mapping(path: Path, field: str = "run") -> dict[str, Any]:
    """Read a YAML file that holds a mapping with texts as keys, without aliases and objects.

    Args:
        path: File of a run folder.
        field: Setting that named the run, for the error.

    Raises:
        CmrvlmError: It is missing or damaged, or holds something else.
    """
    text = _read_text(path, _MOST_YAML_BYTES, field)
    with naming_damage(path, field):
        # The loader is a safe one; see its base class.
        return _mapping(yaml.load(text, Loader=_WithoutAliases))


def read_weights(path: Path, field: str = "run") -> dict[str, Tensor]:
    """Read a file in safetensors format.

    Args:
        path: File of a run folder.
        field: Setting that named the run, for the error.

    Returns:
        Name to tensor of any shape.

    Raises:
        CmrvlmError: It is missing or damaged.
    """
    check_regular(path, field)
    with naming_damage(path, field):
        return dict(load_file(path))
