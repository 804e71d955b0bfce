"""The runner: starts claimed jobs, up to the concurrency, and turns whatever happens in a task into an outcome."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import copy_context
from typing import Any

from zwheel.calls import Session
from zwheel.codec import Codec
from zwheel.context import SCHEDULE_HEADER, current
from zwheel.errors import BadArguments, UndecodableJob, UnknownTask
from zwheel.failpoints import FAILPOINTS
from zwheel.job import QueueName, Reason
from zwheel.outside import escaped
from zwheel.record import task_and_body, write_failures
from zwheel.retry import Discard, Retry
from zwheel.tasks import BaseTask, body_context
from zwheel.times import DAY_MS

from .apart import Apart, is_suspect
from .claims import Claim, Observer, Slots, Stop
from .failure import earlier_failures, failure_of
from .forks import FORKS, Threads
from .isolated import Isolated, NotStarted
from .occurrences import NO_WAY_BACK, Occurrences, begun_at_ms
from .peers import Peers
from .settler import Settler
from .timeouts import timeout_of
from .unknown import FIRST_MS, judge

log = escaped("zwheel.worker")

#: How long a job waits here for a free process, seconds, and for how long it is handed back when there is none, ms.
_PATIENCE_S, _HANDED_BACK_MS = 1.0, (500, 1_000)
#: A retry is put off by 1,000 years at the most, so that its fire time stays within the calendar.
_LONGEST_DELAY_MS = 365_000 * DAY_MS
_Entry = tuple[Claim, Settler, Callable[[], None]]


def _nothing() -> None:
    """Ask nobody: a runner without a heartbeat."""


class Runner:
    """Runs the claimed jobs of one worker process. Whatever a task raises becomes an outcome, never the worker's end."""

    def __init__(
        self,
        tasks: dict[str, BaseTask[Any, Any]],
        codec: Codec,
        session: Session,
        slots: Slots,
        worker: str,
        unknown_ttl_ms: int,
        lease_ms: int,
        observer: Observer | None = None,
        task_processes: int = 0,
        occurrences: Occurrences | None = None,
        peers: Callable[[QueueName], Peers | None] = lambda queue: None,
    ) -> None:
        self._occurrences = occurrences
        #: Tells which others know a task.
        self._peers = peers
        self._tasks = {name.encode(): task for name, task in tasks.items()}
        self._codec = codec
        self._session = session
        self._slots = slots
        self._worker = worker
        self._unknown_ttl_ms = unknown_ttl_ms
        #: A lease younger than this is renewed in time by the heartbeat, which comes every third of one.
        self._fresh_ns = lease_ms * 500_000
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        #: What every job's context starts from, so that none sees what another set in its own.
        self._context = copy_context()
        self._giving_back = False
        self._look_again: asyncio.TimerHandle | None = None
        #: What waits for a slot, oldest first; and what may not start yet although there is one.
        self._ready: deque[_Entry] = deque()
        self._not_yet: deque[_Entry] = deque()
        self._threads: Threads | None = None
        self.isolated = Isolated(task_processes, lease_ms)
        #: Every claim of this process until its outcome is acknowledged, read by the heartbeat's thread, and what takes
        #: its outcome. Two queues may use the same job id.
        self.held: dict[Claim, Settler] = {}
        #: Those of them whose functions did not begin. Whoever pops one decides what becomes of it: its first step
        #: starts it, and the heartbeat's thread gives it back while the loop is blocked.
        self._unstarted: dict[Claim, Callable[[], None]] = {}
        self._apart = Apart(self._loop, self.fill)
        #: Asks the heartbeat to beat at once: something waits for its lease to be renewed.
        self.renew: Callable[[], None] = _nothing

    def submit(self, claim: Claim, settler: Settler, settled: Callable[[], None]) -> None:
        """Take a claimed job; it starts when a slot is free. `settled` is called once its outcome is with `settler`."""
        self.held[claim] = settler
        self._unstarted[claim] = settled
        if not claim.plain and not self._giving_back and is_suspect(claim):
            self._meet(claim, settler, settled)
            return
        if self._slots.running < self._slots.concurrency and not (
            self._ready or self._giving_back or self._stale(claim)
        ):
            self._start(claim, settler, settled)
            return
        self._ready.append((claim, settler, settled))
        if self._giving_back:
            self.give_back()
        else:
            self.fill()

    def _meet(self, claim: Claim, settler: Settler, settled: Callable[[], None]) -> None:
        """Take a job in that may have killed a process, or send it away if there is such a one here."""
        if self._apart.admit(claim):
            self._not_yet.append((claim, settler, settled))
        else:
            del self._unstarted[claim]
            settler.release(claim, self._apart.away_ms())
            self._left("released", claim, settled)

    def _start(self, claim: Claim, settler: Settler, settled: Callable[[], None]) -> None:
        self._slots.running += 1
        if claim is self._apart.suspect:
            self._apart.started(claim)
        # Its first step puts the task into the claim.
        self._loop.create_task(self._run(claim, settler, settled), context=self._context.copy())

    def _stale(self, claim: Claim) -> bool:
        return time.monotonic_ns() - claim.leased_ns > self._fresh_ns

    def fill(self) -> None:
        """Start what waits, as far as there are slots.

        After a pause of this process, or with Redis away, a lease may have run out. A job whose lease is older than the
        heartbeat lets it become starts only when that has renewed it, and not at all when it is lost.
        """
        stale = False
        for waiting in (self._not_yet, self._ready):
            for _ in range(len(waiting)):
                if self._slots.running >= self._slots.concurrency:
                    return
                entry = waiting.popleft()
                if entry[0] not in self._unstarted:
                    continue
                old = self._stale(entry[0])
                stale = stale or old
                if old or self._apart.waits(entry[0]):
                    self._not_yet.append(entry)
                else:
                    self._start(*entry)
        if stale and self._look_again is None:
            self.renew()
            self._look_again = self._loop.call_later(self._fresh_ns / 1e10, self._on_look_again)

    def _on_look_again(self) -> None:
        self._look_again = None
        self.fill()

    def _next(self) -> None:
        self._slots.running -= 1
        if self._ready or self._not_yet:
            self.fill()

    async def _run(self, claim: Claim, settler: Settler, settled: Callable[[], None]) -> None:
        detached: asyncio.Future[Any] | None = None
        # Only from here on can it be cancelled: a task that is cancelled before its first step would never say so.
        claim.running = asyncio.current_task()
        if self._unstarted.pop(claim, None) is None:
            # It was given back or lost before this first step.
            claim.running = None
            self._next()
            return
        try:
            if claim.stop is None:
                detached = await self._attempt(claim, settler)
            else:
                self._stopped(claim, settler, None)
        except BaseException as error:
            # Only a fault of our own, or a cancellation that arrived at the very end, comes here.
            if not claim.ended:
                self._failed(claim, settler, None, error)
        finally:
            if not claim.ended:
                self._drop(claim)
            claim.running = None
            if detached is None or detached.done():
                self._next()
                self._slots.ended()
            else:
                # The thread goes on although its outcome is known: its slot is free only when it ends.
                detached.add_done_callback(self._thread_ended)
            settled()

    def _thread_ended(self, _: asyncio.Future[Any]) -> None:
        self._next()
        self._slots.ended()

    async def _attempt(self, claim: Claim, settler: Settler) -> asyncio.Future[Any] | None:
        try:
            name, body = task_and_body(claim.raw)
        except (ValueError, UndecodableJob) as error:
            self._bury(claim, settler, error, Reason.UNDECODABLE)
            return None
        task = self._tasks.get(name)
        if task is None:
            await self._unknown(claim, settler, name.decode("utf-8", "backslashreplace"))
            return None
        claim.task_name = task.name
        try:
            context = body_context(task.name, claim.job_id) if self._codec.binds else b""
            args, kwargs, headers = self._codec.decode(body, context=context)
        except UndecodableJob as error:
            self._bury(claim, settler, error, Reason.UNDECODABLE)
            return None
        try:
            bound, named = task.signature.bind(args, kwargs)
        except BadArguments as error:
            self._bury(claim, settler, error, Reason.BAD_ARGUMENTS)
            return None
        timeout_ms = task.policy.timeout_ms
        if headers:
            claim.headers = headers
            timeout_ms = timeout_of(headers, timeout_ms)
            if SCHEDULE_HEADER in headers and not await self._may_start(claim, settler):
                return None
        apart = task.policy.process and not task.is_async
        if apart and not await self._has_place(claim, settler):
            return None
        timer = None
        if timeout_ms is not None:
            claim.deadline_ns = time.monotonic_ns() + timeout_ms * 1_000_000
            timer = self._loop.call_later(timeout_ms / 1000, claim.cancel, Stop.TIMEOUT)
        if self._observer is not None:
            self._observe("start", claim)
        if FAILPOINTS.active:
            FAILPOINTS.reach("handler.before")
        current.set(claim)
        claim.began = True
        future: asyncio.Future[Any] | None = None
        try:
            if task.is_async:
                await task.function(*bound, **named)
            elif apart:
                await self.isolated.call(task, args, kwargs, claim.current())
            else:
                future = self._in_thread(claim, task, bound, named)
                raised = await asyncio.shield(future)
                if raised is not None:
                    raise raised
        except BaseException as error:
            FORKS.end_child(error)
            if claim.ended:
                log.info("job %s: it ended after its outcome was settled", claim.job_id)
            elif claim.stop is not None and isinstance(error, asyncio.CancelledError):
                self._stopped(claim, settler, error)
            else:
                self._failed(claim, settler, task, error)
        else:
            FORKS.end_child(None)
            if FAILPOINTS.active:
                FAILPOINTS.reach("handler.after")
            self._ended_well(claim, settler)
        finally:
            if timer is not None:
                timer.cancel()
            if apart:
                self.isolated.leave()
        return future

    def _ended_well(self, claim: Claim, settler: Settler) -> None:
        if claim.ended:
            log.info("job %s: it ended after its outcome was settled", claim.job_id)
            return
        if claim.stop is not Stop.LOST:
            settler.complete(claim)
        if self._observer is not None:
            self._observe("done", claim)

    async def _has_place(self, claim: Claim, settler: Settler) -> bool:
        """Wait for a process, but not long: another worker may have one."""
        if await self.isolated.admit(_PATIENCE_S):
            return True
        self._hand_back(claim, settler)
        return False

    def _hand_back(self, claim: Claim, settler: Settler) -> None:
        """Let others have a job for which there is no process here; it comes back when they have none either."""
        settler.release(claim, random.randint(*_HANDED_BACK_MS))
        self._observe("released", claim)

    async def _may_start(self, claim: Claim, settler: Settler) -> bool:
        """Whether an occurrence may start; one that may not any more is its schedule's again, or dead."""
        if self._occurrences is None:
            return True
        try:
            if await self._occurrences.may_start(claim):
                return True
            self._observe("missed", claim)
        except NO_WAY_BACK as error:
            if claim.stop is None:
                self._bury(claim, settler, error, Reason.MISSED)
            else:
                self._stopped(claim, settler, error)
        return False

    def _in_thread(
        self, claim: Claim, task: BaseTask[Any, Any], args: Any, kwargs: dict[str, Any]
    ) -> asyncio.Future[Any]:
        if self._threads is None:
            self._threads = Threads(self._slots.concurrency, thread_name_prefix="zwheel-task")
        context = copy_context()
        claim.thread = True

        def call() -> BaseException | None:
            try:
                context.run(task.function, *args, **kwargs)
            except BaseException as error:
                claim.returned = (error,)
                return error
            claim.returned = (None,)
            return None

        return self._loop.run_in_executor(self._threads, call)

    def _stopped(self, claim: Claim, settler: Settler, error: BaseException | None) -> None:
        if claim.stop is Stop.DRAIN:
            settler.release(claim, at_ms=begun_at_ms(claim))
            self._observe("released", claim)
        elif claim.stop is Stop.TIMEOUT:
            self._again_or_bury(
                claim, settler, self._policy(claim), TimeoutError("the task ran longer than its timeout")
            )
        else:
            log.warning("job %s: stopped, its lease is lost", claim.job_id)
            self._observe("lost", claim)

    def _policy(self, claim: Claim) -> BaseTask[Any, Any] | None:
        return self._tasks.get(claim.task_name.encode())

    def _failed(self, claim: Claim, settler: Settler, task: BaseTask[Any, Any] | None, error: BaseException) -> None:
        if claim.stop is Stop.LOST:
            self._observe("lost", claim)
        elif isinstance(error, NotStarted):
            log.error("job %s: %s; it is handed back", claim.job_id, error)
            self._hand_back(claim, settler)
        elif isinstance(error, Discard):
            self._bury(claim, settler, error, Reason.DISCARDED)
        elif claim.stop is Stop.DRAIN:
            # What it raised after we cancelled it says nothing about the job.
            self._stopped(claim, settler, error)
        elif task is not None and isinstance(error, task.policy.give_up_on):
            self._bury(claim, settler, error, Reason.DISCARDED)
        else:
            self._again_or_bury(claim, settler, task, error)

    def _again_or_bury(
        self, claim: Claim, settler: Settler, task: BaseTask[Any, Any] | None, error: BaseException
    ) -> None:
        reason = Reason.TIMEOUT if claim.stop is Stop.TIMEOUT else Reason.ERROR
        attempt = claim.attempt
        if attempt >= claim.max_attempts:
            self._bury(claim, settler, error, reason)
            return
        delay_ms = error.delay_ms if isinstance(error, Retry) else None
        if delay_ms is None:
            delay_ms = task.policy.backoff.delay_ms(attempt) if task is not None else FIRST_MS
        delay_ms = min(delay_ms, _LONGEST_DELAY_MS)
        settler.retry(claim, delay_ms, self._failures(claim, error, reason))
        log.info("job %s: attempt %d of %d failed, again in %d ms", claim.job_id, attempt, claim.max_attempts, delay_ms)
        self._observe("retried", claim)

    def _bury(self, claim: Claim, settler: Settler, error: BaseException | None, reason: Reason) -> None:
        settler.bury(claim, self._failures(claim, error, reason))
        log.error("job %s: dead after %d attempts: %s", claim.job_id, claim.attempt, reason)
        self._observe("buried", claim)

    def _failures(self, claim: Claim, error: BaseException | None, reason: Reason) -> bytes:
        failure = failure_of(claim, error, reason, self._session.clock.now_ms(), self._worker)
        return write_failures([*earlier_failures(claim), failure])

    async def _unknown(self, claim: Claim, settler: Settler, name: str) -> None:
        """Offer it to those that know it; dead only when no worker knew the task for `unknown_ttl`. No attempt counts."""
        claim.task_name = name
        peers = self._peers(claim.queue)
        found = await judge(peers, claim, name, self._session.clock.now_ms(), self._unknown_ttl_ms)
        if found.groups and peers is not None and claim.stop is None:
            settler.offer(claim, found.groups, found.failures)
            peers.offered(found.groups)
            self._observe("offered", claim)
            return
        if found.dead:
            unknown = UnknownTask(f"no worker knew the task {name!r} for {found.age_ms / 1000:g} s")
            self._bury(claim, settler, unknown, Reason.UNKNOWN_TASK)
            return
        if found.fresh:
            log.warning(
                "job %s: task %r is not registered here; it is left for a worker that knows it", claim.job_id, name
            )
        failures = self._failures(claim, None, Reason.UNKNOWN_TASK) if found.fresh else b""
        settler.release(claim, found.delay_ms, failures)
        self._observe("unknown", claim)

    def _observe(self, event: str, claim: Claim) -> None:
        if self._observer is not None:
            facts = {
                "job": claim.job_id, "queue": claim.queue, "token": int(claim.token), "attempt": claim.attempt,
                "fire": claim.fire_at_ms,
            }  # fmt: skip
            if threading.get_ident() == self._thread:
                self._observer(event, facts)
            else:
                self._loop.call_soon_threadsafe(self._observer, event, facts)

    def give_back(self) -> None:
        """Return what has not started, and whatever is still submitted, unharmed."""
        self._giving_back = True
        for waiting in (self._not_yet, self._ready):
            while waiting:
                claim, settler, _ = waiting.popleft()
                settled = self._unstarted.pop(claim, None)
                if settled is not None:
                    settler.release(claim)
                    self._left("released", claim, settled)

    def _left(self, event: str, claim: Claim, settled: Callable[[], None]) -> None:
        """A claim leaves that never started."""
        self._slots.ended()
        self._observe(event, claim)
        settled()

    def settled(self, claims: Sequence[Claim]) -> None:
        """Redis has acknowledged these outcomes."""
        for claim in claims:
            self.held.pop(claim, None)
        self._apart.gone(claims)

    def _drop(self, claim: Claim) -> None:
        self.settled((claim,))

    def rescue(self, claim: Claim, settler: Settler) -> None:
        """Hand to the settler what does not need the event loop, which a task blocks. Runs in the heartbeat's thread.

        What has not started goes back, unharmed. What ended in a thread is settled as it ended. What is past its timeout
        has failed, although it may still run: the blocked loop cannot cancel it.
        """
        running = claim.running
        settled = self._unstarted.pop(claim, None)
        if settled is not None:
            settler.release(claim)
            self._loop.call_soon_threadsafe(self._left, "released", claim, settled)
        elif claim.ended or claim.stop is not None or running is None:
            return
        elif claim.returned:
            self._ended_in_thread(claim, settler, claim.returned[0])
        elif claim.deadline_ns and time.monotonic_ns() > claim.deadline_ns:
            claim.stop = Stop.TIMEOUT
            self._stopped(claim, settler, None)
            self._loop.call_soon_threadsafe(running.cancel)

    def _ended_in_thread(self, claim: Claim, settler: Settler, error: BaseException | None) -> None:
        if error is None:
            self._ended_well(claim, settler)
        else:
            self._failed(claim, settler, self._policy(claim), error)

    def cancel_all(self, why: Stop) -> None:
        """Stop every running job."""
        for claim in list(self.held):
            if not claim.ended:
                claim.cancel(why)

    def lost(self, claim: Claim) -> None:
        """The lease of one claim is gone: stop the job, and let nothing of it count.

        One that has ended is left to its settler: the outcome under way may be what took the job out of our hands.
        """
        if claim.ended or claim not in self.held:
            return
        claim.cancel(Stop.LOST)
        settled = self._unstarted.pop(claim, None)
        if settled is not None:
            self._drop(claim)
            self._left("lost", claim, settled)
        self.fill()

    def close(self) -> None:
        """Let the threads go."""
        if self._look_again is not None:
            self._look_again.cancel()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
