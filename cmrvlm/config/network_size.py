"""Bound the size of a network that a configuration of another person describes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from cmrvlm.errors import CmrvlmError

# Tied weights are registered twice before they are tied.
_REGISTRATIONS = 2
# Beside the weights of a file: parts that are built and then replaced by others.
_SPARE = 1_000_000
# Sections of the configuration that describe the network and its images.
_SECTIONS = ("encoders", "projector", "llm", "adapter", "head", "model", "transform")
# No count of layers, channels, tokens or voxels of a network is larger.
_MOST = 10_000_000


def check_numbers(config: Mapping[str, Any]) -> None:
    """Refuse numbers in the description of a network that no network has.

    Args:
        config: Plain configuration of a run.

    Raises:
        CmrvlmError: There is such a number; the message names its key.
    """
    for name in _SECTIONS:
        _check_numbers(config.get(name), name)


def _check_numbers(tree: Any, key_path: str) -> None:
    """Refuse numbers that are too large, in plain data of any depth.

    Raises:
        CmrvlmError: There is one.
    """
    if isinstance(tree, dict):
        for key, value in tree.items():
            _check_numbers(value, f"{key_path}.{key}")
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            _check_numbers(value, f"{key_path}[{index}]")
    elif isinstance(tree, (int, float)) and not abs(tree) <= _MOST:
        raise CmrvlmError(
            f"no network has the number {str(tree)[:40]}",
            field=key_path,
            remedy="Copy the run folder again from where it was trained.",
        )


@contextmanager
def no_larger_than(
    weight_bytes: int, config: str | Path, field: str, remedy: str, values_a_byte: float = 0.5
) -> Iterator[None]:
    """Stop building a network as soon as it has more values than the weights that it is to take.

    A configuration of a few lines can describe a network that fills the memory, or one with layers
    without end.

    Args:
        weight_bytes: Size of the files of its weights.
        config: Configuration that describes the network, for the error.
        field: Setting that named it, for the error.
        remedy: What the user can do, for the error.
        values_a_byte: Most values that a byte of the files holds; quantized ones take less room.

    Raises:
        CmrvlmError: The network that is built inside the `with` block is larger.
    """
    most = _REGISTRATIONS * int(weight_bytes * values_a_byte) + _SPARE
    built = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal built
        if parameter is None:
            return
        built += max(1, parameter.numel())
        if built > most:
            raise CmrvlmError(
                f"it describes a network larger than the weights beside it; {name} of "
                f"{type(module).__name__} is {tuple(parameter.shape)}",
                file=config,
                field=field,
                remedy=remedy,
            )

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()
