"""Find words for views and kinds of series in descriptions, in many languages and spellings."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.vocabulary import SEQUENCES

# A user's rule that leaves a series out.
NO_SEQUENCE = "none"
LOCALIZER = "localizer"
OTHER_VIEW = "other_view"
OTHER_KIND = "other_kind"
CINE = "cine"

# Words by what they name. Case, accents, digits beside letters and what parts words do not count.
WORDS: Mapping[str, Sequence[str]] = {
    "sax": (
        "sax",
        "sa",
        "saxs",
        "short ax",
        "short axis",
        "shortaxis",
        "shortax",
        "kurzachse",
        "kurzachsen",
        "kurze achse",
        "kurzachsig",
        "kurzachsenschnitt",
        "petit axe",
        "eje corto",
        "asse corto",
        "eixo curto",
        "korte as",
        "kort axel",
        "kort akse",
        "короткая ось",
        "kisa aks",
        "kisa eksen",
        "os krotka",
        "短轴",
        "短軸",
        "단축",
    ),
    "lax_4ch": (
        "4 ch",
        "4 chamber",
        "4 chambers",
        "4 chamb",
        "four ch",
        "four chamber",
        "four chambers",
        "hla",
        "horizontal long axis",
        "4 kammer",
        "4 kammerblick",
        "4 kb",
        "vierkammerblick",
        "vierkammer",
        "4 cavites",
        "4 cav",
        "quatre cavites",
        "4 camaras",
        "cuatro camaras",
        "quatro camaras",
        "4 camere",
        "quattro camere",
        "4 kamer",
        "vierkamer",
        "4 kammare",
        "4 камеры",
        "四腔心",
        "四腔",
        "4 腔",
        "四心腔",
        "四腔像",
    ),
    "lge": (
        "lge",
        "late",
        "late gad",
        "late gadolinium",
        "late enhancement",
        "delayed",
        "delayed enhancement",
        "delay",
        "enhancement",
        "enhanced",
        "de tfi",
        "de ir",
        "de sax",
        "de sa",
        "de short axis",
        "de lax",
        "de mr",
        "dhe",
        "mde",
        "ce ir",
        "psir",
        "ir tfl",
        "viability",
        "viab",
        "rehaussement tardif",
        "tardif",
        "realce tardio",
        "realce tardivo",
        "tardivo",
        "spataufnahme",
        "spate",
        "spat",
        "spatanreicherung",
        "vertraagd",
        "sen forstarkning",
        "延迟强化",
        "延迟增强",
        "延迟扫描",
        "延迟",
        "遅延造影",
        "지연조영",
    ),
    LOCALIZER: (
        "scout",
        "localizer",
        "localiser",
        "localizador",
        "localizzatore",
        "survey",
        "planning",
        "3 plane",
        "three plane",
        "lokalisierer",
        "reperage",
        "定位",
        "定位像",
        "位置決め",
    ),
    OTHER_VIEW: (
        "lax",
        "long ax",
        "long axis",
        "2 ch",
        "2 chamber",
        "two chamber",
        "3 ch",
        "3 chamber",
        "three chamber",
        "5 ch",
        "rvot",
        "lvot",
        "rvla",
        "vla",
        "vertical long axis",
        "aorta",
        "aortic",
        "ao",
        "valve",
        "lange achse",
        "langachse",
        "2 kammerblick",
        "3 kammerblick",
        "grand axe",
        "2 cavites",
        "3 cavites",
        "eje largo",
        "asse lungo",
        "长轴",
        "長軸",
        "两腔",
        "二腔",
        "两腔心",
        "三腔",
        "三腔心",
        "主动脉",
    ),
    OTHER_KIND: (
        "perf",
        "perfusion",
        "dynamic",
        "first pass",
        "t 1",
        "t 2",
        "t 2 w",
        "t 1 w",
        "t 2 star",
        "map",
        "maps",
        "mapping",
        "molli",
        "shmolli",
        "sasha",
        "ecv",
        "look locker",
        "ti scout",
        "tiscout",
        "stir",
        "tag",
        "tags",
        "tagging",
        "tagged",
        "grid",
        "spamm",
        "csp amm",
        "cspamm",
        "dense",
        "strain",
        "flow",
        "venc",
        "pc",
        "phase contrast",
        "velocity",
        "4 d flow",
        "flux",
        "flujo",
        "flusso",
        "fluss",
        "haste",
        "dixon",
        "dti",
        "diffusion",
        "angio",
        "mra",
        "suiteheart",
        "cvi 42",
        "circle",
        "medis",
        "result",
        "results",
        "report",
        "segmentation",
        "contour",
        "bulls eye",
        "bullseye",
        "灌注",
        "血流",
        "标记",
        "黑血",
    ),
    CINE: ("cine", "cin", "kino", "cinema", "ssfp", "trufi", "fiesta", "bffe", "电影", "シネ"),
}
_IDEOGRAPHIC = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


def plain_words(text: str) -> str:
    """Return a text in small letters without accents, with one blank between its words.

    Digits and letters beside one another are parted, so that `sax1` and `4CH` hold `sax` and
    `4 ch`; a capital inside a word parts it as well.
    """
    parted = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", text)
    letters = unicodedata.normalize("NFKD", parted.casefold())
    letters = "".join(letter for letter in letters if not unicodedata.combining(letter))
    # Korean syllables are one letter each.
    letters = unicodedata.normalize("NFC", letters)
    letters = re.sub(r"[\W_]+", " ", letters)
    return re.sub(r"(?<=\d)(?=[^\W\d])|(?<=[^\W\d])(?=\d)", " ", letters).strip()


class Vocabulary:
    """Words by what they name, and a user's rules, which go before all words.

    Args:
        words: More words by what they name, beside those of `WORDS`.
        rules: Regular expression to `sax`, `lax_4ch`, `lge`, or `none` to leave a series out; the
            first that is found in a description decides.

    Raises:
        CmrvlmError: A rule is no regular expression, or a rule or word is for nothing known.
    """

    def __init__(
        self,
        words: Mapping[str, Sequence[str]] | None = None,
        rules: Mapping[str, str] | None = None,
    ) -> None:
        self._phrases = {name: set(phrases) for name, phrases in WORDS.items()}
        for name, phrases in (words or {}).items():
            if name not in self._phrases:
                raise _unknown(name, "ingest.words", tuple(WORDS))
            self._phrases[name] |= set(phrases)
        self._rules = {}
        for pattern, sequence in (rules or {}).items():
            if sequence not in (*SEQUENCES, NO_SEQUENCE):
                raise _unknown(sequence, "ingest.rules", (*SEQUENCES, NO_SEQUENCE))
            self._rules[_compiled(pattern)] = sequence

    def rule(self, description: str) -> str | None:
        """Return what the first rule that fits says of a description, None where none fits."""
        for pattern, sequence in self._rules.items():
            if pattern.search(description):
                return sequence
        return None

    def names(self, description: str, meaning: str) -> bool:
        """Return whether a description holds a word for a meaning, a key of `WORDS`."""
        text = plain_words(description)
        return any(_holds(text, phrase) for phrase in self._phrases[meaning])


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


def _unknown(name: str, field: str, known: Sequence[str]) -> CmrvlmError:
    return CmrvlmError(f"'{name}' is unknown", field=field, remedy=f"Known: {', '.join(known)}.")
