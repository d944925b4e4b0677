"""Objects from configuration: each place builds what `cmrvlm.config.slots` allows there."""

from __future__ import annotations

import importlib
import inspect
from functools import partial
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from cmrvlm.config.moved import current_name, current_settings
from cmrvlm.config.slots import allowed_in
from cmrvlm.errors import CmrvlmError

# Where the object of a `_target_` must be defined. Whole libraries are not open: torch.hub, for one, loads code.
_ALLOWED_MODULES = (
    "cmrvlm.",
    "data_modules.",
    "torch.optim.",
    "bitsandbytes.optim.",
    "lightning.pytorch.callbacks.",
    "lightning.pytorch.loggers.",
    "lightning.pytorch.trainer.",
)
_INTERPOLATION = "${"


def resolve(target: str, where: str) -> Any:
    """Return the object that a `_target_` names.

    Raises:
        CmrvlmError: It is not allowed or does not exist; the message names the key.
    """
    parts = target.split(".")
    if not target.startswith(_ALLOWED_MODULES):
        raise CmrvlmError(
            f"'{target}' may not be built from a configuration",
            field=where,
            remedy="Use a class of this project or of its declared libraries.",
        )
    for cut in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:cut])
        try:
            found: Any = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and name.startswith(error.name):
                continue
            raise CmrvlmError(
                f"'{target}' needs the package {error.name}",
                field=where,
                remedy="Install the extra that brings it.",
            ) from error
        for part in parts[cut:]:
            found = getattr(found, part, None)
        home = f"{getattr(found, '__module__', '')}."
        if found is None or not home.startswith(_ALLOWED_MODULES):
            break
        return found
    raise CmrvlmError(
        f"there is no allowed object '{target}'",
        field=where,
        remedy="Check the spelling of the _target_.",
    )


def resolve_in_slot(target: str, place: str) -> Any:
    """Return the object that a `_target_` names, where it fits its place.

    Args:
        target: Dotted name.
        place: Keys of the tree that holds it, from the top, joined by dots.

    Raises:
        CmrvlmError: It is neither a subclass of the place's base class nor one of its factories, or does not exist.
    """
    where = f"{place}._target_"
    found = resolve(current_name(target), where)
    names = allowed_in(place)
    for name in names:
        kind = resolve(name, where)
        if found is kind or (
            inspect.isclass(found) and inspect.isclass(kind) and issubclass(found, kind)
        ):
            return found
    remedy = (
        f"Use a subclass of it, or one of: {', '.join(names)}."
        if names
        else "Take the _target_ out."
    )
    raise CmrvlmError(f"'{target}' is not what is built here", field=where, remedy=remedy)


def checked_targets(tree: Any, place: str = "config") -> Any:
    """Return a plain configuration tree with every `_target_` replaced by the object that it names.

    Args:
        tree: Nested dicts, lists and values, all interpolations resolved.
        place: Keys that lead to the tree, joined by dots.

    Raises:
        CmrvlmError: A target does not fit its place, or a text is still to be interpolated: that could make a target
            after the check.
    """
    if isinstance(tree, dict):
        if "_target_" in tree:
            tree = current_settings(tree)
        checked = {key: checked_targets(value, f"{place}.{key}") for key, value in tree.items()}
        if "_target_" in tree:
            checked["_target_"] = resolve_in_slot(str(tree["_target_"]), place)
        return checked
    if isinstance(tree, list):
        return [checked_targets(value, f"{place}[{index}]") for index, value in enumerate(tree)]
    check_plain(
        tree, place
    )  # refuses tuples and all else that Hydra would look into and this does not
    return tree


def check_plain(tree: Any, place: str = "config") -> None:
    """Refuse what is not plain, at any depth: texts that are still to be interpolated, and containers of other kinds.

    YAML can write tuples, sets and dates, which Hydra looks into or which come from nowhere else.

    Raises:
        CmrvlmError: There is one; the message names its key.
    """
    if isinstance(tree, dict):
        for key, value in tree.items():
            check_plain(value, f"{place}.{key}")
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            check_plain(value, f"{place}[{index}]")
    elif isinstance(tree, str) and _INTERPOLATION in tree:
        raise CmrvlmError(
            f"'{tree}' is an interpolation, plain values are needed here",
            field=place,
            remedy="Write the value itself.",
        )
    elif not (tree is None or isinstance(tree, (str, int, float, bool))):
        raise CmrvlmError(
            f"a {type(tree).__name__} is no plain value",
            field=place,
            remedy="Write mappings, lists, texts, numbers, true, false or null.",
        )


def build(tree: Any, place: str, **extra: Any) -> Any:
    """Build what a plain configuration tree describes.

    Args:
        tree: Dict with `_target_`, settings and possibly nested trees.
        place: Keys that lead to the tree, joined by dots: they say what may be built.
        **extra: Arguments that are derived and stand in no configuration.

    Raises:
        CmrvlmError: A target does not fit its place, or its arguments do not fit.
    """
    if not isinstance(tree, dict) or "_target_" not in tree:
        raise CmrvlmError(
            "nothing says what is built here", field=place, remedy="Give it a _target_."
        )
    checked = checked_targets(tree, place)
    stays_partial = bool(tree.get("_partial_", False))
    try:
        # Derived arguments go past Hydra, which would turn dataclasses among them into configurations.
        factory = instantiate({**checked, "_partial_": True}, _convert_="all")
        if stays_partial:
            return partial(factory, **extra)
        return factory(**extra)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, CmrvlmError):
            raise cause from error
        raise CmrvlmError(
            f"it cannot be built: {cause or error}", field=place, remedy="Check its settings."
        ) from error
    except TypeError as error:
        if "unexpected keyword" in str(error) or "missing" in str(error):
            raise CmrvlmError(
                f"the settings do not fit: {error}", field=place, remedy="Check the names."
            ) from error
        raise
