"""Checkpoints as files: each is there whole or not at all, and one that cannot be read is named."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.atomic_files import atomic_write

MEGABYTE = 1_000_000


class CheckpointFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its file and renames it.

    Lightning writes it into the folder for temporary files and moves it. Where that is another file system, moving is
    copying, and a run that is killed meanwhile leaves an empty `last.ckpt`.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: Plain data and tensors.
            path: The file, on this machine.
            storage_options: Not used.

        Raises:
            CmrvlmError: The disk is full, or the folder cannot be written.
        """
        file = Path(path)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(file) as temporary:
                torch.save(checkpoint, temporary)
        except (
            OSError,
            RuntimeError,
        ) as error:  # what torch raises when its writer fails on a full disk
            needed = _size_mb(checkpoint)
            raise CmrvlmError(
                f"the checkpoint cannot be written ({error}); it needs about {needed:.0f} MB",
                file=file,
                remedy="Free the space, or write elsewhere with out=<folder>.",
            ) from error

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint, always without running what a pickle could hold.

        Raises:
            CmrvlmError: There is none, or it is damaged; the newest other one beside it is named.
        """
        file = Path(path)
        if not file.is_file():
            raise CmrvlmError(
                "there is no such checkpoint", file=file, field="ckpt_path", remedy=_others(file)
            )
        try:
            return dict(torch.load(file, map_location=map_location or "cpu", weights_only=True))
        except (
            OSError,
            EOFError,
            RuntimeError,
            ValueError,
            KeyError,
            pickle.UnpicklingError,
        ) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CmrvlmError(
                f"the checkpoint is damaged ({reason[:120]})",
                file=file,
                field="ckpt_path",
                remedy=_others(file),
            ) from error


def _size_mb(content: Any) -> float:
    """Return the size of all tensors in nested plain data."""
    if isinstance(content, torch.Tensor):
        return content.numel() * content.element_size() / MEGABYTE
    if isinstance(content, dict):
        return sum(_size_mb(value) for value in content.values())
    if isinstance(content, (list, tuple)):
        return sum(_size_mb(value) for value in content)
    return 0.0


def _others(file: Path) -> str:
    """Return what to do without a checkpoint: go on with the newest whole one beside it."""
    whole = [
        path for path in file.parent.glob("*.ckpt") if path != file and zipfile.is_zipfile(path)
    ]
    if not whole:
        return "There is no whole one beside it: begin anew with overwrite=true."
    newest = max(whole, key=lambda path: path.stat().st_mtime)
    return f"Go on with ckpt_path={newest}."
