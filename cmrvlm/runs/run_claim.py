"""A run folder belongs to one training at a time, and an earlier run in it stays until the new one is whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.atomic_files import clear_leftovers

WEIGHTS, CHECKPOINTS = "model.safetensors", "checkpoints"
_LOCK, _NEW, _OLD = ".lock", ".new", ".old"
# What a training, and what was made of it, leaves in its folder; a replacement leaves everything else where it is.
_OF_A_RUN = (
    "config.yaml",
    WEIGHTS,
    "tokenizer",
    "labels.json",
    "preprocessing.json",
    "split.json",
    "lineage.json",
    "language_model",
    "language_model.json",
    CHECKPOINTS,
    "logs",
    "tensorboard",
    "wandb",
    "samples",
    "panels",
    "result.json",
    "traceback.txt",
    "evaluation",
    "prediction",
)


class FolderTakenError(CmrvlmError):
    """A folder holds a run that may not be written over, or another training writes into it."""


def holds_run(folder: Path) -> bool:
    """Return whether a folder has what a training left: weights or checkpoints."""
    return (folder / WEIGHTS).is_file() or any((folder / CHECKPOINTS).glob("*.ckpt"))


@contextmanager
def claimed(
    folder: Path, *, overwrite: bool, resumed: Path | None, first_process: bool
) -> Iterator[Path]:
    """Give the folder that a training writes into; other trainings are kept out meanwhile.

    That is the run folder itself. Where it holds another run that is to be written over, it is `.new` in it, whose
    content takes the place of the other run's once the training has ended well.

    Args:
        folder: Run folder.
        overwrite: Whether a run in it may be replaced.
        resumed: Run folder whose checkpoint the training goes on with, or None.
        first_process: Whether this is the process that writes; the others write nothing.

    Raises:
        FolderTakenError: It holds a run and may not be written over, or another training writes into it.
    """
    if not first_process:
        yield _target(folder, resumed)
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise FolderTakenError(
            "another training writes into this folder",
            file=folder,
            field="out",
            remedy="Give another out=<folder>.",
        ) from None
    try:
        _finish_replacement(folder)
        target = _target(folder, resumed)
        replaces = target != folder
        resumes = resumed is not None and resumed.resolve() == target.resolve()
        if replaces and not (overwrite or resumes):
            raise FolderTakenError(
                "the folder holds a run already",
                file=folder,
                field="out",
                remedy="Give another out=<folder>, go on with ckpt_path=…, or replace it with overwrite=true.",
            )
        if replaces and not resumes:
            _remove(target)  # of a replacement that was not finished
        for place in (target, target / CHECKPOINTS):
            clear_leftovers(place)
        yield target
        if replaces:
            _put_in_place(folder)
    finally:
        lock.release()


def _target(folder: Path, resumed: Path | None) -> Path:
    """Return where a training writes: the folder, or `.new` in it where another run stays until this one is whole."""
    goes_on = resumed is not None and resumed.resolve() == folder.resolve()
    return folder / _NEW if holds_run(folder) and not goes_on else folder


def _put_in_place(folder: Path) -> None:
    """Let what lies in `.new` take the place of the earlier run, by renaming alone."""
    new, old = folder / _NEW, folder / _OLD
    _remove(old)
    old.mkdir()
    for name in sorted({*_OF_A_RUN, *(path.name for path in new.iterdir())}):
        if (folder / name).exists() or (folder / name).is_symlink():
            (folder / name).rename(old / name)
    _finish_replacement(folder)


def _finish_replacement(folder: Path) -> None:
    """End the renames of a replacement; one that was killed amid them is ended, or taken back, at the next start.

    Weights come last out of `.new`: while they lie there, the new run is whole and not yet in its place.
    """
    new, old = folder / _NEW, folder / _OLD
    if not old.is_dir() or old.is_symlink():
        return
    if (new / WEIGHTS).is_file():
        for path in sorted(new.iterdir(), key=lambda path: path.name == WEIGHTS):
            if (folder / path.name).exists():
                (folder / path.name).rename(old / path.name)
            path.rename(folder / path.name)
        _remove(new)
    elif not holds_run(folder):
        for path in list(old.iterdir()):
            path.rename(folder / path.name)
    _remove(old)


def _remove(place: Path) -> None:
    """Remove a folder of this module's own; of a link the link alone."""
    if place.is_symlink():
        place.unlink()
    elif place.exists():
        shutil.rmtree(place)


def placed_in(config: object, folder: Path, target: Path) -> object:
    """Return plain data in which paths in one folder are those in another."""
    if isinstance(config, dict):
        return {key: placed_in(value, folder, target) for key, value in config.items()}
    if isinstance(config, list):
        return [placed_in(value, folder, target) for value in config]
    if isinstance(config, str) and os.sep in config:
        place, inside = os.path.abspath(config), os.path.abspath(folder)
        if place == inside or place.startswith(inside + os.sep):
            return f"{target}{place[len(inside) :]}"
    return config
