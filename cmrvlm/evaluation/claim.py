"""Reserve the folder of an evaluation, and drop answers that were given to other settings."""

from __future__ import annotations

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

# Folder of the answers that an evaluation keeps.
ASKED = "asked"
_SETTINGS = "settings.json"
log = logging.getLogger(__name__)


@contextmanager
def claimed(
    out: Path, settings: Mapping[str, Any], *, resume: bool, first_process: bool
) -> Iterator[None]:
    """Lock the folder of an evaluation while it asks and scores.

    Args:
        out: Folder of the evaluation.
        settings: Everything that answers depend on; those to other settings are dropped.
        resume: Whether answers to the same settings are kept.
        first_process: Whether this process writes files; the others take no lock.

    Raises:
        CmrvlmError: Another evaluation writes into the folder, or it holds a folder of that name
            that is none of ours.
    """
    if not first_process:
        yield
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
        _drop_others(out / ASKED, settings, resume=resume)
        yield
    finally:
        lock.release()


def _drop_others(folder: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
    """Remove answers that are not to be kept, and note the settings of those to come.

    Raises:
        CmrvlmError: The folder is none of ours.
    """
    earlier = folder / _SETTINGS
    # Whoever is killed before the note is written leaves nothing, or a hidden file.
    if not earlier.is_file() and any(folder.glob("[!.]*")):
        raise CmrvlmError(
            "the folder does not hold answers of an evaluation",
            file=folder,
            field="out",
            remedy="Move it away, or give another out=<folder>.",
        )
    if earlier.is_file():
        changed = _changed(earlier, settings)
        if resume and not changed:
            for path in folder.iterdir():
                if path.is_dir():
                    clear_leftovers(path)
            return
        log.info("asking everything anew: %s", ", ".join(changed) or "resume=false")
        # The note goes last, so that what is half removed is still known to be ours.
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
    folder.mkdir(exist_ok=True)
    write_json(earlier, settings)


def _changed(path: Path, settings: Mapping[str, Any]) -> list[str]:
    """Return the names of the settings that differ from those in a file."""
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return [f"{path.name} is damaged"]
    now = json.loads(json_text(settings))
    if not isinstance(earlier, dict):
        return [f"{path.name} is damaged"]
    return [name for name in now if now[name] != earlier.get(name)]
