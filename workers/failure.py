"""Turns what a task raised into a Failure that can be stored and shown: bounded, and without control characters."""

from __future__ import annotations

import traceback

from zwheel.job import Failure, Reason
from zwheel.record import MESSAGE_CHARS, TRACEBACK_CHARS

from .claims import Claim

_FRAMES = 8


class Reported(Exception):
    """An error that brings its own report: that is stored in the place of a traceback."""

    def __init__(self, message: str, report: str) -> None:
        super().__init__(message)
        self.report = report


def printable(text: str, limit: int) -> str:
    """Shorten a text and escape what could steer a terminal or a log; newlines and tabs stay."""
    cut = text if len(text) <= limit else text[: limit - 3] + "..."
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in cut)


def describe(error: BaseException) -> str:
    """The text of an exception, also of one whose `__str__` raises."""
    try:
        return str(error)
    except BaseException as fault:
        return f"(its text cannot be had: {type(fault).__name__})"


def failure_of(claim: Claim, error: BaseException | None, reason: Reason, at_ms: int, worker: str) -> Failure:
    """Describe how an attempt ended."""
    if error is None:
        return Failure(at_ms=at_ms, attempt=claim.attempt, reason=reason, worker=worker)
    try:
        frames = "".join(traceback.format_tb(error.__traceback__, limit=-_FRAMES))
    except Exception:
        frames = ""
    report = error.report if isinstance(error, Reported) else frames
    return Failure(
        at_ms=at_ms,
        attempt=claim.attempt,
        reason=reason,
        kind=printable(type(error).__qualname__, 200),
        message=printable(describe(error), MESSAGE_CHARS),
        traceback=printable(report[-TRACEBACK_CHARS:], TRACEBACK_CHARS),
        worker=worker,
    )
