"""The runner: starts claimed jobs, up to the concurrency, and turns whatever happens in a task into an outcome."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

from anyio import CapacityLimiter

from zwheel.calls import Session
from zwheel.codec import Codec
from zwheel.context import current
from zwheel.errors import BadArguments, UndecodableJob
from zwheel.failpoints import FAILPOINTS
from zwheel.job import Failure, Reason
from zwheel.record import failures_of, task_and_body, write_failures
from zwheel.retry import Discard, Retry
from zwheel.tasks import TIMEOUT_HEADER, BaseTask, body_context

from .claims import Claim, Observer, Slots, Stop
from .failure import failure_of
from .isolated import call_isolated
from .settler import Settler

log = logging.getLogger("zwheel.worker")

#: How long a job waits before it is offered again to a worker that may know its task, ms.
_UNKNOWN_FIRST_MS, _UNKNOWN_LONGEST_MS = 1_000, 60_000


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
        observer: Observer | None = None,
    ) -> None:
        self._tasks = {name.encode(): task for name, task in tasks.items()}
        self._codec = codec
        self._session = session
        self._slots = slots
        self._worker = worker
        self._unknown_ttl_ms = unknown_ttl_ms
        self._observer = observer
        self._ready: deque[tuple[Claim, Settler, Callable[[], None]]] = deque()
        self._threads: ThreadPoolExecutor | None = None
        self._processes: CapacityLimiter | None = None
        #: Every claim of this process by id, read by the heartbeat's thread.
        self.held: dict[bytes, Claim] = {}

    def submit(self, claim: Claim, settler: Settler, settled: Callable[[], None]) -> None:
        """Take a claimed job; it starts when a slot is free. `settled` is called once its outcome is with `settler`."""
        self.held[claim.id] = claim
        if self._slots.running < self._slots.concurrency:
            self._start(claim, settler, settled)
        else:
            self._ready.append((claim, settler, settled))

    def _start(self, claim: Claim, settler: Settler, settled: Callable[[], None]) -> None:
        self._slots.running += 1
        claim.running = asyncio.get_running_loop().create_task(self._run(claim, settler, settled))

    def _next(self) -> None:
        self._slots.running -= 1
        while self._ready and self._slots.running < self._slots.concurrency:
            self._start(*self._ready.popleft())

    async def _run(self, claim: Claim, settler: Settler, settled: Callable[[], None]) -> None:
        detached: asyncio.Future[Any] | None = None
        try:
            if claim.stop is None:
                detached = await self._attempt(claim, settler)
            else:
                self._stopped(claim, settler, None)
        except BaseException as error:
            # Only a fault of our own, or a cancellation that arrived at the very end, comes here.
            self._failed(claim, settler, None, error)
        finally:
            if self.held.get(claim.id) is claim:
                del self.held[claim.id]
            claim.running = None
            if detached is None or detached.done():
                self._next()
            else:
                # The thread goes on although its outcome is known: its slot is free only when it ends.
                detached.add_done_callback(lambda _: self._next())
            self._slots.ended()
            settled()

    async def _attempt(self, claim: Claim, settler: Settler) -> asyncio.Future[Any] | None:
        name, body = task_and_body(claim.raw)
        task = self._tasks.get(name)
        if task is None:
            self._unknown(claim, settler, name.decode("utf-8", "backslashreplace"))
            return None
        claim.task_name = task.name
        try:
            args, kwargs, headers = self._codec.decode(body, context=body_context(task.name, claim.job_id))
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
            timeout_ms = _timeout_of(headers, timeout_ms)
        timer = None
        if timeout_ms is not None:
            loop = asyncio.get_running_loop()
            timer = loop.call_later(timeout_ms / 1000, claim.cancel, Stop.TIMEOUT)
        if self._observer is not None:
            self._observe("start", claim)
        if FAILPOINTS.active:
            FAILPOINTS.reach("handler.before")
        current.set(claim)
        future: asyncio.Future[Any] | None = None
        try:
            if task.is_async:
                await task.function(*bound, **named)
            elif task.policy.process:
                await call_isolated(task, bound, named, claim.current(), self._process_limit())
            else:
                future = self._in_thread(task, bound, named)
                raised = await asyncio.shield(future)
                if raised is not None:
                    raise raised
        except BaseException as error:
            if claim.stop is not None and isinstance(error, asyncio.CancelledError):
                self._stopped(claim, settler, error)
            else:
                self._failed(claim, settler, task, error)
        else:
            if FAILPOINTS.active:
                FAILPOINTS.reach("handler.after")
            if claim.stop is not Stop.LOST:
                settler.complete(claim)
            if self._observer is not None:
                self._observe("done", claim)
        finally:
            if timer is not None:
                timer.cancel()
        return future

    def _in_thread(self, task: BaseTask[Any, Any], args: Any, kwargs: dict[str, Any]) -> asyncio.Future[Any]:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._slots.concurrency, thread_name_prefix="zwheel-task")
        context = copy_context()

        def call() -> BaseException | None:
            try:
                context.run(task.function, *args, **kwargs)
            except BaseException as error:
                return error
            return None

        return asyncio.get_running_loop().run_in_executor(self._threads, call)

    def _process_limit(self) -> CapacityLimiter:
        if self._processes is None:
            self._processes = CapacityLimiter(self._slots.concurrency)
        return self._processes

    def _stopped(self, claim: Claim, settler: Settler, error: BaseException | None) -> None:
        if claim.stop is Stop.DRAIN:
            settler.release(claim)
            self._observe("released", claim)
        elif claim.stop is Stop.TIMEOUT:
            self._again_or_bury(claim, settler, self._policy(claim), TimeoutError("the task ran longer than its timeout"))
        else:
            log.warning("job %s: stopped, its lease is lost", claim.job_id)
            self._observe("lost", claim)

    def _policy(self, claim: Claim) -> BaseTask[Any, Any] | None:
        return self._tasks.get(claim.task_name.encode())

    def _failed(
        self, claim: Claim, settler: Settler, task: BaseTask[Any, Any] | None, error: BaseException
    ) -> None:
        if claim.stop is Stop.LOST:
            self._observe("lost", claim)
        elif isinstance(error, Discard) or (task is not None and isinstance(error, task.policy.give_up_on)):
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
            delay_ms = task.policy.backoff.delay_ms(attempt) if task is not None else _UNKNOWN_FIRST_MS
        settler.retry(claim, delay_ms, self._failures(claim, error, reason))
        log.info("job %s: attempt %d of %d failed, again in %d ms", claim.job_id, attempt, claim.max_attempts, delay_ms)
        self._observe("retried", claim)

    def _bury(self, claim: Claim, settler: Settler, error: BaseException | None, reason: Reason) -> None:
        settler.bury(claim, self._failures(claim, error, reason))
        log.error("job %s: dead after %d attempts: %s", claim.job_id, claim.attempt, reason)
        self._observe("buried", claim)

    def _failures(self, claim: Claim, error: BaseException | None, reason: Reason) -> bytes:
        failure = failure_of(claim, error, reason, self._session.clock.now_ms(), self._worker)
        return write_failures([*self._earlier(claim), failure])

    def _earlier(self, claim: Claim) -> tuple[Failure, ...]:
        try:
            return failures_of(claim.raw)
        except (ValueError, UndecodableJob):
            return ()

    def _unknown(self, claim: Claim, settler: Settler, name: str) -> None:
        """Offer it to others, later; dead only when no worker knew the task for `unknown_ttl`. No attempt is counted."""
        claim.task_name = name
        now_ms = self._session.clock.now_ms()
        seen = [f.at_ms for f in self._earlier(claim) if f.reason is Reason.UNKNOWN_TASK]
        age_ms = now_ms - seen[0] if seen else 0
        if seen and age_ms >= self._unknown_ttl_ms:
            self._bury(claim, settler, None, Reason.UNKNOWN_TASK)
            return
        failures = b"" if seen else self._failures(claim, None, Reason.UNKNOWN_TASK)
        if not seen:
            log.warning("job %s: task %r is not registered here; it is left for a worker that knows it", claim.job_id, name)
        settler.release(claim, min(_UNKNOWN_LONGEST_MS, max(_UNKNOWN_FIRST_MS, age_ms)), failures)
        self._observe("unknown", claim)

    def _observe(self, event: str, claim: Claim) -> None:
        if self._observer is not None:
            self._observer(event, {"job": claim.job_id, "token": int(claim.token), "attempt": claim.attempt})

    def give_back(self) -> None:
        """Return what has not started, unharmed."""
        while self._ready:
            claim, settler, settled = self._ready.popleft()
            self.held.pop(claim.id, None)
            settler.release(claim)
            self._slots.ended()
            self._observe("released", claim)
            settled()

    def cancel_all(self, why: Stop) -> None:
        """Stop every running job."""
        for claim in list(self.held.values()):
            claim.cancel(why)

    def lost(self, job_id: bytes, token: bytes) -> None:
        """The lease of one claim is gone: stop the job, and let nothing of it count."""
        claim = self.held.get(job_id)
        if claim is None or claim.token != token:
            return
        if claim.running is None:
            self._ready = deque(entry for entry in self._ready if entry[0] is not claim)
            del self.held[job_id]
            self._slots.ended()
        claim.cancel(Stop.LOST)

    def close(self) -> None:
        """Let the threads go."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)


def _timeout_of(headers: dict[str, str], otherwise: int | None) -> int | None:
    text = headers.get(TIMEOUT_HEADER, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 and int(text) > 0 else otherwise
