"""Check the index of a shard set before litdata follows it.

A set may come from another person. litdata joins the names of chunks to a folder unread, downloads
and unpacks into what results, imports modules that the index names, and waits minutes for chunks
that are shorter than stated. Only what `data_modules.storage.shard_writer` writes is let through.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cmrvlm.errors import CmrvlmError

INDEX_FILE = "index.json"
# Names as litdata gives them; no folder, no beginning with a dot.
_CHUNK_NAME = re.compile(r"[A-Za-z0-9_-]{1,200}\.bin")
# An item is a text of bytes as it is, in no container.
_ITEM = [1, {"type": None, "context": None, "children_spec": []}]
_PLAIN_SETTINGS: dict[str, Any] = {
    "data_format": ["bytes"],
    "compression": None,
    "encryption": None,
    "item_loader": "PyTreeLoader",
    # Given by sets of another library alone.
    "format": None,
}
# Bytes of each number in the header of a chunk: the number of items, and where each begins.
_NUMBER_BYTES = 4


def check_index(folder: Path, root: str, *, has_chunks: bool) -> None:
    """Refuse an index that `ShardWriter` cannot have written, and chunks that do not fit it.

    Args:
        folder: Folder with the index.
        root: Folder or address of the set, for the error.
        has_chunks: All chunks lie beside the index; those of an object store come one by one.

    Raises:
        CmrvlmError: The index or a chunk is refused.
    """
    path = folder / INDEX_FILE
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        _check_settings(index["config"])
        chunks = index["chunks"]
        if not isinstance(chunks, list) or not chunks:
            raise ValueError("it lists no chunks")
        for chunk in chunks:
            _check_chunk(chunk)
            if has_chunks:
                _check_content(folder / chunk["filename"], chunk)
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise CmrvlmError(
            f"the shards' {INDEX_FILE} cannot be followed ({_reason(error)})",
            file=root,
            field="data.root",
            remedy="Write them with cmrvlm.shard.",
        ) from error


def _reason(error: Exception) -> str:
    """Return in short what is wrong with an index."""
    return f"{type(error).__name__}: {str(error)[:200]}"


def _check_settings(config: Mapping[str, Any]) -> None:
    """Refuse items that are anything but bytes as they are.

    Raises:
        ValueError: They are compressed, encrypted, pickled or in a container.
        TypeError: There are no settings.
    """
    if not isinstance(config, dict):
        raise TypeError("config is no object")
    for name, value in _PLAIN_SETTINGS.items():
        if config.get(name) != value:
            raise ValueError(f"{name} is {config.get(name)!r:.60}, {value!r} is needed")
    if json.loads(config["data_spec"]) != _ITEM:
        raise ValueError("data_spec is no item of bytes")


def _check_chunk(chunk: Mapping[str, Any]) -> None:
    """Refuse a chunk with a name that leads elsewhere, or with sizes that are none.

    Raises:
        ValueError: There is one of these.
    """
    name = chunk["filename"]
    if not isinstance(name, str) or not _CHUNK_NAME.fullmatch(name):
        raise ValueError(f"{name!r:.60} is no name of a chunk")
    for field in ("chunk_bytes", "chunk_size"):
        value = chunk[field]
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{field} of {name} is {value!r:.60}")


def _check_content(path: Path, chunk: Mapping[str, Any]) -> None:
    """Refuse a chunk that is no file, is too short, or has items that lie beside it.

    Raises:
        ValueError: There is one of these.
        OSError: It cannot be read.
    """
    # Opening a pipe would wait for ever, and a device has no end.
    if not path.is_file():
        raise ValueError(f"{path.name} is no file")
    size = path.stat().st_size
    header_bytes = _NUMBER_BYTES * (chunk["chunk_size"] + 2)
    if size < chunk["chunk_bytes"] or size < header_bytes:
        raise ValueError(f"{path.name} has {size} bytes, too few for what is stated of it")
    with path.open("rb") as file:
        header = np.frombuffer(file.read(header_bytes), np.uint32).astype(np.int64)
    count, begins = int(header[0]), header[1:]
    fits = begins[0] == header_bytes and begins[-1] <= size and bool((np.diff(begins) >= 0).all())
    if count != chunk["chunk_size"] or not fits:
        raise ValueError(f"{path.name} has items that lie beside it")
