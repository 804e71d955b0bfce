"""Turns what a task raised into a Failure that can be stored and shown: bounded, and without control characters."""

from __future__ import annotations

import os
import traceback
from types import TracebackType
from typing import TypeVar

from zwheel.client import functions
from zwheel.errors import UndecodableJob
from zwheel.job import Failure, Reason
from zwheel.record import MESSAGE_CHARS, TRACEBACK_CHARS, failures_of

from .claims import Claim

E = TypeVar("E", bound=BaseException)
#: How many of the last frames of each exception are told: fewer, when more do not fit.
_FRAMES = (8, 4, 2, 1)
#: How many exceptions of a group, and of groups within it, are looked at.
_PARTS = 1_000
#: Where the frames are that stand between a worker and its task.
_WORKERS = os.path.dirname(os.path.abspath(__file__)) + os.sep


class Reported(Exception):
    """An error that brings its own report: that is stored in the place of a traceback."""

    def __init__(self, message: str, report: str) -> None:
        super().__init__(message)
        self.report = report


class NotAllowed(Reported):
    """This worker may not run the command of a job; another one may, when it allows all that is needed."""

    def __init__(self, message: str, needs: frozenset[str]) -> None:
        """needs: digests of allow-list entries."""
        super().__init__(message, "")
        self.needs = needs


class Elsewhere(Exception):
    """What a task raised in another process: told by its name, its text and its report, never rebuilt."""

    def __init__(self, kind: str, message: str, report: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.report = report


class RemoteTraceback(Exception):
    """Stands in the place of the frames of what was raised in another process: they are its text."""


def as_raised(error: BaseException) -> BaseException:
    """An exception for a log and its readers: under its own name, where its class is not in this process."""
    if not isinstance(error, Elsewhere):
        return error
    name = error.kind.rpartition(".")[2]
    kind: type[Exception] = type(name, (Exception,), {"__qualname__": error.kind, "__module__": "builtins"})
    raised = kind(describe(error))
    if error.report.strip():
        raised.__cause__ = RemoteTraceback("\n" + error.report.rstrip("\n"))
    return raised


def printable(text: str, limit: int) -> str:
    """Shorten a text and escape what could steer a terminal or a log; newlines and tabs stay."""
    cut = text if len(text) <= limit else text[: limit - 3] + "..."
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in cut)


def parts_of(error: BaseException) -> list[BaseException]:
    """The exceptions that a group holds, also in groups within it; else the exception itself."""
    found: list[BaseException] = []
    left = [error]
    while left and len(found) < _PARTS:
        one = left.pop()
        if isinstance(one, BaseExceptionGroup):
            left += reversed(one.exceptions[:_PARTS])
        else:
            found.append(one)
    return found


def part_of(error: BaseException, kinds: type[E] | tuple[type[E], ...]) -> E | None:
    """The first exception of these kinds: the error itself, or one of its group. None: there is none."""
    return next((part for part in [error, *parts_of(error)] if isinstance(part, kinds)), None)


def describe(error: BaseException) -> str:
    """The text of an exception, also of one whose `__str__` raises. The text of a group names the exceptions in it."""
    try:
        text = str(error)
    except BaseException as fault:
        text = f"(its text cannot be had: {type(fault).__name__})"
    if isinstance(error, BaseExceptionGroup):
        inner = (": ".join(filter(None, (kind_of(part), describe(part)))) for part in parts_of(error)[:10])
        text = f"{text}: {'; '.join(inner)}"
    return text


def kind_of(error: BaseException) -> str:
    """The name of an exception's class."""
    return error.kind if isinstance(error, Elsewhere) else type(error).__qualname__


def frames_of(error: BaseException) -> TracebackType | None:
    """The traceback of an exception from the task's own frames on; None when it has none."""
    frames = error.__traceback__
    while frames is not None:
        file = frames.tb_frame.f_code.co_filename
        if not file.startswith(_WORKERS) and file != functions.__file__:
            break
        frames = frames.tb_next
    return frames


def report_of(error: BaseException) -> str:
    """An exception as Python tells it, with its causes, its notes and those of its group; bounded, not yet printable."""
    if isinstance(error, (Reported, Elsewhere)):
        return error.report
    frames = frames_of(error) or error.__traceback__
    text = ""
    for most in _FRAMES:
        try:
            told = traceback.TracebackException(type(error), error, frames, limit=-most, max_group_width=5)
            text = "".join(told.format())
        except Exception:
            return text
        if len(text) <= TRACEBACK_CHARS:
            return text
    # The first cause stands first, and what was raised in the end last.
    half = TRACEBACK_CHARS // 2 - 10
    return f"{text[:half]}\n[...]\n{text[-half:]}"


def describe_error(error: BaseException) -> tuple[str, str, str]:
    """Give the name of an exception's class, its text, and its traceback or report: bounded and printable."""
    return (
        printable(kind_of(error), 200),
        printable(describe(error), MESSAGE_CHARS),
        printable(report_of(error)[-TRACEBACK_CHARS:], TRACEBACK_CHARS),
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
