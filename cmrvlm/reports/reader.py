"""Terms read from free text in either language, with word boundaries."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from cmrvlm.study.vocabulary import Term


@lru_cache(maxsize=512)
def any_of(names: tuple[str, ...]) -> re.Pattern[str]:
    """Compile a pattern that finds any of the names, longer ones first.

    Chinese has no spaces between words; Latin names must not be part of a longer word.
    """
    patterns = []
    for name in sorted(names, key=len, reverse=True):
        escaped = re.escape(name)
        if name.isascii():
            escaped = rf"(?<![\w-]){escaped}(?!\w)"
        patterns.append(escaped)
    return re.compile("|".join(patterns), re.IGNORECASE)


def terms_named(text: str, terms: Mapping[str, Term]) -> list[str]:
    """Return the codes of the terms that a text names, in the order of `terms`.

    Longer names are looked for first and taken out of the text, so that a name inside another one
    is not counted.
    """
    code_of_name = [
        (name, code) for code, term in terms.items() for name in (term.en, term.zh, *term.synonyms)
    ]
    named = set()
    for name, code in sorted(code_of_name, key=lambda pair: -len(pair[0])):
        text, count = any_of((name,)).subn(" ", text)
        if count:
            named.add(code)
    return [code for code in terms if code in named]


def single_term(text: str, terms: Mapping[str, Term]) -> str | None:
    """Return the code of the only term that a text names, None when it names none or several."""
    named = terms_named(text, terms)
    return named[0] if len(named) == 1 else None
