"""Texts from outside, made fit for one line of a log, a terminal or an error message: escaped and cut."""

from __future__ import annotations

import re

#: A value in a message is cut after this many characters.
SHOWN_CHARACTERS = 200
#: C0, DEL, C1, soft hyphen, bidi marks and overrides, invisible joiners, line separators, BOM, surrogates, tags.
UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def as_text(value: object) -> str:
    """A reply's element as text; bytes that are no text are escaped."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def escape(text: str) -> str:
    r"""Escape what could forge a line or steer a terminal: `\n` for a line feed, `\x1b` for an escape."""
    if text.isascii() and text.isprintable():
        return text
    return UNSAFE.sub(lambda found: found.group().encode("unicode_escape", "surrogatepass").decode(), text)


def counted(count: int, noun: str) -> str:
    """A count with its thousands, and a regular noun in its number: `1 job`, `48,112 jobs`."""
    return f"{count:,} {noun}{'' if abs(count) == 1 else 's'}"


def cut(text: str, limit: int) -> str:
    """Cut a text, and say how much is missing."""
    return text if len(text) <= limit else f"{text[:limit]}... ({counted(len(text) - limit, 'more character')})"


def shown(value: object, limit: int = SHOWN_CHARACTERS) -> str:
    """A value from outside, fit for one line of a message: as text, cut, and escaped."""
    try:
        text = as_text(value[: limit * 4 + 4] if isinstance(value, bytes) else value)
    except Exception as error:
        return f"(it cannot be shown: {type(error).__name__})"
    text = cut(text, limit)
    return escape(text)


def quoted(text: str) -> str:
    """A text in quotes for a message, in ASCII and cut to 60 characters."""
    shown = ascii(text)
    return shown if len(shown) <= 60 else shown[:56] + "...'"
