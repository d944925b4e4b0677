"""What a generated answer says: terms found in free text, with word boundaries, in either language."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from cmrvlm.study.vocabulary import Term


@lru_cache(maxsize=512)
def any_of(names: tuple[str, ...]) -> re.Pattern[str]:
    """Finds any of the names, longer ones first.

    Chinese has no spaces between words; Latin names must not be part of a longer word.
    """
    parts = [
        re.escape(name) if not name.isascii() else rf"(?<![\w-]){re.escape(name)}(?!\w)"
        for name in sorted(names, key=len, reverse=True)
    ]
    return re.compile("|".join(parts), re.IGNORECASE)


def terms_named(text: str, terms: Mapping[str, Term]) -> list[str]:
    """Codes of the terms that occur in `text`, in the order of `terms`.

    Longer names are looked for first and taken out of the text, so that a name inside another one is not found.
    """
    names = [
        (name, code) for code, term in terms.items() for name in (term.en, term.zh, *term.synonyms)
    ]
    found = set()
    for name, code in sorted(names, key=lambda item: -len(item[0])):
        text, count = any_of((name,)).subn(" ", text)
        if count:
            found.add(code)
    return [code for code in terms if code in found]


def single_term(text: str, terms: Mapping[str, Term]) -> str | None:
    """The one term that the text names; None when it names none or several."""
    named = terms_named(text, terms)
    return named[0] if len(named) == 1 else None
