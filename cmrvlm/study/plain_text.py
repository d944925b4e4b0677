"""What no text holds: control characters, and halves of characters, which no file can be written with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cmrvlm.errors import CmrvlmError

# Tabs and the ends of lines are text. Bytes of a file's name that are no UTF-8 are read as halves
# of characters.
_NO_TEXT = re.compile("[\0-\x08\x0e-\x1f\x7f\ud800-\udfff]")
_PROBLEM = "holds a control character, such as NUL, or half a character"


def check_text(value: Any, field: str, file: Path | None = None) -> None:
    """Refuse what no text holds in a text, or in the texts of plain data.

    Args:
        value: Text, number or nested dicts and lists of them.
        field: Where it stands.
        file: File that holds it.

    Raises:
        CmrvlmError: A text or a key holds it.
    """
    if isinstance(value, dict):
        for key, inner in value.items():
            check_text(key, field, file)
            check_text(inner, f"{field}.{key}" if field else key, file)
    elif isinstance(value, list):
        for inner in value:
            check_text(inner, field, file)
    elif isinstance(value, str) and _NO_TEXT.search(value):
        raise CmrvlmError(f"the value {_PROBLEM}", file=file, field=field, remedy="Write it again.")


def checked_names(names: Sequence[str], root: Path) -> list[str]:
    """Return names of studies that are those of files or folders.

    Args:
        names: The names.
        root: Folder in which they lie.

    Raises:
        CmrvlmError: A name holds what no text holds.
    """
    for name in names:
        if _NO_TEXT.search(name):
            raise CmrvlmError(
                f"the name {name!r:.80} {_PROBLEM}",
                file=root,
                field="data.root",
                remedy="Rename it.",
            )
    return list(names)
