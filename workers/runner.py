"""The runner: starts claimed jobs, up to the concurrency, and tells whatever happens in a task to its outcomes."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import copy_context
from typing import Any

from zwheel.calls import Session
from zwheel.client.functions import finish, rest_of
from zwheel.client.tasks import BaseTask
from zwheel.current import SCHEDULE_HEADER, current
from zwheel.errors import BadArguments, UndecodableJob
from zwheel.failpoints import FAILPOINTS
from zwheel.job import QueueName, Reason
from zwheel.outside import escaped
from zwheel.payload.codec import Codec, body_context
from zwheel.policy import BY_TASK, EXPIRES_HEADER, POLICY_HEADER, expires_ms
from zwheel.published.task import PublishedSignature, parameters_of
from zwheel.record import task_and_body

from .ahead import Ahead
from .apart import Apart, is_suspect
from .claims import Claim, Observer, Slots, Stop
from .failure import NotAllowed, earlier_failures
from .forks import FORKS, Threads
from .isolated import Isolated, cpus
from .occurrences import NO_WAY_BACK, Occurrences
from .outcomes import Outcomes
from .peers import Peers
from .places import Places
from .settler import Settler
from .timeouts import timeout_of
from .timer import Timer

log = escaped("zwheel.worker")

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
        log_done: bool = False,
    ) -> None:
        self._occurrences = occurrences
        self._tasks = {name.encode(): task for name, task in tasks.items()}
        #: What tasks take, for jobs that were made where that was not known.
        self._signatures: dict[str, PublishedSignature] = {}
        self._codec = codec
        self._slots = slots
        self._clock = session.clock
        self._outcomes = Outcomes(self._tasks, session, worker, unknown_ttl_ms, peers, observer, log_done)
        #: A lease younger than this is renewed in time by the heartbeat, which comes every third of one.
        self._fresh_ns = lease_ms * 500_000
        self._observed = observer is not None
        self._loop = asyncio.get_running_loop()
        #: Every job gets a copy of this context, so that no job sees a context variable that another one set.
        self._context = copy_context()
        self._giving_back = False
        self._look_again: asyncio.TimerHandle | None = None
        #: Claims that wait for a slot, oldest first; and claims that may not start yet although there is a slot.
        self._ready: deque[_Entry] = deque()
        self._not_yet: deque[_Entry] = deque()
        #: Claims that were taken ahead of their time, and what rings when the first of them may start.
        self._ahead: Ahead[_Entry] = Ahead(session.clock)
        self._ahead_timer = Timer(self.start_due)
        self._threads: Threads | None = None
        self.isolated = Isolated(lease_ms)
        self._places = Places(task_processes or cpus(), slots, self.fill)
        #: Every claim of this process until its outcome is acknowledged, read by the heartbeat's thread, and what takes
        #: its outcome. Two queues may use the same job id.
        self.held: dict[Claim, Settler] = {}
        #: Held claims whose functions did not begin. The thread that pops a claim decides what becomes of it: the loop
        #: starts it in its first step, or the heartbeat's thread gives it back while the loop is blocked.
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
        elif self._slots.running < self._slots.concurrency:
            self.fill()

    def hold(self, claim: Claim, settler: Settler, settled: Callable[[], None]) -> None:
        """Take a job that was claimed ahead of its time; it starts when that has come by the server's clock."""
        if self._giving_back:
            self.submit(claim, settler, settled)
            return
        self.held[claim] = settler
        self._unstarted[claim] = settled
        self._ahead.hold(claim, (claim, settler, settled))

    def start_due(self) -> None:
        """Start of those that were claimed ahead what is due, and see to the rest when its time has come."""
        for claim, settler, settled in self._ahead.due():
            # It may be lost, or given back, by now.
            if claim in self._unstarted:
                self.submit(claim, settler, settled)
        self._release(self._ahead.far())
        if (rest_s := self._ahead.rest_s) is not None:
            self._ahead_timer.set(time.monotonic() + rest_s)

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
        # Its first step makes it the one that is running.
        run = self._run(claim, settler, settled)
        claim.task = self._loop.create_task(run, context=self._context.copy())

    def _stale(self, claim: Claim) -> bool:
        return time.monotonic_ns() - claim.leased_ns > self._fresh_ns

    def fill(self) -> None:
        """Start the claimed jobs that wait, as far as there are slots.

        After a pause of this process, or with Redis away, a lease may have run out. A job whose lease is older than the
        heartbeat lets it become starts only when that has renewed it, and not at all when it is lost.
        """
        stale = bool(self._not_yet) and self._fill_from(self._not_yet)
        stale = (bool(self._ready) and self._fill_from(self._ready)) or stale
        if stale and self._look_again is None:
            self.renew()
            self._look_again = self._loop.call_later(self._fresh_ns / 1e10, self._on_look_again)

    def _fill_from(self, waiting: deque[_Entry]) -> bool:
        """Start what may start. Returns whether a job among them waits for its lease to be renewed."""
        stale = False
        left = len(waiting)
        while left and self._slots.running < self._slots.concurrency:
            left -= 1
            entry = waiting.popleft()
            if entry[0] not in self._unstarted:
                continue
            if self._stale(entry[0]):
                stale = True
                self._not_yet.append(entry)
            elif self._apart.waits(entry[0]):
                self._not_yet.append(entry)
            else:
                self._start(*entry)
        return stale

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
        claim.running = claim.task
        if self._unstarted.pop(claim, None) is None:
            # It was given back or lost before this first step.
            claim.running = claim.task = None
            self._next()
            return
        try:
            if claim.stop is None:
                detached = await self._attempt(claim, settler)
            else:
                self._outcomes.stopped(claim, settler, None)
        except BaseException as error:
            # An error of the task does not come here: this is a fault of zwheel, or a cancellation at the very end.
            if not claim.ended:
                self._outcomes.failed(claim, settler, None, error)
        finally:
            if not claim.ended:
                self._drop(claim)
            claim.running = claim.task = None
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
            self._outcomes.bury(claim, settler, error, Reason.UNDECODABLE)
            return None
        task = self._tasks.get(name)
        if task is None:
            await self._outcomes.unknown(claim, settler, name.decode("utf-8", "backslashreplace"))
            return None
        claim.task_name = task.name
        try:
            context = body_context(task.name, claim.job_id) if self._codec.binds else b""
            args, kwargs, headers = self._codec.decode(body, context=context)
            if headers and POLICY_HEADER in headers:
                args, kwargs = self._unchecked(task, args, kwargs)
            bound, named = task.signature.bind(args, kwargs)
            if task.admit is not None:
                task.admit(*bound, **named)
        except (UndecodableJob, BadArguments, NotAllowed) as error:
            await self._refused(claim, settler, task, error)
            return None
        timeout_ms = task.policy.timeout_ms
        if headers:
            claim.headers = headers
            timeout_ms = timeout_of(headers, timeout_ms)
            if EXPIRES_HEADER in headers and self._expired(claim, settler):
                return None
            if headers.get(POLICY_HEADER) == BY_TASK and not self._may_try(claim, settler, task):
                return None
            if SCHEDULE_HEADER in headers and not await self._may_start(claim, settler):
                return None
        apart = task.policy.process
        if apart and not await self._has_place(claim, settler):
            return None
        timer = None if timeout_ms is None else self._time_out(claim, timeout_ms)
        if self._observed:
            self._outcomes.observe("start", claim)
        if FAILPOINTS.active:
            FAILPOINTS.reach("handler.before")
        current.set(claim)
        claim.began_ns = time.monotonic_ns()
        future: asyncio.Future[Any] | None = None
        try:
            result = None
            if apart:
                await self.isolated.call(task, args, kwargs, claim.current(), lambda: claim.leased_ns)
            elif task.is_async:
                result = await task.function(*bound, **named)
            else:
                future = self._in_thread(claim, task, bound, named)
                result = await asyncio.shield(future)
                if isinstance(result, BaseException):
                    raise result
            if result is not None:
                claim.thread = False
                await finish(result)
        except BaseException as error:
            FORKS.end_child(error)
            self._outcomes.raised(claim, settler, task, error)
        else:
            FORKS.end_child(None)
            if FAILPOINTS.active:
                FAILPOINTS.reach("handler.after")
            self._outcomes.well(claim, settler)
        finally:
            if timer is not None:
                timer.cancel()
            if apart:
                self._places.leave()
        return future

    def _time_out(self, claim: Claim, timeout_ms: int) -> asyncio.TimerHandle:
        claim.deadline_ns = time.monotonic_ns() + timeout_ms * 1_000_000
        return self._loop.call_later(timeout_ms / 1000, claim.cancel, Stop.TIMEOUT)

    async def _refused(self, claim: Claim, settler: Settler, task: BaseTask[Any, Any], error: Exception) -> None:
        """A job cannot start, nowhere or not here."""
        if isinstance(error, NotAllowed):
            await self._outcomes.unknown(claim, settler, task.name, error)
        else:
            bad = isinstance(error, BadArguments)
            self._outcomes.bury(claim, settler, error, Reason.BAD_ARGUMENTS if bad else Reason.UNDECODABLE)

    async def _has_place(self, claim: Claim, settler: Settler) -> bool:
        """Wait for a process, but not long: another worker may have one."""
        if await self._places.take():
            return True
        self._outcomes.hand_back(claim, settler, self._places.away_ms())
        return False

    def _unchecked(
        self, task: BaseTask[Any, Any], args: list[Any], kwargs: dict[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """Check the arguments of a job of whose task nothing was known where it was made. Raises: BadArguments.

        A text where the task asks for something else was a word of a command line: it becomes that.
        """
        signature = self._signatures.get(task.name)
        if signature is None:
            signature = self._signatures[task.name] = PublishedSignature(task.name, parameters_of(task.signature))
        args, kwargs = signature.fitted(args, kwargs)
        signature.check(args, kwargs)
        return args, kwargs

    def _may_try(self, claim: Claim, settler: Settler, task: BaseTask[Any, Any]) -> bool:
        """Let the task's own number of retries hold for a job that was enqueued without knowing it."""
        claim.most_attempts = task.policy.retries + 1
        if claim.attempt <= claim.most_attempts:
            return True
        last = next(reversed(earlier_failures(claim)), None)
        reason = last.reason if last is not None and isinstance(last.reason, Reason) else Reason.LEASE_EXPIRED
        self._outcomes.bury(claim, settler, None, reason)
        return False

    def _expired(self, claim: Claim, settler: Settler) -> bool:
        """Whether a job is too late to start; then it is dead."""
        until_ms = expires_ms(claim.headers, claim.fire_at_ms)
        if until_ms is None or self._clock.now_ms() <= until_ms:
            return False
        self._outcomes.bury(claim, settler, None, Reason.EXPIRED)
        return True

    async def _may_start(self, claim: Claim, settler: Settler) -> bool:
        """Whether an occurrence may start; a late occurrence goes back to its schedule, or is dead."""
        if self._occurrences is None:
            return True
        try:
            if await self._occurrences.may_start(claim):
                return True
            self._outcomes.observe("missed", claim)
        except NO_WAY_BACK as error:
            if claim.stop is None:
                self._outcomes.bury(claim, settler, error, Reason.MISSED)
            else:
                self._outcomes.stopped(claim, settler, error)
        return False

    def _in_thread(
        self, claim: Claim, task: BaseTask[Any, Any], args: Any, kwargs: dict[str, Any]
    ) -> asyncio.Future[Any]:
        if self._threads is None:
            self._threads = Threads(self._slots.concurrency, thread_name_prefix="zwheel-task")
        context = copy_context()
        claim.thread = True

        def call() -> object:
            """Give what is left to be awaited, or what was raised."""
            try:
                rest = rest_of(context.run(task.function, *args, **kwargs))
            except BaseException as error:
                claim.returned = (error,)
                return error
            if rest is None:
                claim.returned = (None,)
            return rest

        return self._loop.run_in_executor(self._threads, call)

    def give_back(self) -> None:
        """Return what has not started, and whatever is still submitted, unharmed."""
        self._giving_back = True
        waiting = [*self._not_yet, *self._ready, *self._ahead.all()]
        self._not_yet.clear()
        self._ready.clear()
        self._release(waiting)

    def _release(self, entries: Sequence[_Entry]) -> None:
        """Return these to their own times."""
        for claim, settler, _ in entries:
            settled = self._unstarted.pop(claim, None)
            if settled is not None:
                settler.release(claim)
                self._left("released", claim, settled)

    def _left(self, event: str, claim: Claim, settled: Callable[[], None]) -> None:
        """A claim leaves that never started."""
        self._slots.ended()
        self._outcomes.observe(event, claim)
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

        Jobs that have not started go back, unharmed. A job that ended in a thread is settled as it ended. One past its timeout
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
            self._outcomes.stopped(claim, settler, None)
            self._loop.call_soon_threadsafe(running.cancel)

    def _ended_in_thread(self, claim: Claim, settler: Settler, error: BaseException | None) -> None:
        if error is None:
            self._outcomes.well(claim, settler)
        else:
            self._outcomes.failed(claim, settler, self._outcomes.task_of(claim), error)

    def cancel_all(self, why: Stop, *, threads: bool = True) -> None:
        """Stop every running job. threads: also jobs that have something in a thread, which goes on."""
        for claim in list(self.held):
            if not claim.ended and (threads or not claim.in_thread):
                claim.cancel(why)

    def cancel(self, claim: Claim, asked_ms: int) -> None:
        """Somebody asked then to cancel it. A task that caught that is told again when somebody asks again. A function in a thread
        cannot be stopped: it is told when it asks (`check_cancelled`).
        """
        again, claim.asked_ms = claim.asked and asked_ms > claim.asked_ms, asked_ms
        if claim.ended or (claim.thread and not claim.returned):
            return
        if claim.stop is Stop.CANCEL and again and claim.running is not None:
            claim.running.cancel()
        claim.cancel(Stop.CANCEL)

    def lost(self, claim: Claim) -> None:
        """The lease of one claim is gone: stop the job, and let nothing of it count.

        A job that has ended is left to its settler: its outcome under way may be the reason why the lease is gone.
        """
        if claim.ended or claim not in self.held:
            return
        claim.cancel(Stop.LOST)
        # That is certain, whatever it was stopped for before: it has nothing to tell any more.
        claim.stop = Stop.LOST
        settled = self._unstarted.pop(claim, None)
        if settled is not None:
            self._drop(claim)
            self._left("lost", claim, settled)
        self.fill()

    def close(self) -> None:
        """Let the threads go."""
        if self._look_again is not None:
            self._look_again.cancel()
        self._ahead_timer.close()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
