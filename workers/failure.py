"""Turns what a task raised into a Failure that can be stored and shown: bounded, and without control characters."""

from __future__ import annotations

import traceback

from zwheel.errors import UndecodableJob
from zwheel.job import Failure, Reason
from zwheel.record import MESSAGE_CHARS, TRACEBACK_CHARS, failures_of

from .claims import Claim

_FRAMES = 8


class Reported(Exception):
    """An error that brings its own report: that is stored in the place of a traceback."""

    def __init__(self, message: str, report: str) -> None:
        super().__init__(message)
        self.report = report


class Elsewhere(Exception):
    """What a task raised in another process: told by its name, its text and its report, never rebuilt."""

    def __init__(self, kind: str, message: str, report: str) -> None:
        super().__init__(message)
        self.kind = kind
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


def describe_error(error: BaseException) -> tuple[str, str, str]:
    """Give the name of an exception's class, its text, and its traceback or report: bounded and printable."""
    try:
        frames = "".join(traceback.format_tb(error.__traceback__, limit=-_FRAMES))
    except Exception:
        frames = ""
    report = error.report if isinstance(error, (Reported, Elsewhere)) else frames
    kind = error.kind if isinstance(error, Elsewhere) else type(error).__qualname__
    return (
        printable(kind, 200),
        printable(describe(error), MESSAGE_CHARS),
        printable(report[-TRACEBACK_CHARS:], TRACEBACK_CHARS),
    )


def failure_of(claim: Claim, error: BaseException | None, reason: Reason, at_ms: int, worker: str) -> Failure:
    """Describe how an attempt ended."""
    if error is None:
        return Failure(at_ms=at_ms, attempt=claim.attempt, reason=reason, worker=worker)
    kind, message, report = describe_error(error)
    return Failure(
        at_ms=at_ms, attempt=claim.attempt, reason=reason, kind=kind, message=message, traceback=report, worker=worker
    )


def earlier_failures(claim: Claim) -> tuple[Failure, ...]:
    """The failures that a claimed job carries; none where they cannot be read."""
    try:
        return failures_of(claim.raw)
    except (ValueError, UndecodableJob):
        return ()
