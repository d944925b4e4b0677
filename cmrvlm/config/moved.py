"""Former names of modules, so that runs trained before a move can still be loaded."""

from __future__ import annotations

# Module that a `_target_` of a saved run may name, to the module that its objects are in now.
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


def current_name(target: str) -> str:
    """Return the dotted name under which the object of a `_target_` is found today."""
    module, _, name = target.rpartition(".")
    return f"{MOVED_MODULES.get(module, module)}.{name}"
