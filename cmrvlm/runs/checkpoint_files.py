"""Write checkpoints atomically, and name the file of one that cannot be read."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from cmrvlm.errors import CmrvlmError
from cmrvlm.runs.run_claim import newest_checkpoint, resume_argument
from cmrvlm.study.atomic_files import atomic_write

MEGABYTE = 1_000_000
# Key of the hashes of what a checkpoint fits to.
_IDENTITY = "cmrvlm_identity"
# What Lightning needs to resume a training.
_CONTENT = {
    "state_dict": dict,
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "epoch": int,
    "global_step": int,
    "pytorch-lightning_version": str,
}


class CheckpointFiles(TorchCheckpointIO):
    """Checkpoint files that are written under a temporary name beside their path and then renamed.

    Each holds hashes of what it fits to, and is refused by a training with another model,
    tokenizer or base model.

    Lightning writes into the system's temporary folder and moves the file. On another file system
    the move is a copy, and a run that is killed during it leaves an empty `last.ckpt`.

    Args:
        identity: Hashes of what a checkpoint of this training fits to, by what they are of.
    """

    def __init__(self, identity: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.identity = dict(identity or {})

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: Plain data and tensors.
            path: Local path of the file.
            storage_options: Not used.

        Raises:
            CmrvlmError: The disk is full, or the folder cannot be written.
        """
        file = Path(path)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(file) as temporary:
                torch.save({**checkpoint, _IDENTITY: self.identity}, temporary)
        # PyTorch raises RuntimeError when its writer fails on a full disk.
        except (OSError, RuntimeError) as error:
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
        """Read a checkpoint, always with `weights_only=True`, so that no pickled code is run.

        Args:
            path: Local path of the file.
            map_location: Device of the tensors as in `torch.load`, by default the CPU.
            weights_only: Not used.

        Raises:
            CmrvlmError: The file is missing or damaged; the message names the newest valid
                checkpoint beside it.
        """
        file = Path(path)
        if not file.is_file():
            raise CmrvlmError(
                "there is no such checkpoint", file=file, field="ckpt_path", remedy=_remedy(file)
            )
        try:
            # Only archives are read: older formats of PyTorch are unpacked in other ways.
            if not zipfile.is_zipfile(file):
                raise ValueError("no archive of torch.save")
            content = torch.load(file, map_location=map_location or "cpu", weights_only=True)
            _check_content(content)
        except (
            OSError,
            EOFError,
            RuntimeError,
            ValueError,
            TypeError,
            LookupError,
            AttributeError,
            pickle.UnpicklingError,
            zipfile.BadZipFile,
        ) as error:
            reason = type(error).__name__
            if str(error):
                reason = str(error).splitlines()[0]
            raise CmrvlmError(
                f"the checkpoint is damaged ({reason[:120]})",
                file=file,
                field="ckpt_path",
                remedy=_remedy(file),
            ) from error
        self._check_identity(content, file)
        return dict(content)

    def _check_identity(self, content: Mapping[str, Any], file: Path) -> None:
        """Refuse a checkpoint of another training; those of earlier versions have no hashes.

        Raises:
            CmrvlmError: A hash differs.
        """
        saved = content.get(_IDENTITY)
        if not isinstance(saved, dict):
            return
        for name, expected in self.identity.items():
            if saved.get(name, expected) != expected:
                raise CmrvlmError(
                    f"the checkpoint belongs to another training: {name} differ",
                    file=file,
                    field="ckpt_path",
                    remedy="Resume with the settings, the base model and the run folder that it "
                    "was written with.",
                )


def _check_content(content: Any) -> None:
    """Refuse what is no checkpoint of a training.

    Raises:
        ValueError: Something that Lightning needs is missing, or of another type.
    """
    if not isinstance(content, dict):
        raise ValueError(f"a {type(content).__name__}, and no checkpoint")
    for name, kind in _CONTENT.items():
        if not isinstance(content.get(name), kind):
            raise ValueError(f"'{name}' is missing or no {kind.__name__}")
    for name, weight in content["state_dict"].items():
        if not (isinstance(name, str) and isinstance(weight, torch.Tensor)):
            raise ValueError(f"'{name}' of state_dict is no tensor")


def _size_mb(content: Any) -> float:
    """Return the size in MB of all tensors in nested dicts, lists and tuples."""
    if isinstance(content, torch.Tensor):
        return content.numel() * content.element_size() / MEGABYTE
    if isinstance(content, dict):
        return sum(_size_mb(value) for value in content.values())
    if isinstance(content, (list, tuple)):
        return sum(_size_mb(value) for value in content)
    return 0.0


def _remedy(file: Path) -> str:
    """Return the advice to resume from the newest valid checkpoint beside an invalid one."""
    newest = newest_checkpoint(file.parent, besides=file)
    if newest is None:
        return "There is no whole one beside it: begin anew with overwrite=true."
    return f"Go on with {resume_argument(newest)}"
