"""Find words for views and kinds of series in descriptions, in many languages and spellings."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.vocabulary import SEQUENCES
from data_modules.dicom.word_table import WORDS

# A user's rule that leaves a series out.
NO_SEQUENCE = "none"
_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_IDEOGRAPHIC = re.compile(f"[{_IDEOGRAPHS}]")
_BESIDE_IDEOGRAPH = re.compile(f"(?<=[{_IDEOGRAPHS}])(?=[a-z])|(?<=[a-z])(?=[{_IDEOGRAPHS}])")

# Letters that are no letter with a mark to Unicode, such as those of `kısa` and `długa`.
_PLAIN_LETTERS = str.maketrans({"ı": "i", "ł": "l", "ø": "o", "đ": "d", "æ": "ae", "œ": "oe"})


def plain_words(text: str) -> str:
    """Return a text in small letters without accents, with one blank between its words.

    Digits and letters beside one another are parted, so that `sax1` and `4CH` hold `sax` and
    `4 ch`; a capital inside a word parts it as well.
    """
    parted = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", text)
    letters = unicodedata.normalize("NFKD", parted.casefold())
    letters = "".join(letter for letter in letters if not unicodedata.combining(letter))
    letters = letters.translate(_PLAIN_LETTERS)
    # Korean syllables are one letter each.
    letters = unicodedata.normalize("NFC", letters)
    # `LGE短軸` holds `lge`: between Latin letters and ideographs no blank is written.
    letters = _BESIDE_IDEOGRAPH.sub(" ", letters)
    letters = re.sub(r"[\W_]+", " ", letters)
    return re.sub(r"(?<=\d)(?=[^\W\d])|(?<=[^\W\d])(?=\d)", " ", letters).strip()


class Vocabulary:
    """Words by what they name, and a user's rules, which go before all words.

    Args:
        words: More words by what they name, beside those of `WORDS`.
        rules: Regular expression to `sax`, `lax_4ch`, `lge`, or `none` to leave a series out; the
            first that is found in a description decides.

    Raises:
        CmrvlmError: A rule is no regular expression, a rule or word is for nothing known, or they
            have another form.
    """

    def __init__(
        self,
        words: Mapping[str, Sequence[str]] | None = None,
        rules: Mapping[str, str] | None = None,
    ) -> None:
        self._phrases = {name: set(phrases) for name, phrases in WORDS.items()}
        for name, phrases in _checked_map(words, "ingest.words", "{sax: [my name]}").items():
            if name not in self._phrases:
                raise _unknown(name, "ingest.words", tuple(WORDS))
            self._phrases[name] |= set(_checked_texts(phrases, f"ingest.words.{name}"))
        self._rules = {}
        for pattern, sequence in _checked_map(rules, "ingest.rules", "{my protocol: sax}").items():
            if sequence not in (*SEQUENCES, NO_SEQUENCE):
                raise _unknown(sequence, "ingest.rules", (*SEQUENCES, NO_SEQUENCE))
            self._rules[_compiled(pattern)] = sequence

    def rule(self, description: str) -> str | None:
        """Return what the first rule that fits says of a description, None where none fits."""
        for pattern, sequence in self._rules.items():
            if pattern.search(description):
                return sequence
        return None

    def held(self, description: str, meaning: str) -> frozenset[str]:
        """Return the words for a meaning, a key of `WORDS`, that a description holds."""
        text = plain_words(description)
        return frozenset(phrase for phrase in self._phrases[meaning] if _holds(text, phrase))

    def names(self, description: str, meaning: str) -> bool:
        """Return whether a description holds a word for a meaning, a key of `WORDS`."""
        return bool(self.held(description, meaning))


@cache
def _holds(text: str, phrase: str) -> bool:
    """Return whether plain words hold a phrase; ideographs need no blanks around them."""
    plain = plain_words(phrase)
    if _IDEOGRAPHIC.search(plain):
        return plain.replace(" ", "") in text.replace(" ", "")
    return f" {plain} " in f" {text} "


def _compiled(pattern: str) -> re.Pattern[str]:
    """Return a user's regular expression, which does not mind case.

    Raises:
        CmrvlmError: It is none.
    """
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise CmrvlmError(
            f"'{pattern}' is no regular expression ({error})",
            field="ingest.rules",
            remedy="Correct it.",
        ) from error


def _checked_map(values: Any, field: str, example: str) -> Mapping[str, Any]:
    """Return settings by text, none for None.

    Raises:
        CmrvlmError: They have another form.
    """
    if values is None:
        return {}
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        raise CmrvlmError(
            f"{values!r:.60} is no map of texts", field=field, remedy=f"Write {field}={example}."
        )
    return values


def _checked_texts(values: Any, field: str) -> Sequence[str]:
    """Return a list of texts.

    Raises:
        CmrvlmError: It is none; the letters of a single text would all be words.
    """
    is_list = isinstance(values, Sequence) and not isinstance(values, str)
    if not is_list or not all(isinstance(value, str) for value in values):
        raise CmrvlmError(
            f"{values!r:.60} is no list of texts", field=field, remedy=f"Write {field}=[my name]."
        )
    return values


def _unknown(name: str, field: str, known: Sequence[str]) -> CmrvlmError:
    return CmrvlmError(f"'{name}' is unknown", field=field, remedy=f"Known: {', '.join(known)}.")
