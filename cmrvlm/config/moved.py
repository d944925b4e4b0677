"""Former names of modules and classes, so that runs trained before a change can still be loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

# Former module that a `_target_` of a saved run may name, to the current module of its objects.
MOVED_MODULES = {
    "cmrvlm.models.adapter": "cmrvlm.language_model.adapter",
    "cmrvlm.models.decoding": "cmrvlm.language_model.decoding",
    "cmrvlm.models.language_model": "cmrvlm.language_model.network",
    "cmrvlm.models.mask_reading": "cmrvlm.inference.mask_reading",
    "cmrvlm.models.pretrained": "cmrvlm.language_model.pretrained",
    "cmrvlm.models.text_tower": "cmrvlm.language_model.text_tower",
    "cmrvlm.text.tokenizer": "cmrvlm.language_model.tokenizer",
    "data_modules.check_run": "data_modules.checking.run",
    "data_modules.shards": "data_modules.storage.shards",
}


def _settings_of_swin3d(former: Mapping[str, Any]) -> dict[str, Any]:
    """Return one window over all axes, from `window` along (Z or T, H, W)."""
    settings = dict(former)
    first, *plane = settings.pop("window", (4, 6, 6))
    settings["windows"] = [[first, first, *plane]]
    settings.setdefault("temporal_tokens", 0)
    return settings


def _settings_of_swin4d(former: Mapping[str, Any]) -> dict[str, Any]:
    """Return a window within a frame and one along time, from `spatial_window` along (Z, H, W)."""
    settings = dict(former)
    first, *plane = settings.pop("spatial_window", (2, 6, 6))
    settings["windows"] = [[first, 1, *plane], [1, 0, 1, 1]]
    return settings


# Former class that a `_target_` of a saved run may name, to the class that replaced it and a
# function that translates its settings.
REPLACED_CLASSES: dict[str, tuple[str, Callable[[Mapping[str, Any]], dict[str, Any]]]] = {
    "cmrvlm.encoders.swin.Swin3D": ("cmrvlm.encoders.swin.SwinEncoder", _settings_of_swin3d),
    "cmrvlm.encoders.swin.Swin4D": ("cmrvlm.encoders.swin.SwinEncoder", _settings_of_swin4d),
    "cmrvlm.tasks.reasoning.VqaClosedTask": ("cmrvlm.tasks.vqa.VqaClosedTask", dict),
    "cmrvlm.tasks.reasoning.VqaOpenTask": ("cmrvlm.tasks.vqa.VqaOpenTask", dict),
}


def current_name(target: str) -> str:
    """Return the current dotted name of the object that a saved `_target_` names."""
    module, _, name = target.rpartition(".")
    return f"{MOVED_MODULES.get(module, module)}.{name}"


def current_settings(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return saved settings with a `_target_` as the current class takes them.

    Args:
        tree: `_target_` and settings as a run saved them.

    Returns:
        A copy; if the class was replaced, the new `_target_` with translated settings.
    """
    target = str(tree["_target_"])
    if target not in REPLACED_CLASSES:
        return dict(tree)
    name, translate = REPLACED_CLASSES[target]
    return {**translate(tree), "_target_": name}
