"""Reserve the folder of an evaluation, and find the answers that were given to the same settings."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.atomic_files import clear_leftovers, json_text, write_json

# Folder of the answers that evaluations keep, in a folder for each set of settings.
_ASKED = "asked"
_SETTINGS = "settings.json"
log = logging.getLogger(__name__)


def folder_of_answers(out: Path, settings: Mapping[str, Any]) -> Path:
    """Return the folder of the answers that were given to some settings.

    Args:
        out: Folder of the evaluation.
        settings: Everything that answers depend on.
    """
    digest = hashlib.sha256(json_text(settings).encode()).hexdigest()
    return out / _ASKED / digest[:16]


@contextmanager
def claimed(
    out: Path, settings: Mapping[str, Any], *, resume: bool, first_process: bool
) -> Iterator[Path]:
    """Lock the folder of an evaluation, and yield the folder of its answers.

    Answers to other settings stay: whoever goes back to those finds them.

    Args:
        out: Folder of the evaluation.
        settings: Everything that answers depend on.
        resume: Whether answers to the same settings are kept.
        first_process: Whether this process writes files; the others take no lock.

    Raises:
        CmrvlmError: Another evaluation writes into the folder.
    """
    folder = folder_of_answers(out, settings)
    if not first_process:
        yield folder
        return
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise CmrvlmError(
            "another evaluation writes into this folder",
            file=out,
            field="out",
            remedy="Give another out=<folder>.",
        ) from None
    try:
        _prepare(folder, settings, resume=resume)
        yield folder
    finally:
        lock.release()


def _prepare(folder: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
    """Note the settings of answers, and remove those that are not to be kept."""
    if folder.exists() and not resume:
        shutil.rmtree(folder)
    if folder.exists():
        for path in folder.iterdir():
            if path.is_dir():
                clear_leftovers(path)
    elif changed := _changed(folder.parent, settings):
        log.info("asking everything: answers that were kept are of other %s", ", ".join(changed))
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / _SETTINGS, settings)


def _changed(folder: Path, settings: Mapping[str, Any]) -> list[str]:
    """Return the names of the settings that differ from those of the last answers, if there are any."""
    notes = sorted(folder.glob(f"*/{_SETTINGS}"), key=lambda path: path.stat().st_mtime)
    if not notes:
        return []
    try:
        earlier = json.loads(notes[-1].read_text(encoding="utf-8"))
    except ValueError:
        return []
    now = json.loads(json_text(settings))
    return [name for name in now if name not in earlier or now[name] != earlier[name]]
