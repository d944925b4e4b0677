"""Hash the code that makes something, so that what was kept is made anew when the code changes."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterable
from functools import cache
from pathlib import Path

# Packages of this project; libraries do not count as code that makes something.
PACKAGES = ("cmrvlm", "data_modules")


def modules_of(*objects: object) -> list[str]:
    """Return the modules of this project that define the classes of objects and their attributes.

    Args:
        *objects: Instances, such as a source. Attributes, and values of attributes that are
            dictionaries, count too.

    Returns:
        Dotted names, sorted.
    """
    instances: list[object] = []
    for root in objects:
        instances += [root, *getattr(root, "__dict__", {}).values()]
    for instance in list(instances):
        if isinstance(instance, dict):
            instances += instance.values()
    names = {type(instance).__module__ for instance in instances}
    return sorted(name for name in names if _is_project_module(name))


def import_closure(modules: Iterable[str]) -> dict[str, Path]:
    """Return every module of this project that some modules import, directly or through others.

    Imports inside functions count; libraries do not.

    Args:
        modules: Dotted names of modules to begin with.

    Returns:
        File by dotted name, the given modules included.
    """
    closure: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        path = _file_of(name)
        if name in closure or path is None:
            continue
        closure[name] = path
        # The packages around a module run before it.
        waiting += [*_imports(path), name.rpartition(".")[0]]
    return closure


def code_digest(modules: Iterable[str]) -> str:
    """Compute a hash of the code of some modules and of all that they import from this project.

    Comments, docstrings and layout do not count: a reworded docstring need not rebuild the cache of
    an archive.

    Args:
        modules: Dotted names.
    """
    digest = hashlib.sha256()
    for name, path in sorted(import_closure(modules).items()):
        digest.update(f"{name} {_code_of(path)}\n".encode())
    return digest.hexdigest()


def _is_project_module(module: str) -> bool:
    """Return whether a dotted name lies in a package of this project."""
    return module.partition(".")[0] in PACKAGES


@cache
def _root_of(package: str) -> Path | None:
    """Return the folder that holds a package, or None where it is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]).parent


@cache
def _file_of(module: str) -> Path | None:
    """Return the file of a module of this project, or None for any other name."""
    if not _is_project_module(module):
        return None
    root = _root_of(module.partition(".")[0])
    if root is None:
        return None
    path = root.joinpath(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in candidates if file.is_file()), None)


@cache
def _imports(path: Path) -> tuple[str, ...]:
    """Return the dotted names that a file imports, names of objects in modules among them."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(names)


@cache
def _code_of(path: Path) -> str:
    """Compute a hash of a file's syntax tree without its docstrings."""
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()
