"""Outcomes: what becomes of a job by what happened to it, told to its settler, the log and the observer."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from zwheel.calls import Session
from zwheel.client.tasks import BaseTask
from zwheel.errors import JobCancelled, UnknownTask
from zwheel.job import QueueName, Reason
from zwheel.logs import job_fields
from zwheel.outside import escaped, fenced_below
from zwheel.plain import counted
from zwheel.record import write_failures
from zwheel.retry import Discard, Retry, Snooze
from zwheel.times import DAY_MS

from .asks import GONE_MS
from .claims import Claim, Observer, Stop
from .failure import (
    Elsewhere,
    NotAllowed,
    Reported,
    as_raised,
    describe,
    earlier_failures,
    failure_of,
    frames_of,
    kind_of,
    part_of,
    parts_of,
)
from .isolated import NotStarted
from .occurrences import begun_at_ms
from .peers import Peers
from .settler import Settler
from .unknown import FIRST_MS, judge

log = escaped("zwheel.worker")

#: For how long a job is handed back when there is no free process, ms.
_HANDED_BACK_MS = (500, 1_000)
#: A retry is put off by 1,000 years at the most, so that its fire time stays within the calendar.
_LONGEST_DELAY_MS = 365_000 * DAY_MS
#: No job snoozes for less: it would run without end, as fast as it can.
_LEAST_SNOOZE_MS = 100
#: For what reasons we stop a job that is to run again as if it had not begun.
_UNHARMED = (Stop.DRAIN, Stop.SILENT)


class Outcomes:
    """Turns what happened to a job of this worker process into what its settler sends. Each job has one outcome."""

    def __init__(
        self,
        tasks: Mapping[bytes, BaseTask[Any, Any]],
        session: Session,
        worker: str,
        unknown_ttl_ms: int,
        peers: Callable[[QueueName], Peers | None],
        observer: Observer | None,
        log_done: bool = False,
    ) -> None:
        """Make it in the thread of the event loop.

        peers: tells which other workers of a queue know a task. log_done: log jobs that ended well at info, else at debug.
        """
        self._tasks = tasks
        self._session = session
        self._worker = worker
        self._unknown_ttl_ms = unknown_ttl_ms
        self._peers = peers
        self._observer = observer
        self._done_level = logging.INFO if log_done else logging.DEBUG
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def well(self, claim: Claim, settler: Settler) -> None:
        """The function returned."""
        if claim.ended:
            self._ended_late(claim)
            return
        if claim.stop is not Stop.LOST:
            settler.complete(claim)
        if log.isEnabledFor(self._done_level):
            self._say(self._done_level, claim, "done in %s, attempt %d", _since(claim), claim.attempt)
        if self._observer is not None:
            self.observe("done", claim)

    def _ended_late(self, claim: Claim) -> None:
        self._say(logging.INFO, claim, "it ended after its outcome was settled")

    def hand_back(self, claim: Claim, settler: Settler, away_ms: int) -> None:
        """Let others have a job for which there is no process here; it comes back when they have none either."""
        settler.release(claim, away_ms)
        self.observe("released", claim)

    def raised(self, claim: Claim, settler: Settler, task: BaseTask[Any, Any], error: BaseException) -> None:
        """The function raised, or was cancelled."""
        if claim.ended:
            self._ended_late(claim)
        elif claim.asked and claim.stop is not Stop.LOST:
            self.cancelled(claim, settler, error)
        elif claim.stop is not None and isinstance(error, asyncio.CancelledError):
            self.stopped(claim, settler, error)
        else:
            self.failed(claim, settler, task, error)

    def stopped(self, claim: Claim, settler: Settler, error: BaseException | None) -> None:
        """It was stopped, for the reason that its claim says. error: the cancellation, as the function raised it."""
        if claim.stop in _UNHARMED:
            if claim.stop is Stop.DRAIN and claim.in_thread:
                # It runs on until this process ends: nobody may start it before that. An occurrence has as long to begin
                # after that time as it had at first.
                settler.release(claim, GONE_MS)
            else:
                settler.release(claim, at_ms=begun_at_ms(claim))
            self.observe("released", claim)
        elif claim.stop is Stop.CANCEL:
            self.cancelled(claim, settler, error)
        elif claim.stop is Stop.TIMEOUT:
            late = TimeoutError("the task ran longer than its timeout")
            # Where it was when it was cancelled.
            late.__traceback__ = None if error is None else frames_of(error)
            self._again_or_bury(claim, settler, self.task_of(claim), late)
        else:
            self._say(logging.WARNING, claim, "stopped, its lease is lost")
            self.observe("lost", claim)

    def cancelled(self, claim: Claim, settler: Settler, error: BaseException | None) -> None:
        """It ended since it was asked to cancel it, whatever it raised then. error: None when it had not begun."""
        settler.cancel(claim)
        told = None if error is None or isinstance(error, (asyncio.CancelledError, JobCancelled)) else error
        if error is None:
            self._say(logging.INFO, claim, "cancelled before it began")
        else:
            self._say(logging.INFO, claim, "cancelled after %s, attempt %d", _since(claim), claim.attempt, error=told)
        self.observe("cancelled", claim)

    def task_of(self, claim: Claim) -> BaseTask[Any, Any] | None:
        """The task of a claim that was started; None when it is not known here."""
        return self._tasks.get(claim.task_name.encode())

    def failed(self, claim: Claim, settler: Settler, task: BaseTask[Any, Any] | None, error: BaseException) -> None:
        """The job's function, or the code that starts it, raised. An exception in a group counts as if it was raised alone."""
        if claim.stop is Stop.LOST:
            self.observe("lost", claim)
        elif claim.asked:
            self.cancelled(claim, settler, error)
        elif isinstance(error, NotStarted):
            self._say(logging.ERROR, claim, "%s; it is handed back", error)
            self.hand_back(claim, settler, random.randint(*_HANDED_BACK_MS))
        elif part_of(error, Discard):
            self.bury(claim, settler, error, Reason.DISCARDED)
        elif claim.stop is None and (later := part_of(error, Snooze)):
            self._snooze(claim, settler, later)
        elif claim.stop in _UNHARMED:
            # An error that the task raised after zwheel cancelled it says nothing about the job.
            self.stopped(claim, settler, error)
        elif task is not None and part_of(error, task.policy.give_up_on):
            self.bury(claim, settler, error, Reason.DISCARDED)
        else:
            self._again_or_bury(claim, settler, task, error)

    def _snooze(self, claim: Claim, settler: Settler, later: Snooze) -> None:
        delay_ms = min(max(later.delay_ms, _LEAST_SNOOZE_MS), _LONGEST_DELAY_MS)
        settler.release(claim, delay_ms)
        words = ": ".join(filter(None, (f"snoozed for {_span(delay_ms)}", describe(later))))
        self._say(logging.INFO, claim, "%s", words)
        self.observe("released", claim)

    def _again_or_bury(
        self, claim: Claim, settler: Settler, task: BaseTask[Any, Any] | None, error: BaseException
    ) -> None:
        reason = Reason.TIMEOUT if claim.stop is Stop.TIMEOUT else Reason.ERROR
        attempt = claim.attempt
        if attempt >= claim.max_attempts:
            self.bury(claim, settler, error, reason)
            return
        asked = part_of(error, Retry)
        delay_ms = asked.delay_ms if asked is not None else None
        if delay_ms is None:
            delay_ms = task.policy.backoff.delay_ms(attempt) if task is not None else FIRST_MS
        delay_ms = min(delay_ms, _LONGEST_DELAY_MS)
        settler.retry(claim, delay_ms, self._failures(claim, error, reason))
        again = "attempt %d of %d failed, again in %s", attempt, claim.max_attempts, _span(delay_ms)
        if _on_purpose(error):
            self._say(logging.INFO, claim, *again, error=error, trace=False)
        else:
            self._say(logging.ERROR, claim, *again, error=error)
        self.observe("retried", claim)

    def bury(self, claim: Claim, settler: Settler, error: BaseException | None, reason: Reason) -> None:
        """It is dead."""
        settler.bury(claim, self._failures(claim, error, reason))
        attempts = counted(claim.attempt, "attempt")
        if error is not None and _on_purpose(error):
            self._say(logging.WARNING, claim, "dead after %s: %s", attempts, reason, error=error, trace=False)
        else:
            self._say(logging.ERROR, claim, "dead after %s: %s", attempts, reason, error=error)
        self.observe("buried", claim)

    def _failures(self, claim: Claim, error: BaseException | None, reason: Reason) -> bytes:
        failure = failure_of(claim, error, reason, self._session.clock.now_ms(), self._worker)
        return write_failures([*earlier_failures(claim), failure])

    def _say(
        self, level: int, claim: Claim, message: str, *values: object,
        error: BaseException | None = None, trace: bool = True,
    ) -> None:  # fmt: skip
        """Log something of a job, with the error that ended its attempt. trace: also where that was raised."""
        words: list[object] = [claim.job_id, claim.task_name or "?", *values]
        message = f"job %s (%s): {message}"
        raised: Any = None
        if error is not None:
            message += ": %s"
            words.append(": ".join(filter(None, (kind_of(error), describe(error)))))
            if trace:
                told = as_raised(error)
                frames = None if isinstance(error, (Elsewhere, Reported)) else frames_of(error) or error.__traceback__
                raised = type(told), told, frames
            if trace and isinstance(error, Reported):
                message += "%s"
                words.append(fenced_below(error.report))
        log.log(level, message, *words, exc_info=raised, extra=job_fields(claim.current()))

    async def unknown(self, claim: Claim, settler: Settler, name: str, refused: NotAllowed | None = None) -> None:
        """Offer the job to workers that can run it; dead only when none could for `unknown_ttl`. No attempt counts.

        refused: the task is known, but this worker may not run its command.
        """
        claim.task_name = name
        peers = self._peers(claim.queue)
        found = await judge(peers, claim, name, self._session.clock.now_ms(), self._unknown_ttl_ms, refused)
        if found.known and peers is not None and claim.stop is None:
            settler.offer(claim, found.groups, found.failures)
            peers.offered(found.groups)
            self.observe("offered", claim)
            return
        if found.dead:
            waited = f"for {found.age_ms / 1000:g} s"
            why = f"no worker that knew the task {name!r} took it {waited}"
            if refused is not None:
                why = f"no worker was allowed to run it {waited}; {refused}"
            self.bury(claim, settler, UnknownTask(why), Reason.UNKNOWN_TASK)
            return
        if found.fresh:
            why = "its task is not registered here" if refused is None else str(refused)
            self._say(logging.WARNING, claim, "%s; it is left for another worker", why)
        failures = self._failures(claim, refused, Reason.UNKNOWN_TASK) if found.fresh else b""
        if peers is not None and claim.stop is None:
            settler.offer(claim, found.groups, failures, found.round_ms)
            peers.offered(found.groups)
        else:
            settler.release(claim, found.round_ms, failures)
        self.observe("unknown", claim)

    def observe(self, event: str, claim: Claim) -> None:
        """Tell the observer, in the event loop, whichever thread this is."""
        if self._observer is not None:
            facts = {
                "job": claim.job_id, "queue": claim.queue, "token": int(claim.token), "attempt": claim.attempt,
                "fire": claim.fire_at_ms,
            }  # fmt: skip
            if threading.get_ident() == self._thread:
                self._observer(event, facts)
            else:
                self._loop.call_soon_threadsafe(self._observer, event, facts)


def _on_purpose(error: BaseException) -> bool:
    """Whether a task only said what is to become of its job, with Retry or Discard, alone or in exception groups."""
    return all(isinstance(part, (Retry, Discard)) for part in parts_of(error))


def _since(claim: Claim) -> str:
    return _span((time.monotonic_ns() - claim.began_ns) // 1_000_000)


def _span(ms: int) -> str:
    """A span of time for a person. Example: 0 -> '0 ms', 1500 -> '1.5 s', 7_200_000 -> '2:00:00 h'."""
    if ms < 1_000:
        return f"{ms} ms"
    if ms < 120_000:
        return f"{ms / 1000:.3g} s"
    return f"{timedelta(seconds=round(ms / 1000))} h"
