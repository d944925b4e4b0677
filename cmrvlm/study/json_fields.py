"""Values and fields of JSON that people wrote, with errors that name the field."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any

from cmrvlm.errors import CmrvlmError

REMEDY = "Correct it, or write null when it is unknown."
# Share of letters in common from which a name is taken for another that is misspelt.
_ALIKE = 0.6
_SURELY_ALIKE = 0.8


def wrong(value: Any, field: str, needed: str) -> CmrvlmError:
    """Return the error about a value that is not what its field needs."""
    shown = repr(value)
    if len(shown) > 60:
        shown = f"{shown[:60]}…"
    return CmrvlmError(f"{shown} is no {needed}", field=field, remedy=REMEDY)


def json_object(value: Any, field: str) -> dict[str, Any]:
    """Return an object of JSON without its fields that are null; null is an empty one.

    Raises:
        CmrvlmError: It is something else.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong(value, field, "object {…}")
    return {name: inner for name, inner in value.items() if inner is not None}


def json_list(value: Any, field: str) -> list[Any]:
    """Return a list of JSON.

    Raises:
        CmrvlmError: It is something else.
    """
    if not isinstance(value, list):
        raise wrong(value, field, "list […]")
    return value


def json_string(value: Any, field: str) -> str:
    """Return a text of JSON.

    Raises:
        CmrvlmError: It is something else.
    """
    if not isinstance(value, str):
        raise wrong(value, field, "text")
    return value


def json_number(value: Any, field: str) -> float:
    """Return a finite number.

    Raises:
        CmrvlmError: It is something else.
    """
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # Python reads the NaN and Infinity that other programs write; integers may be of any length.
    if not is_number or abs(value) > 1e300 or not math.isfinite(value):
        raise wrong(value, field, "finite number")
    return float(value)


def check_codes(codes: list[Any], known: Collection[str], field: str) -> None:
    """Refuse a code that is not in a vocabulary.

    Raises:
        CmrvlmError: There is one; those that it may have been meant to be are named.
    """
    for code in codes:
        if not isinstance(code, str) or code not in known:
            raise CmrvlmError(
                f"unknown code {code!r}",
                field=field,
                remedy=f"{_suggestion(str(code), known)}Known: {', '.join(known)}.",
            )


def check_fields(values: Mapping[str, Any], known: Collection[str], field: str) -> None:
    """Refuse an object with a field that is not known.

    Args:
        values: The object.
        known: Names of its fields.
        field: Where the object stands, such as `labels`; empty at the top.

    Raises:
        CmrvlmError: It has one; those that it may have been meant to be are named.
    """
    for name in values:
        if name not in known:
            raise _unknown(name, known, field)


def check_no_misspelt(
    values: Mapping[str, Any], known: Collection[str], places: Mapping[str, str]
) -> None:
    """Refuse an object with a field that is ours, misspelt or in the wrong place.

    Others are those of other tools.

    Args:
        values: The object at the top of a file.
        known: Names of its fields.
        places: Name to place of each field of ours, in whatever object.

    Raises:
        CmrvlmError: It has one.
    """
    for name in values:
        if name in known:
            continue
        alike = _alike(name, places, _SURELY_ALIKE)
        if alike:
            meant = " or ".join(places[close] for close in alike)
            raise CmrvlmError("unknown field", field=name, remedy=f"Is it {meant}?")


def _unknown(name: str, known: Collection[str], field: str) -> CmrvlmError:
    """Return the error about a field that is not known."""
    suggestion = _suggestion(name, known)
    return CmrvlmError(
        "unknown field",
        field=f"{field}.{name}" if field else name,
        remedy=f"{suggestion}Correct it, or take it out; known: {', '.join(known)}.",
    )


def _suggestion(name: str, known: Collection[str]) -> str:
    """Return a question that names what an unknown name may have been meant to be, or nothing."""
    alike = _alike(name, known, _ALIKE)
    if not alike:
        return ""
    return f"Is it {' or '.join(alike)}? "


def _alike(name: str, known: Collection[str], share: float) -> list[str]:
    """Return at most two known names that are like another one."""
    by_key = {_key(candidate): candidate for candidate in known}
    key = _key(name)[:100]
    alike = [candidate for candidate in by_key if len(key) > 2 and candidate.startswith(key)]
    if not alike:
        alike = get_close_matches(key, by_key, n=2, cutoff=share)
    return [by_key[candidate] for candidate in alike[:2]]


def _key(name: str) -> str:
    """Return a name in lower case, without what stands between its words."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())
