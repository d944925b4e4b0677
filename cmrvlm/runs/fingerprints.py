"""Keep hashes of what belongs together in a run folder, and refuse parts of different runs.

They tell accidents, such as a file that was copied from another run or damaged on the way. They do
not prove who made a run: whoever writes all files can write their hashes too.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from cmrvlm.errors import CmrvlmError
from cmrvlm.language_model.network import LanguageModel, borrowed_keys, values_hash
from cmrvlm.runs.run_checks import architecture_fingerprint
from cmrvlm.runs.run_files import check_regular, naming_damage, read_mapping, read_yaml_mapping
from cmrvlm.study.atomic_files import write_json

FINGERPRINTS = "fingerprints.json"
_CONFIG = "config.yaml"
# Files and folders of a run that may not be exchanged for those of another one.
_PARTS = (
    "tokenizer",
    "labels.json",
    "preprocessing.json",
    "split.json",
    "lineage.json",
    "language_model",
    "language_model.json",
    "familiarity.safetensors",
    "model.safetensors",
)
# Sections of the configuration that weights and answers depend on. Others, such as the folder of
# the data, may be edited when a run moves to another machine.
_SECTIONS = ("encoders", "projector", "llm", "adapter", "head", "model", "transform", "mix", "seed")
# Where a language model lies on this machine; its weights have a fingerprint of their own.
_PLACES = ("path", "package", "revision", "attention_implementation")
_REMEDY = "Copy the whole run folder again from where it was trained."
log = logging.getLogger(__name__)


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def config_hash(config: Mapping[str, Any]) -> str:
    """Return a hash of the sections of a configuration that weights and answers depend on."""
    kept: dict[str, Any] = {name: config.get(name) for name in _SECTIONS}
    llm = kept["llm"]
    if isinstance(llm, dict):
        kept["llm"] = {
            name: _without_places(settings)
            for name, settings in llm.items()
            if not isinstance(settings, str)
        }
    text = json.dumps(kept, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _without_places(settings: Any) -> Any:
    """Return settings of a language model or tokenizer without those of where it lies."""
    if not isinstance(settings, dict):
        return settings
    return {name: value for name, value in settings.items() if name not in _PLACES}


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a hash of the tokens with their ids, and of how texts are cut into them."""
    digest = hashlib.sha256()
    digest.update(json.dumps(sorted(tokenizer.get_vocab().items())).encode())
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        content = json.loads(backend.to_str())
        # Padding and truncation are set anew by whoever uses it.
        kept = {name: content.get(name) for name in ("normalizer", "pre_tokenizer", "model")}
        digest.update(json.dumps(kept, sort_keys=True).encode())
    return digest.hexdigest()


def _files_of(run: Path) -> list[Path]:
    """Return the files of a run that have a fingerprint, as far as they are there."""
    files = []
    for name in _PARTS:
        path = run / name
        if path.is_dir():
            files += [inner for inner in sorted(path.rglob("*")) if not inner.is_dir()]
        elif path.exists():
            files.append(path)
    return files


def write_fingerprints(run: Path) -> None:
    """Write the fingerprints of all files of a run that are there."""
    files = {path.relative_to(run).as_posix(): file_hash(path) for path in _files_of(run)}
    config = config_hash(read_yaml_mapping(run / _CONFIG))
    write_json(run / FINGERPRINTS, {"config": config, "files": files})


def identify(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """Return hashes of what a checkpoint fits to, by what they are of.

    Args:
        model: Model of the training.
        tokenizer: Its tokenizer.
    """
    weights = model.state_dict()
    borrowed = borrowed_keys(model)
    shapes = sorted((key, tuple(value.shape)) for key, value in weights.items())
    identity = {
        "names and shapes of the weights": hashlib.sha256(str(shapes).encode()).hexdigest(),
        "the base model": values_hash({key: weights[key] for key in borrowed}),
        "the tokenizer": tokenizer_hash(tokenizer),
    }
    llm = getattr(model, "llm", None)
    if isinstance(llm, LanguageModel):
        identity["the architecture of the language model"] = architecture_fingerprint(llm)
    return identity


def check_fingerprints(run: Path, field: str = "run", only: Collection[str] | None = None) -> None:
    """Refuse a run folder whose parts are not those that its training wrote.

    A run of an earlier version has no fingerprints and is accepted.

    Args:
        run: Run folder.
        field: Setting that named the run, for the error.
        only: Files to check; None checks all, and the configuration.

    Raises:
        CmrvlmError: A file was changed, exchanged or added, is missing, or is no regular file.
    """
    path = run / FINGERPRINTS
    if not os.path.lexists(path):
        log.debug("%s: this run keeps no fingerprints of its files", run.name)
        return
    saved = read_mapping(path, field)
    expected = saved.get("files")
    if not isinstance(expected, dict):
        raise CmrvlmError("the list of files is missing", file=path, field=field, remedy=_REMEDY)
    current = {file.relative_to(run).as_posix(): file for file in _files_of(run)}
    for name in sorted(expected.keys() | current.keys()):
        if only is None or name in only:
            _check_file(run / name, expected.get(name), name in current, field)
    if only is None and config_hash(read_yaml_mapping(run / _CONFIG, field)) != saved.get("config"):
        raise CmrvlmError(
            "the settings of model, preprocessing or tasks are not those of the training",
            file=run / _CONFIG,
            field=field,
            remedy=f"{_REMEDY} Settings of the data can be changed on the command line.",
        )


def _check_file(path: Path, expected: str | None, is_there: bool, field: str) -> None:
    """Refuse a file of a run that is not the one its training wrote.

    Raises:
        CmrvlmError: It is missing, was added, or has another content.
    """
    if not is_there:
        raise CmrvlmError(
            "the file is missing from the run", file=path, field=field, remedy=_REMEDY
        )
    check_regular(path, field)
    with naming_damage(path, field):
        same = file_hash(path) == expected
    if not same:
        raise CmrvlmError(
            "the file is not the one that this run's training wrote: it is damaged or belongs to "
            "another run",
            file=path,
            field=field,
            remedy=_REMEDY,
        )
