"""A run folder belongs to one training at a time, and an earlier run in it stays until the new one is whole."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cmrvlm.errors import CmrvlmError
from cmrvlm.files import clear_leftovers

WEIGHTS, CHECKPOINTS = "model.safetensors", "checkpoints"
_LOCK, _NEW, _OLD = ".lock", "new", ".old"
_KEPT = (_LOCK, _NEW, _OLD, ".hydra", "train.log")  # of the command that is running, not of the run


class FolderTakenError(CmrvlmError):
    """A folder holds a run that may not be written over, or another training writes into it."""


def holds_run(folder: Path) -> bool:
    """Return whether a folder has what a training left: weights or checkpoints."""
    return (folder / WEIGHTS).is_file() or any((folder / CHECKPOINTS).glob("*.ckpt"))


@contextmanager
def claimed(folder: Path, *, overwrite: bool, resumed: Path | None, first_process: bool) -> Iterator[Path]:
    """Give the folder that a training writes into; other trainings are kept out meanwhile.

    That is the run folder itself. Where it holds another run that is to be written over, it is `new` in it, whose
    content takes the place of the other run's once the training has ended well.

    Args:
        folder: Run folder.
        overwrite: Whether a run in it may be replaced.
        resumed: Run folder whose checkpoint the training goes on with, or None.
        first_process: Whether this is the process that writes; the others write nothing.

    Raises:
        FolderTakenError: It holds a run and may not be written over, or another training writes into it.
    """
    resumes = resumed is not None and resumed.resolve() in (folder.resolve(), (folder / _NEW).resolve())
    replaces = holds_run(folder) and not (resumes and resumed is not None and resumed.resolve() == folder.resolve())
    target = folder / _NEW if replaces else folder
    if not first_process:
        yield target
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise FolderTakenError(
            "another training writes into this folder", file=folder, field="out", remedy="Give another out=<folder>."
        ) from None
    try:
        if replaces and not (overwrite or resumes):
            raise FolderTakenError(
                "the folder holds a run already",
                file=folder,
                field="out",
                remedy="Give another out=<folder>, go on with ckpt_path=…, or replace it with overwrite=true.",
            )
        if replaces and not resumes:
            shutil.rmtree(target, ignore_errors=True)  # of a replacement that was not finished
        for place in (target, target / CHECKPOINTS):
            clear_leftovers(place)
        yield target
        if replaces:
            _put_in_place(folder)
    finally:
        lock.release()


def _put_in_place(folder: Path) -> None:
    """Let what lies in `new` take the place of the earlier run, by renaming alone."""
    old = folder / _OLD
    shutil.rmtree(old, ignore_errors=True)
    old.mkdir()
    for path in [one for one in folder.iterdir() if one.name not in _KEPT]:
        path.rename(old / path.name)
    for path in list((folder / _NEW).iterdir()):
        path.rename(folder / path.name)
    (folder / _NEW).rmdir()
    shutil.rmtree(old)


def placed_in(config: object, folder: Path, target: Path) -> object:
    """Return plain data in which paths in one folder are those in another."""
    if isinstance(config, dict):
        return {key: placed_in(value, folder, target) for key, value in config.items()}
    if isinstance(config, list):
        return [placed_in(value, folder, target) for value in config]
    if isinstance(config, str) and (config == str(folder) or config.startswith(f"{folder}/")):
        return f"{target}{config[len(str(folder)) :]}"
    return config
