"""Build objects from a configuration, each of a type that `cmrvlm.config.slots` allows there."""

from __future__ import annotations

import importlib
import inspect
from functools import partial
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from cmrvlm.config.moved import current_name, current_settings
from cmrvlm.config.setting_types import check_setting_types
from cmrvlm.config.slots import allowed_in
from cmrvlm.errors import CmrvlmError

# Modules in which the object of a `_target_` must be defined. Whole libraries are not allowed:
# torch.hub, for example, downloads code and runs it.
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


def resolve(target: str, field: str) -> Any:
    """Return the object that a `_target_` names.

    Args:
        target: Dotted name.
        field: Key of the `_target_`, for the error.

    Raises:
        CmrvlmError: The object is not allowed or does not exist.
    """
    parts = target.split(".")
    if not target.startswith(_ALLOWED_MODULES):
        raise CmrvlmError(
            f"'{target}' may not be built from a configuration",
            field=field,
            remedy="Use a class of this project or of its declared libraries.",
        )
    # The longest prefix that can be imported is the module; the rest are its attributes.
    for cut in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:cut])
        try:
            resolved: Any = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and name.startswith(error.name):
                continue
            raise CmrvlmError(
                f"'{target}' needs the package {error.name}",
                field=field,
                remedy="Install the extra that brings it.",
            ) from error
        for part in parts[cut:]:
            resolved = getattr(resolved, part, None)
        # An allowed module may import an object of another one, which is not allowed by that.
        defining_module = f"{getattr(resolved, '__module__', '')}."
        if resolved is None or not defining_module.startswith(_ALLOWED_MODULES):
            break
        return resolved
    raise CmrvlmError(
        f"there is no allowed object '{target}'",
        field=field,
        remedy="Check the spelling of the _target_.",
    )


def resolve_in_slot(target: str, key_path: str) -> Any:
    """Return the object that a `_target_` names, if it is allowed at this place.

    Args:
        target: Dotted name.
        key_path: Keys from the top of the configuration to the tree, joined by dots.

    Raises:
        CmrvlmError: The object is neither a subclass of a base class allowed there nor one of the
            factories, or does not exist.
    """
    field = f"{key_path}._target_"
    resolved = resolve(current_name(target), field)
    names = allowed_in(key_path)
    for name in names:
        allowed = resolve(name, field)
        if resolved is allowed:
            return resolved
        both_classes = inspect.isclass(resolved) and inspect.isclass(allowed)
        if both_classes and issubclass(resolved, allowed):
            return resolved
    remedy = "Take the _target_ out."
    if names:
        remedy = f"Use a subclass of it, or one of: {', '.join(names)}."
    raise CmrvlmError(f"'{target}' is not what is built here", field=field, remedy=remedy)


def checked_targets(tree: Any, key_path: str = "config") -> Any:
    """Return a plain configuration tree with every `_target_` replaced by the object that it names.

    Args:
        tree: Nested dicts, lists and values, all interpolations resolved.
        key_path: Keys from the top of the configuration to the tree, joined by dots.

    Raises:
        CmrvlmError: A target is not allowed at its place, or a text holds an interpolation, which
            could become a target after the check.
    """
    if isinstance(tree, dict):
        if "_target_" in tree:
            tree = current_settings(tree)
        checked = {key: checked_targets(value, f"{key_path}.{key}") for key, value in tree.items()}
        if "_target_" in tree:
            target = resolve_in_slot(str(tree["_target_"]), key_path)
            check_setting_types(target, tree, key_path)
            checked["_target_"] = target
        return checked
    if isinstance(tree, list):
        return [checked_targets(value, f"{key_path}[{index}]") for index, value in enumerate(tree)]
    # Refuses tuples and other containers, which Hydra would search for targets and this does not.
    check_plain(tree, key_path)
    return tree


def check_plain(tree: Any, key_path: str = "config") -> None:
    """Refuse interpolations, and values other than dicts, lists, texts, numbers, booleans and None.

    YAML can write tuples, sets and dates. Hydra searches tuples for targets, and no configuration
    of this project holds any of them.

    Args:
        tree: Configuration, checked at any depth.
        key_path: Keys from the top of the configuration to the tree, joined by dots.

    Raises:
        CmrvlmError: There is such a value; the message names its key.
    """
    if isinstance(tree, dict):
        for key, value in tree.items():
            check_plain(value, f"{key_path}.{key}")
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            check_plain(value, f"{key_path}[{index}]")
    elif isinstance(tree, str) and _INTERPOLATION in tree:
        raise CmrvlmError(
            f"'{tree}' is an interpolation, plain values are needed here",
            field=key_path,
            remedy="Write the value itself.",
        )
    elif not (tree is None or isinstance(tree, (str, int, float, bool))):
        raise CmrvlmError(
            f"a {type(tree).__name__} is no plain value",
            field=key_path,
            remedy="Write mappings, lists, texts, numbers, true, false or null.",
        )


def build(tree: Any, key_path: str, **extra: Any) -> Any:
    """Build what a plain configuration tree describes.

    Args:
        tree: Dict with `_target_`, settings and possibly nested trees.
        key_path: Keys from the top of the configuration to the tree, joined by dots; they decide
            what may be built.
        **extra: Arguments that are computed and stand in no configuration.

    Returns:
        The object, or with `_partial_: true` a function that makes it.

    Raises:
        CmrvlmError: A target is not allowed at its place, or its arguments do not fit.
    """
    if not isinstance(tree, dict) or "_target_" not in tree:
        raise CmrvlmError(
            "nothing says what is built here", field=key_path, remedy="Give it a _target_."
        )
    checked = checked_targets(tree, key_path)
    stays_partial = bool(tree.get("_partial_", False))
    try:
        # Computed arguments bypass Hydra, which would turn dataclasses into configurations.
        factory = instantiate({**checked, "_partial_": True}, _convert_="all")
        if stays_partial:
            return partial(factory, **extra)
        return factory(**extra)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, CmrvlmError):
            raise cause from error
        raise CmrvlmError(
            f"it cannot be built: {cause or error}", field=key_path, remedy="Check its settings."
        ) from error
    except TypeError as error:
        if "unexpected keyword" in str(error) or "missing" in str(error):
            raise CmrvlmError(
                f"the settings do not fit: {error}",
                field=key_path,
                remedy="Check the names, and whether what is chosen here takes them.",
            ) from error
        raise
