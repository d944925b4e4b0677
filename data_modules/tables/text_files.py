"""Text files of other people: which encoding they are in, and what is no text at all."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from charset_normalizer import from_bytes

from cmrvlm.errors import CmrvlmError

# A larger file is no table of studies and no clinical text; it may be a sparse file of zeros.
MOST_BYTES = 2**30

# The mark of UTF-32 begins with that of UTF-16, so it is compared first.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Simplified Chinese is written with the characters of GB 2312, which are rare in what Japanese or
# traditional Chinese text becomes when it is read as GB 18030.
_LEAST_GB2312 = 0.9
# EUC-KR stores Hangul where GB 2312 has the characters from "a" to "qi" by their sound. About half
# of a Chinese text lies behind them, and next to nothing of a Korean one.
_LEAST_BEHIND_HANGUL = 0.1
_FIRST_BEHIND_HANGUL = b"\xc9\xa1"
# Rare characters begin here in GB 2312. Greek and Cyrillic letters become such.
_LEAST_FREQUENT = 0.7
_FIRST_RARE = b"\xd8\xa1"
_KANA = re.compile(r"[\u3041-\u30ff]")
# What accented letters of DOS and Mac OS become in cp1252, signs and capitals inside a word, and
# what they become where a text is UTF-8 but for a byte that is damaged.
_NOT_CP1252 = re.compile(
    r"[a-zß-ÿ][‚„†‡ˆ‰‹›˜¢£¤¥¦¨¬¯±³¶¸¹º»¼½¾¿¡“”…‘•™ŠŒŽŸ][a-zß-ÿ]|[ÂÃ][\u00a0-\u00bf]|â€"
)
# Two letters of another alphabet in a row look like this; no word of Western Europe does.
_MANY_ACCENTS = re.compile(r"[À-ÖØ-öø-ÿ]{4}")


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, UTF-16, GB 18030 or cp1252.

    Raises:
        CmrvlmError: It is in none of these, holds NUL characters, is too large for a text, or
            cannot be read.
    """
    check_size(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise CmrvlmError(
            f"the file cannot be read ({error.strerror})", file=path, remedy="Check its rights."
        ) from error
    # DOS ends a text by a mark.
    text = _decode(path, raw).removesuffix("\x1a")
    position = text.find("\0")
    if position >= 0:
        raise CmrvlmError(
            "the text holds NUL characters",
            file=path,
            field=f"row {text.count(chr(10), 0, position) + 1}",
            remedy="It is damaged or no text; export it again.",
        )
    return text


def check_size(path: Path) -> None:
    """Refuse what is no file, and a file that is larger than any table or text of studies.

    Raises:
        CmrvlmError: It is.
    """
    # A pipe would be read for ever, and a device has no size.
    if not path.is_file():
        raise CmrvlmError(
            "there is no such file, or it is a pipe or a device",
            file=path,
            remedy="Check the path.",
        )
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise CmrvlmError(
            f"the file has {size / 2**30:.1f} GiB, too much for a table or a text",
            file=path,
            remedy="Check whether it is the right file.",
        )


def _decode(path: Path, raw: bytes) -> str:
    """Decode the bytes of a text file.

    Raises:
        CmrvlmError: They are no text in a known encoding.
    """
    for encoding in _stated_encodings(raw):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError as error:
            raise _unknown_encoding(path, raw, error.start) from error
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        start = error.start
    best = from_bytes(raw, cp_isolation=["gb18030", "cp1252"]).best()
    if best is None:
        raise _unknown_encoding(path, raw, start)
    text = str(best)
    is_plausible = _is_chinese if best.encoding == "gb18030" else _is_western
    if not is_plausible(text):
        raise _unknown_encoding(path, raw, start)
    return text


def _stated_encodings(raw: bytes) -> list[str]:
    """Return the encoding that a text states by its first bytes, if it does."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if raw.startswith(mark):
            return [encoding]
    # Without a mark UTF-16 shows by every other byte of the first words, which are English.
    even, odd = raw[0:8:2], raw[1:8:2]
    if len(odd) < 4:
        return []
    if not any(odd) and all(even):
        return ["utf-16-le"]
    if not any(even) and all(odd):
        return ["utf-16-be"]
    return []


def _unknown_encoding(path: Path, raw: bytes, position: int) -> CmrvlmError:
    """Return the error about bytes that cannot be decoded.

    Args:
        path: The file.
        raw: Its bytes.
        position: Index of the first byte that is not UTF-8.
    """
    row = raw.count(b"\n", 0, position) + 1
    shown = raw[position : position + 12]
    return CmrvlmError(
        f"the text cannot be decoded: the bytes {shown!r} are in an unknown encoding",
        file=path,
        field=f"row {row}",
        remedy="Save it as UTF-8.",
    )


def _is_chinese(text: str) -> bool:
    """Return whether a text that was decoded as GB 18030 is simplified Chinese indeed."""
    if _KANA.search(text):
        return False
    characters = "".join(letter for letter in text if "\u3400" <= letter <= "\u9fff")
    if not characters:
        return False
    common = characters.encode("gb2312", errors="ignore")
    codes = [common[index : index + 2] for index in range(0, len(common), 2)]
    behind_hangul = sum(code >= _FIRST_BEHIND_HANGUL for code in codes)
    frequent = sum(code < _FIRST_RARE for code in codes)
    return (
        len(codes) >= _LEAST_GB2312 * len(characters)
        and frequent >= _LEAST_FREQUENT * len(characters)
        and behind_hangul >= _LEAST_BEHIND_HANGUL * len(characters)
    )


def _is_western(text: str) -> bool:
    """Return whether a text that was decoded as cp1252 is Western European indeed."""
    return not _NOT_CP1252.search(text) and not _MANY_ACCENTS.search(text)
