"""Hold settings against the types that the parameters of this project's classes are annotated with."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import suppress
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from cmrvlm.errors import CmrvlmError

_OWN_PACKAGES = ("cmrvlm.", "data_modules.")
_PLAIN = (int, float, bool, str, NoneType)
_NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    NoneType: "null",
}


def check_setting_types(target: Any, settings: Mapping[str, Any], key_path: str) -> None:
    """Refuse a text, number or flag where a parameter takes another kind of value.

    Only parameters that take nothing but texts, numbers, flags and null are checked, and only those
    of this project: other libraries check their own.

    Args:
        target: Class or function that is built.
        settings: Its settings by name.
        key_path: Keys from the top of the configuration to the settings, joined by dots.

    Raises:
        CmrvlmError: A value is of another kind; the message names its key.
    """
    if not f"{getattr(target, '__module__', '')}.".startswith(_OWN_PACKAGES):
        return
    hints = _hints(target)
    for name, value in settings.items():
        kinds = _plain_kinds(hints.get(name))
        if not kinds or any(_fits(value, kind) for kind in kinds):
            continue
        choices = " or ".join(_named(kind) for kind in kinds)
        raise CmrvlmError(
            f"{value!r:.60} is not {choices}",
            field=f"{key_path}.{name}",
            remedy="Write a value of that kind.",
        )


def _hints(target: Any) -> dict[str, Any]:
    """Return the annotations of a class's or function's parameters, as far as they can be read."""
    function = target.__init__ if inspect.isclass(target) else target
    names = getattr(function, "__globals__", {})
    hints: dict[str, Any] = {}
    for parameter, annotation in getattr(function, "__annotations__", {}).items():
        # Names that are imported for type checkers alone cannot be read; the others can.
        with suppress(NameError):
            one = SimpleNamespace(__annotations__={parameter: annotation})
            hints |= get_type_hints(one, names)
    return hints


def _plain_kinds(hint: Any) -> list[Any]:
    """Return the types and literal values that a hint allows; empty where it allows others too."""
    if get_origin(hint) in (Union, UnionType):
        parts = [_plain_kinds(part) for part in get_args(hint)]
        return [kind for kinds in parts for kind in kinds] if all(parts) else []
    if get_origin(hint) is Literal or hint in _PLAIN:
        return [hint]
    return []


def _fits(value: Any, kind: Any) -> bool:
    """Return whether a value is of a kind; a flag is no number, and a whole number is a number."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, (int, float))
    return isinstance(value, kind)


def _named(kind: Any) -> str:
    """Return in words what a kind of value is."""
    if get_origin(kind) is Literal:
        return " or ".join(repr(choice) for choice in get_args(kind))
    return _NAMES[kind]
