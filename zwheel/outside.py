"""What comes from outside: bytes, numbers and texts that anyone with a Redis client could have written.

Everything here takes anything and never raises, so that one damaged value costs itself alone. Texts that go into a log
or an error message pass through `shown` or `Escaping`: a control character would forge lines or steer a terminal, and
a value may be a megabyte long.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from zwheel.plain import UNSAFE, as_text, cut, escape, shown
from zwheel.times import MAX_MS

__all__ = [
    "UNSAFE", "Escaping", "Listing", "Sayer", "Unreadable", "as_text", "cut", "escape", "escaped", "fenced", "fenced_below",
    "flat", "is_text", "score_ms", "shown", "whole",
]  # fmt: skip

T = TypeVar("T")
#: A value in a line of a log is cut after this many characters, a traceback and a whole record after so many.
LINE_CHARACTERS = 4_000
TRACEBACK_CHARACTERS = 20_000
RECORD_CHARACTERS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """One entry of a listing that this version cannot read: damaged, or written by a newer one."""

    name: str
    """What it is called: a schedule's or worker's name, a queue, a day; bytes that are no text are escaped."""
    queue: str
    """The queue that it belongs to; '' when it belongs to none."""
    reason: str
    """Why it cannot be read, in a sentence."""


class Listing(list[T]):
    """A list of what could be read, with what could not: nobody is blinded by one damaged entry."""

    def __init__(self, found: Iterable[T] = (), unreadable: Iterable[Unreadable] = ()) -> None:
        super().__init__(found)
        #: What could not be read, each with the reason.
        self.unreadable: list[Unreadable] = list(unreadable)


def is_text(value: object) -> bool:
    """Whether a reply's element is text, so that it can be named in a further call."""
    if not isinstance(value, bytes):
        return isinstance(value, str)
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def score_ms(value: object) -> int | None:
    """A score or a number as whole ms, a fraction rounded up; None when it is no number or no time of this calendar.

    Example: a fire time of 12.5 is due at 13, and never at 12; `inf`, `nan`, -5 and 1e300 are no times.
    """
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    if not 0 <= number <= MAX_MS:
        return None
    whole = int(number)
    return whole if whole == number else whole + 1


def whole(value: object, least: int = 0, most: int = 1 << 53) -> int | None:
    """A whole number within bounds, from a number or digits; None for anything else."""
    try:
        number = int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if least <= number <= most else None


def flat(reply: Any) -> list[tuple[Any, Any]]:
    """Names with values, or members with scores, however a client gave them: in turns, in pairs, or as a mapping."""
    if isinstance(reply, dict):
        return list(reply.items())
    if not isinstance(reply, (list, tuple)):
        return []
    if reply and isinstance(reply[0], (list, tuple)):
        return [(pair[0], pair[1]) for pair in reply if len(pair) == 2]
    return list(zip(reply[::2], reply[1::2], strict=False))


class Escaping(logging.Filter):
    """Escapes and bounds the values in what zwheel itself logs, whatever handlers the application has.

    One record stays one line. A traceback keeps its lines, each behind a bar, so that none passes for a record.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Put escaped values in the place of the record's; keep every record."""
        if isinstance(record.args, tuple):
            record.args = tuple(_safe(value) for value in record.args)
        if record.exc_info and not record.exc_text:
            record.exc_text = fenced(_PLAIN.formatException(record.exc_info))
        return True


_PLAIN = logging.Formatter()


class _Fenced(str):
    """A text that is escaped already, and may have several lines."""

    __slots__ = ()


def _safe(value: object) -> object:
    if value is None or type(value) in (int, float, bool, _Fenced):
        return value
    return shown(value, LINE_CHARACTERS)


def fenced(text: str) -> str:
    """Escape a text of several lines, each behind a bar."""
    return "\n".join(f"  | {escape(line)}" for line in cut(text, TRACEBACK_CHARACTERS).split("\n"))


def fenced_below(text: str) -> str:
    """A value for a log record that follows its line: a text of several lines, escaped, each behind a bar."""
    return _Fenced("\n" + fenced(text.rstrip("\n"))) if text.strip() else _Fenced("")


def escaped(name: str) -> logging.Logger:
    """The logger of a part of zwheel, its records escaped and bounded from now on."""
    found = logging.getLogger(name)
    if not any(isinstance(known, Escaping) for known in found.filters):
        found.addFilter(Escaping())
    return found


class Sayer:
    """Says troubles at a bounded rate: the same one once in `every_s`, and no more than `most` lines a minute in all.

    What is left unsaid is counted, and the count is said with the next line.
    """

    def __init__(self, log: logging.Logger, *, every_s: float = 600.0, most: int = 20) -> None:
        self._log = log
        self._every_s = every_s
        self._most = most
        self._said: dict[object, float] = {}
        self._minute = 0.0
        self._lines = 0
        self._unsaid = 0

    def say(self, level: int, key: object, message: str, *values: object, trace: bool = False) -> bool:
        """Log it, unless this key was said lately. trace: with the traceback of the exception being handled."""
        now = time.monotonic()
        if now - self._said.get(key, -self._every_s) < self._every_s:
            return False
        if now - self._minute >= 60.0:
            self._minute, self._lines = now, 0
        if self._lines >= self._most:
            self._unsaid += 1
            return False
        if len(self._said) >= 1000:
            self._said = {k: at for k, at in self._said.items() if now - at < self._every_s}
            if len(self._said) >= 1000:
                self._said.clear()
        self._said[key] = now
        self._lines += 1
        more = f" ({self._unsaid:,} further messages of this kind were left out)" if self._unsaid else ""
        self._unsaid = 0
        self._log.log(level, message + more, *values, exc_info=trace)
        return True
