"""Read a folder with a pretrained model that may come from another person."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from cmrvlm.config.network_size import no_larger_than
from cmrvlm.errors import CmrvlmError

_REMEDY = "Use the model as it was published."
_WEIGHTS = (".safetensors", ".bin", ".gguf")
# Models that are quantized to two bits have four values in a byte.
_VALUES_A_BYTE = 4.0
# A list with an entry for each layer is made before any network is.
_LAYERS = re.compile(r"n(um)?_([a-z]+_)*layers?")
_MOST_LAYERS = 1000
# Others fetch kernels from the hub and run them.
_QUANTIZED_BY = (None, "bitsandbytes")
# What Transformers raises about folders that it cannot read.
_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    ImportError,
    RuntimeError,
    UnpicklingError,
    SafetensorError,
    StrictDataclassError,
)


@contextmanager
def reading_model(
    source: str,
    field: str,
    remedy: str,
    gguf_file: str | None = None,
    *,
    has_weights: bool = True,
) -> Iterator[None]:
    """Check a model's folder, and stop what reads it inside the `with` block where it goes astray.

    Args:
        source: Folder, or name on the hub, of which nothing is checked beforehand.
        field: Field of the configuration, for the error.
        remedy: What the user can do where it cannot be read, for the error.
        gguf_file: File of the folder that alone is read, if there is one.
        has_weights: The weights of the folder are read, which bound the size of the network.

    Raises:
        CmrvlmError: It holds an adapter, describes a network larger than its weights, is quantized
            by code of others, or cannot be read.
    """
    check_no_adapter(source, field)
    folder = Path(source)
    try:
        if not folder.is_dir():
            yield
            return
        if gguf_file is None:
            _check_config(folder / "config.json", field)
        if not has_weights:
            yield
            return
        with no_larger_than(
            _weight_bytes(folder, gguf_file), source, field, _REMEDY, _VALUES_A_BYTE
        ):
            yield
    except CmrvlmError:
        raise
    except _ERRORS as error:
        raise CmrvlmError(
            f"the model cannot be loaded ({type(error).__name__}: {str(error)[:500]})",
            file=source,
            field=field,
            remedy=remedy,
        ) from error


def check_no_adapter(source: str, field: str) -> None:
    """Refuse a model folder with a PEFT adapter in it.

    Transformers would load the adapter unasked: it changes the weights silently, may lead to
    another model, and can name a module to import.

    Args:
        source: Folder, or name on the hub, for which nothing is downloaded here.
        field: Field of the configuration, for the error.

    Raises:
        CmrvlmError: The folder holds an adapter.
    """
    if (Path(source) / "adapter_config.json").exists():
        raise CmrvlmError(
            "the folder holds an adapter beside the model",
            file=source,
            field=field,
            remedy="Merge it into the model first, and give the folder of the merged model.",
        )


def _weight_bytes(folder: Path, gguf_file: str | None) -> int:
    """Return the size of the files with weights in a folder, or of one of them."""
    if gguf_file is not None:
        return (folder / gguf_file).stat().st_size
    files = [path for path in folder.iterdir() if path.suffix in _WEIGHTS and path.is_file()]
    return sum(path.stat().st_size for path in files)


def _check_config(path: Path, field: str) -> None:
    """Refuse a description of a network with layers without end, or one that runs code of others.

    Raises:
        CmrvlmError: It is such a description.
        ValueError: It is no JSON.
    """
    # One that is missing or a pipe is the business of who reads it.
    if not path.is_file():
        return
    for key, value in _entries(json.loads(path.read_text(encoding="utf-8"))):
        problem = ""
        if _LAYERS.fullmatch(key) and isinstance(value, (int, float)):
            # NaN is between no two numbers.
            problem = "" if 0 <= value <= _MOST_LAYERS else f"no network has {value:g} layers"
        if key == "quantization_config" and _method_of(value) not in _QUANTIZED_BY:
            problem = f"it is quantized by {_method_of(value)!r:.60}, which may run code of others"
        if problem:
            raise CmrvlmError(problem, file=path, field=f"{field}, {key}", remedy=_REMEDY)


def _method_of(settings: Any) -> Any:
    """Return the method of quantization that a configuration names, or what stands in its place."""
    if isinstance(settings, dict):
        return settings.get("quant_method")
    return settings


def _entries(tree: Any) -> Iterator[tuple[str, Any]]:
    """Yield all keys with their values, at any depth of plain data."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield key, value
            yield from _entries(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _entries(value)
