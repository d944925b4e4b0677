"""cmrvlm: a vision-language model for cardiac MRI, trained, evaluated and applied as one experiment framework."""

import importlib
import logging

# PEFT imports bitsandbytes where it is installed, which then warns of kernels that nothing here asks for.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def __getattr__(name: str) -> type:
    """Load `CMRVLM` when it is first asked for: it needs PyTorch, which commands need not wait for.

    Raises:
        AttributeError: The package has nothing of that name.
    """
    if name == "CMRVLM":
        # By name, so that the code of data sets, whose import closure keys caches, does not reach all the rest.
        loaded: type = getattr(importlib.import_module("cmrvlm.inference.cmrvlm"), name)
        return loaded
    raise AttributeError(f"module 'cmrvlm' has no attribute '{name}'")
