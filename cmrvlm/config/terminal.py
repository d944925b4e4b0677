r"""Show text of others on terminals and in logs as text alone.

Names of files and studies, values of headers and messages that quote them can hold sequences that
move the cursor, clear the screen, set the clipboard or reverse what is read, and line feeds that
make one line of a log look like two.
"""

from __future__ import annotations

import logging
import re
from typing import Any

from rich.console import Console
from rich.text import Text

# Control characters but for tab and line feed, marks that change the direction of writing, other
# line separators, and halves of a pair, which no terminal can be sent.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def visible(text: str) -> str:
    r"""Return a text with escapes such as `\x1b` in place of characters that act and do not show."""
    return _HIDDEN.sub(_escape, text)


def one_line(text: str) -> str:
    r"""Return a text as `visible` does, with `\n` and `\t` for line feeds and tabs, too."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def _escape(match: re.Match[str]) -> str:
    """Return the escape of one character."""
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


class PlainConsole(Console):
    """A console that prints texts as `visible` returns them, also in the cells of tables.

    Words between colons stay words: they are no names of pictures.

    Args:
        **settings: Settings of a console of rich.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(emoji=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Turn a text into what is printed; rich calls this for every text that it is given."""
        return super().render_str(visible(text), **settings)


class LineFormatter(logging.Formatter):
    """A formatter of logs that keeps each message in one line; tracebacks have several."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line of a message."""
        record.message = one_line(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        """Return a message with its traceback, if it has one."""
        return visible(super().format(record))
