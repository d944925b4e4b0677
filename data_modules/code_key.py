"""Hash the code that makes something, so that what was kept is made anew when the code changes."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterable
from functools import cache
from pathlib import Path

PACKAGES = ("cmrvlm", "data_modules")


def modules_of(*objects: object) -> list[str]:
    """Return the names of our modules that define some objects' classes and those of their attributes.

    Args:
        *objects: Instances, such as a source, whose attributes may be instances of other classes of ours.
    """
    parts = [part for one in objects for part in (one, *getattr(one, "__dict__", {}).values())]
    parts += [item for part in parts if isinstance(part, dict) for item in part.values()]
    return sorted({type(part).__module__ for part in parts if _is_ours(type(part).__module__)})


def import_closure(modules: Iterable[str]) -> dict[str, Path]:
    """Return every module of our packages that some modules import, directly or through others.

    Imports inside functions count; libraries do not.

    Args:
        modules: Dotted names of modules to begin with.

    Returns:
        Dotted name to file, the given modules included.
    """
    found: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        path = _file_of(name)
        if name in found or path is None:
            continue
        found[name] = path
        waiting += [*_imports(path), name.rpartition(".")[0]]
    return found


def code_digest(modules: Iterable[str]) -> str:
    """Return a hash of the code of some modules and of all that they import from our packages.

    Comments, docstrings and layout do not count: a reworded docstring need not rebuild an archive's cache.
    """
    digest = hashlib.sha256()
    for name, path in sorted(import_closure(modules).items()):
        digest.update(f"{name} {_code_of(path)}\n".encode())
    return digest.hexdigest()


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] in PACKAGES


@cache
def _root_of(package: str) -> Path | None:
    """Return the folder that holds a package, or None where it is not installed."""
    spec = importlib.util.find_spec(package)
    locations = spec.submodule_search_locations if spec else None
    return Path(locations[0]).parent if locations else None


@cache
def _file_of(module: str) -> Path | None:
    """Return the file of one of our modules, or None for what is no module of ours."""
    if not _is_ours(module):
        return None
    root = _root_of(module.partition(".")[0])
    if root is None:
        return None
    path = root.joinpath(*module.split("."))
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if file.is_file()), None)


@cache
def _imports(path: Path) -> tuple[str, ...]:
    """Return the dotted names that a file imports; names that are no modules are among them."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(names)


@cache
def _code_of(path: Path) -> str:
    """Return a hash of a file's syntax tree without its docstrings."""
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()
