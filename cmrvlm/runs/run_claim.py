"""Reserve a run folder for one training, and keep an earlier run in it until the new one is done."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cmrvlm.config.command import quoted
from cmrvlm.errors import CmrvlmError
from cmrvlm.study.atomic_files import clear_leftovers

WEIGHTS = "model.safetensors"
CHECKPOINTS = "checkpoints"
_LOCK = ".lock"
_NEW = ".new"
_OLD = ".old"
# Files and folders that belong to a run. A replacement leaves everything else in its place.
_OF_A_RUN = (
    "config.yaml",
    WEIGHTS,
    "tokenizer",
    "labels.json",
    "preprocessing.json",
    "familiarity.safetensors",
    "split.json",
    "lineage.json",
    "fingerprints.json",
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
    """An error for a folder that holds a run to be kept, or that another training writes into."""


def holds_run(folder: Path) -> bool:
    """Return whether a folder holds weights or checkpoints of a training."""
    return (folder / WEIGHTS).is_file() or any((folder / CHECKPOINTS).glob("*.ckpt"))


def newest_checkpoint(folder: Path, besides: Path | None = None) -> Path | None:
    """Return the newest complete checkpoint of a folder of checkpoints, or None.

    Args:
        folder: Folder of the files.
        besides: A file that does not count.
    """
    # `torch.save` writes zip archives; an incomplete one has no index at its end.
    complete = [
        path for path in folder.glob("*.ckpt") if path != besides and zipfile.is_zipfile(path)
    ]
    return max(complete, key=lambda path: path.stat().st_mtime, default=None)


def resume_argument(checkpoint: Path) -> str:
    """Return what to add to a command to resume from a checkpoint, quoted for Hydra and the shell."""
    if re.fullmatch(r"[\w./+-]+", str(checkpoint), re.ASCII):
        return f"ckpt_path={checkpoint}"
    argument = f"ckpt_path={quoted(checkpoint)}"
    if re.search(r'["$`\\!]', argument):
        return shlex.quote(argument)
    return f'"{argument}"'


@contextmanager
def claimed(
    folder: Path, *, overwrite: bool, resumed: Path | None, first_process: bool
) -> Iterator[Path]:
    """Lock a run folder and yield the folder that the training writes into.

    That is the run folder itself. If it holds another run to be replaced, it is the subfolder
    `.new`, whose content replaces the other run after the training has ended without an error.

    Args:
        folder: Run folder.
        overwrite: Whether a run in the folder may be replaced.
        resumed: Run folder whose checkpoint the training resumes from, or None.
        first_process: Whether this process writes files; the others take no lock.

    Raises:
        FolderTakenError: The folder holds a run that may not be replaced, or another training
            writes into it.
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
            raise _holds_run_already(folder)
        if replaces and not resumes:
            # A replacement that was interrupted may have left files.
            _remove(target)
        clear_leftovers(target)
        clear_leftovers(target / CHECKPOINTS)
        yield target
        if replaces:
            _put_in_place(folder)
    finally:
        lock.release()


def _holds_run_already(folder: Path) -> FolderTakenError:
    """Return the error for a folder with a run, which says how one that was broken off goes on."""
    newest = newest_checkpoint(folder / CHECKPOINTS)
    remedy = "Give another out=<folder>, or replace it with overwrite=true."
    if newest is not None:
        # Last and without a full stop, so that it can be copied.
        remedy = (
            "Give another out=<folder>, replace it with overwrite=true, "
            f"or go on with the same command and {resume_argument(newest)}"
        )
    if (folder / WEIGHTS).is_file():
        return FolderTakenError(
            "the folder holds a run already", file=folder, field="out", remedy=remedy
        )
    return FolderTakenError(
        "the folder holds a run already, which was broken off",
        file=folder,
        field="out",
        remedy=remedy,
    )


def _target(folder: Path, resumed: Path | None) -> Path:
    """Return the folder that a training writes into: the run folder, or `.new` beside another run."""
    resumes = resumed is not None and resumed.resolve() == folder.resolve()
    if holds_run(folder) and not resumes:
        return folder / _NEW
    return folder


def _put_in_place(folder: Path) -> None:
    """Replace the earlier run by the content of `.new`, by renames alone."""
    new = folder / _NEW
    old = folder / _OLD
    _remove(old)
    old.mkdir()
    for name in sorted({*_OF_A_RUN, *(path.name for path in new.iterdir())}):
        if (folder / name).exists() or (folder / name).is_symlink():
            (folder / name).rename(old / name)
    _finish_replacement(folder)


def _finish_replacement(folder: Path) -> None:
    """Complete the renames of a replacement.

    A replacement that was killed during them is completed, or undone, at the next start.
    """
    new = folder / _NEW
    old = folder / _OLD
    if not old.is_dir() or old.is_symlink():
        return
    # Weights leave `.new` last: while they are there, the new run is complete but not in place.
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


def _remove(path: Path) -> None:
    """Remove `.new` or `.old`; of a symbolic link only the link."""
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def placed_in(config: object, folder: Path, target: Path) -> object:
    """Return a copy of plain data in which all paths inside one folder lead into another.

    Args:
        config: Nested dicts, lists and values.
        folder: Folder of the paths to change.
        target: Folder that replaces it.
    """
    if isinstance(config, dict):
        return {key: placed_in(value, folder, target) for key, value in config.items()}
    if isinstance(config, list):
        return [placed_in(value, folder, target) for value in config]
    if isinstance(config, str) and os.sep in config:
        path = os.path.abspath(config)
        root = os.path.abspath(folder)
        if path == root or path.startswith(root + os.sep):
            return f"{target}{path[len(root) :]}"
    return config
