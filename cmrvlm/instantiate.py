"""Objects from configuration, with `_target_` limited to this project and its declared libraries."""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

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
    "monai.transforms.",
    "torchio.transforms.",
)


def resolve(target: str, where: str) -> Any:
    """The object that a `_target_` names.

    Raises:
        CmrvlmError: It is not allowed or does not exist; the message names the key.
    """
    parts = target.split(".")
    if not target.startswith(_ALLOWED_MODULES):
        raise CmrvlmError(f"'{target}' may not be built from a configuration", field=where,
                          remedy="Use a class of this project or of its declared libraries.")  # fmt: skip
    for cut in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:cut])
        try:
            found: Any = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and name.startswith(error.name):
                continue
            raise CmrvlmError(f"'{target}' needs the package {error.name}", field=where,
                              remedy="Install the extra that brings it.") from error  # fmt: skip
        for part in parts[cut:]:
            found = getattr(found, part, None)
        home = f"{getattr(found, '__module__', '')}."
        if found is None or not home.startswith(_ALLOWED_MODULES):
            break
        return found
    raise CmrvlmError(
        f"there is no allowed object '{target}'", field=where, remedy="Check the spelling of the _target_."
    )


def check_targets(tree: Any, where: str = "config") -> None:
    """Refuse a configuration tree that names anything outside the allowed modules."""
    if isinstance(tree, dict):
        if "_target_" in tree:
            resolve(str(tree["_target_"]), f"{where}._target_")
        for key, value in tree.items():
            check_targets(value, f"{where}.{key}")
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            check_targets(value, f"{where}[{index}]")


def build(tree: Any, where: str, **extra: Any) -> Any:
    """Build what a plain configuration tree describes.

    Args:
        tree: Dict with `_target_`, settings and possibly nested trees.
        where: Key of the tree in the configuration, for messages.
        **extra: Arguments that are derived and stand in no configuration.

    Raises:
        CmrvlmError: A target is not allowed, or its arguments do not fit.
    """
    check_targets(tree, where)
    stays_partial = bool(tree.get("_partial_", False))
    try:
        # Derived arguments go past Hydra, which would turn dataclasses among them into configurations.
        factory = instantiate({**tree, "_partial_": True}, _convert_="all")
        if stays_partial:
            return partial(factory, **extra)
        return factory(**extra)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, CmrvlmError):
            raise cause from error
        raise CmrvlmError(f"it cannot be built: {cause or error}", field=where, remedy="Check its settings.") from error
    except TypeError as error:
        if "unexpected keyword" in str(error) or "missing" in str(error):
            raise CmrvlmError(f"the settings do not fit: {error}", field=where, remedy="Check the names.") from error
        raise
