"""The async client: define tasks, enqueue jobs, look at them and act on them."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, ParamSpec, Self, TypeVar, overload

from zwheel import operations as ops
from zwheel.calls import BATCH_LIMIT, NewJob, Session
from zwheel.errors import InvalidInput, PayloadTooLarge, QueueFull
from zwheel.info import DayInfo, QueueInfo, WorkerInfo
from zwheel.job import CancelOutcome, Enqueued, Job, JobState, QueueName, RescheduleOutcome
from zwheel.operations.act import Progress
from zwheel.outside import Listing
from zwheel.retry import Backoff
from zwheel.store import Steps, Store
from zwheel.tasks import DEFAULT_RETRIES, BaseTask, fire_time, make_policy
from zwheel.times import duration_ms
from zwheel.wheel_schedules import WheelSchedules

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

#: How many chunks of one `enqueue_many` are under way at a time: one is stored while the next is encoded.
_CHUNKS_UNDER_WAY = 2
#: How many bytes of single enqueues are gathered for one call: a script that stores so much takes a few ms.
_BATCH_BYTES = 1024 * 1024


class Task(BaseTask[P, R]):
    """A task of an async Wheel."""

    __slots__ = ("_wheel",)

    def __init__(self, wheel: Wheel, function: Callable[P, R], name: str | None, **policy: Any) -> None:
        super().__init__(function, name, make_policy(**policy), wheel.codec)
        self._wheel = wheel

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Enqueued:
        """Store one call as a job. Returns it, or the job that already held its id or dedup key.

        Raises: BadArguments, PayloadError, InvalidTime before anything is sent; QueueFull, BrokerError.
        """
        job = self.job(*args, **kwargs)
        return await self._wheel._connect().batcher(job.queue).submit(job)


class _Batcher:
    """Gathers the single enqueues of one queue: what arrives while a round trip is under way goes into the next."""

    __slots__ = ("_busy", "_client", "_idle", "_waiting")

    def __init__(self, client: _Client) -> None:
        self._client = client
        self._busy = False
        #: Done when no enqueue is under way any more; None: nobody waits for that.
        self._idle: asyncio.Future[None] | None = None
        self._waiting: deque[tuple[NewJob, asyncio.Future[Enqueued]]] = deque()

    def submit(self, job: NewJob) -> Awaitable[Enqueued]:
        """Store one job now, or with the next round trip. Not a coroutine: there may be a thousand that wait."""
        if not self._busy:
            self._busy = True
            return self._first(job)
        future: asyncio.Future[Enqueued] = self._client.loop.create_future()
        self._waiting.append((job, future))
        return future

    async def _first(self, job: NewJob) -> Enqueued:
        try:
            return (await self._client.store_batch([job]))[0]
        finally:
            self._next()

    def _next(self) -> None:
        if self._waiting:
            self._client.spawn(self._flush())
        else:
            self._busy = False
            if self._idle is not None:
                self._idle.set_result(None)
                self._idle = None

    async def until_idle(self) -> None:
        """Wait until no enqueue is under way."""
        while self._busy:
            self._idle = self._idle or self._client.loop.create_future()
            await asyncio.shield(self._idle)

    async def _flush(self) -> None:
        try:
            waiting, batch, jobs, size = self._waiting, [], [], 0
            for _ in range(min(BATCH_LIMIT // 2, len(waiting))):
                one = waiting.popleft()
                # A caller that was cancelled meanwhile wants its job no more.
                if not one[1].done():
                    batch.append(one)
                    jobs.append(one[0])
                    if (size := size + len(one[0].body)) >= _BATCH_BYTES:
                        break
            if not batch:
                return
            try:
                answers = await self._client.store_batch(jobs)
            except (QueueFull, PayloadTooLarge) as refusal:
                await self._one_by_one(batch, refusal)
            except BaseException as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error if isinstance(error, Exception) else asyncio.CancelledError())
                if not isinstance(error, Exception):
                    raise
            else:
                for (_, future), answer in zip(batch, answers, strict=True):
                    if not future.done():
                        future.set_result(answer)
        finally:
            self._next()

    async def _one_by_one(
        self, batch: list[tuple[NewJob, asyncio.Future[Enqueued]]], refusal: QueueFull | PayloadTooLarge
    ) -> None:
        """Tell those that are refused from those that are not."""
        for job, future in batch:
            answer: Enqueued | Exception = refusal
            if len(batch) > 1 and not future.done():
                try:
                    answer = (await self._client.store_batch([job]))[0]
                except Exception as error:
                    answer = error
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)


class _Client:
    """What a wheel has in one event loop: connections, a session, and the enqueues that it gathers."""

    __slots__ = ("_background", "_batchers", "_end", "_forget", "known", "loop", "store")

    def __init__(self, store: Store, forget: Callable[[], object]) -> None:
        self.loop = asyncio.get_running_loop()
        self.store = store
        self._forget = forget
        #: Queues that are on the list of queues.
        self.known: set[str] = set()
        self._batchers: dict[str, _Batcher] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._end = self._until_the_loop_ends()
        # Begun here, the generator is ended by the loop's own end: asyncio.run closes what nobody closed.
        with suppress(StopIteration):
            self._end.__anext__().__await__().send(None)

    async def _until_the_loop_ends(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._forget()
            await self.store.aclose()

    def batcher(self, queue: str) -> _Batcher:
        """What gathers the single enqueues of a queue."""
        batcher = self._batchers.get(queue)
        if batcher is None:
            batcher = self._batchers[queue] = _Batcher(self)
        return batcher

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something in the background and keep hold of it until it ends."""
        task = self.loop.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def store_batch(self, batch: Sequence[NewJob]) -> Coroutine[Any, Any, list[Enqueued]]:
        """Store up to 1000 jobs of one queue in one call, all or none."""
        return self.store.drive(ops.enqueue_batch(self.store.session, batch, self.known))

    async def aclose(self) -> None:
        """Let what is under way end, then close every connection."""
        for batcher in list(self._batchers.values()):
            await batcher.until_idle()
        await self._end.aclose()

    def abandon(self) -> None:
        """Let go of connections whose loop is gone, or is another process's."""
        self.store.abandon()


_CLIENTS = "clients by loop"
_wheels: weakref.WeakSet[Wheel] = weakref.WeakSet()


def _after_fork() -> None:
    """A forked process has connections of its own, and leaves those of its parent alone."""
    for wheel in list(_wheels):
        while wheel._clients:
            wheel._clients.popitem()[1].abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Wheel(WheelSchedules):
    """The async client. Connects on first use; may be made at import time and shared by event loops in any threads.

    Each loop has connections of its own. `aclose` closes those of the loop that it runs in; the end of `asyncio.run`
    closes what was left open there. Every method raises BrokerUnavailable or OutcomeUnknown when Redis stays away for
    `give_up_s`.
    """

    @property
    def _clients(self) -> dict[asyncio.AbstractEventLoop, _Client]:
        """What each event loop has. Threads may meet here first at the same time: the dict takes the first one's."""
        found: dict[asyncio.AbstractEventLoop, _Client] = vars(self).setdefault(_CLIENTS, {})
        return found

    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(
        self,
        function: None = None,
        /,
        *,
        name: str | None = None,
        queue: str = "default",
        retries: int = DEFAULT_RETRIES,
        timeout: timedelta | float | None = None,
        keep: timedelta | float | None = None,
        backoff: Backoff | None = None,
        give_up_on: Sequence[type[BaseException]] | type[BaseException] = (),
        process: bool = False,
    ) -> Callable[[Callable[P, R]], Task[P, R]]: ...
    def task(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        queue: str = "default",
        retries: int = DEFAULT_RETRIES,
        timeout: timedelta | float | None = None,
        keep: timedelta | float | None = None,
        backoff: Backoff | None = None,
        give_up_on: Sequence[type[BaseException]] | type[BaseException] = (),
        process: bool = False,
    ) -> Any:
        """Register a function, sync or async, as a task.

        Args:
            name: How jobs name it; the default is `module.function`.
            retries: Attempts after the first; crashes count.
            timeout: How long one attempt may run; timedelta or seconds.
            keep: How long an ended job can still be read; None: an hour when the caller chose its id, else not at all.
            backoff: Delays between attempts.
            give_up_on: Exceptions after which the job is dead at once.
            process: Run the function in a process of its own.
        """

        def decorate(function: Callable[..., Any]) -> Task[..., Any]:
            task: Task[..., Any] = Task(
                self, function, name, queue=queue, retries=retries, timeout=timeout, keep=keep, backoff=backoff,
                give_up_on=give_up_on, process=process,
            )  # fmt: skip
            self.register(task)
            return task

        return decorate if function is None else decorate(function)

    def _as_task(self, function: Callable[..., Any]) -> Task[..., Any]:
        return self.task(function)

    def _connect(self) -> _Client:
        loop = asyncio.get_running_loop()
        clients = self.__dict__.get(_CLIENTS)
        client: _Client | None = None if clients is None else clients.get(loop)
        if client is None:
            for other in [other for other in list(self._clients) if other.is_closed()]:
                if (gone := self._clients.pop(other, None)) is not None:
                    gone.abandon()
            url, namespace = self.resolve()
            store = Store(url, Session(namespace), timeout_s=self.timeout_s, give_up_s=self.give_up_s)
            store.recorder = self.recorder(store.session)
            clients = self._clients
            client = clients[loop] = _Client(store, lambda: clients.pop(loop, None))
            _wheels.add(self)
        return client

    async def _drive(self, steps: Callable[[Session], Steps[T]]) -> T:
        store = self._connect().store
        return await store.drive(steps(store.session))

    async def submit(self, job: NewJob) -> Enqueued:
        """Store one job. Concurrent calls are batched automatically."""
        return await self._connect().batcher(job.queue).submit(job)

    async def enqueue(
        self,
        task: str | BaseTask[Any, Any],
        *,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        at: datetime | None = None,
        delay: timedelta | float | None = None,
        queue: str | None = None,
        id: str | None = None,
        retries: int | None = None,
        timeout: timedelta | float | None = None,
        keep: timedelta | float | None = None,
        dedup: str | None = None,
        within: timedelta | float | None = None,
        headers: Mapping[str, str] | None = None,
        replace: bool | None = None,
    ) -> Enqueued:
        """Store a job by its task's name; the task's code need not be here. See `new_job` for what is checked.

        Returns the job, or the one that already held its id or dedup key. A cancelled job holds no id; with `replace`
        neither does one that is done or dead. Raises also: QueueFull, BrokerError.
        """
        job = self.new_job(
            task, args=args, kwargs=kwargs, at=at, delay=delay, queue=queue, id=id, retries=retries, timeout=timeout,
            keep=keep, dedup=dedup, within=within, headers=headers, replace=replace,
        )  # fmt: skip
        return await self._connect().batcher(job.queue).submit(job)

    async def enqueue_many(
        self, jobs: Iterable[NewJob], *, chunk: int = 250, progress: Progress | None = None
    ) -> list[Enqueued]:
        """Store many jobs, `chunk` at a time (or 8 MiB); the jobs of one chunk and queue are stored all or none.

        When it raises, earlier chunks are stored. The same call again within an hour, with the same `chunk`, completes
        the rest and makes no job twice, also from another process, and also where jobs have ended and left nothing.
        Raises: QueueFull, BrokerError.
        """
        client = self._connect()
        store = client.store
        bulk = ops.Bulk(jobs, chunk)
        answers: list[Enqueued] = []
        under_way: deque[asyncio.Task[list[Enqueued]]] = deque()
        try:
            for part in bulk.chunks():
                under_way.append(asyncio.create_task(store.drive(part.store(store.session, client.known))))
                await asyncio.sleep(0)
                if len(under_way) >= _CHUNKS_UNDER_WAY:
                    answers += await under_way.popleft()
                    if progress is not None:
                        progress(len(answers))
            while under_way:
                answers += await under_way.popleft()
                if progress is not None:
                    progress(len(answers))
        finally:
            for left in under_way:
                left.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
        if bulk.remembered:
            await store.drive(bulk.forget(store.session), give_up_s=0)
        return answers

    async def get(self, job_id: str, queue: str | None = None) -> Job | None:
        """Read one job; None when there is none (any more). Without `queue` it looks in every known one."""
        return await self._drive(lambda session: ops.get(session, job_id, queue))

    async def jobs(self, queue: str, state: JobState | None = None, *, limit: int = 100, offset: int = 0) -> list[Job]:
        """Read a page of jobs: running first, then scheduled by fire time, then dead and ended, newest first."""
        return await self._drive(lambda session: ops.jobs(session, queue, state, limit, offset))

    async def cancel(self, job_id: str, queue: str | None = None) -> CancelOutcome:
        """Take a scheduled job off the wheel; after `cancelled` it never starts, and its id is free for a new one."""
        return await self._drive(lambda session: ops.cancel(session, job_id, queue))

    async def reschedule(
        self,
        job_id: str,
        *,
        at: datetime | None = None,
        delay: timedelta | float | None = None,
        queue: str | None = None,
    ) -> RescheduleOutcome:
        """Move a scheduled job to another time: it runs at the old time or at the new one, never both."""
        if at is None and delay is None:
            raise InvalidInput("reschedule: pass at= or delay=")
        at_ms, delay_ms = fire_time(at, delay)
        return await self._drive(lambda session: ops.reschedule(session, job_id, queue, at_ms, delay_ms))

    async def wait(self, job_id: str, queue: str | None = None, timeout: timedelta | float | None = None) -> Job:
        """Wait until a job ended and return it. It must be kept (`keep=`) for its end to be seen.

        Raises: JobNotFound when there is none (any more), WaitTimeout.
        """
        timeout_s = None if timeout is None else duration_ms(timeout, what="timeout") / 1000
        return await self._drive(lambda session: ops.wait(session, job_id, queue, timeout_s))

    async def queues(self) -> Listing[QueueName]:
        """Name every queue that was ever used; `unreadable` has what is on the list and is no name."""
        return await self._drive(ops.queues)

    async def queue(self, name: str) -> QueueInfo:
        """Tell how a queue stands."""
        return await self._drive(lambda session: ops.queue_info(session, name))

    async def queue_infos(self, names: Sequence[str]) -> list[QueueInfo]:
        """Tell how several queues stand, in two round trips for each hundred."""
        return await self._drive(lambda session: ops.queue_infos(session, names))

    async def pause(self, queue: str) -> None:
        """Stop claims of a queue; running jobs go on. After this returns, no new claim succeeds."""
        await self._drive(lambda session: ops.pause(session, queue))

    async def resume(self, queue: str) -> None:
        """Allow claims of a queue again."""
        await self._drive(lambda session: ops.resume(session, queue))

    async def set_cap(self, queue: str, cap: int | None) -> None:
        """Limit the living jobs of a queue; None lifts the limit. Enqueues over it raise QueueFull."""
        await self._drive(lambda session: ops.set_cap(session, queue, cap))

    async def count(self, queue: str, state: JobState) -> int:
        """Count the jobs of a queue in one state."""
        return await self._drive(lambda session: ops.count(session, queue, state))

    async def purge(self, queue: str, state: JobState, *, progress: Progress | None = None) -> int:
        """Delete every job of a queue in one state, in batches. Returns how many."""
        return await self._drive(lambda session: ops.purge(session, queue, state, progress))

    async def days(self, queue: str) -> Listing[DayInfo]:
        """Tell what is on the wheel, a line for each UTC day with jobs."""
        return await self._drive(lambda session: ops.days(session, queue))

    async def hours(self, queue: str, day: str) -> list[int]:
        """Count a day's jobs hour by hour, UTC: 24 numbers. day: `yyyymmdd`."""
        return await self._drive(lambda session: ops.hours(session, queue, day))

    async def dead(self, queue: str, *, limit: int = 100, offset: int = 0) -> list[Job]:
        """Read a page of dead jobs, newest first."""
        return await self.jobs(queue, JobState.DEAD, limit=limit, offset=offset)

    async def redrive(
        self,
        queue: str,
        job_ids: Sequence[str] | None = None,
        *,
        reason: str | None = None,
        task: str | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Put dead jobs back on the wheel, due now, with all attempts before them. Returns how many.

        Args:
            job_ids: Only these; None: all, or those with that `reason` and of that `task`.
        """
        matches = ops.matcher(reason, task)
        return await self._drive(lambda session: ops.redrive(session, queue, job_ids, matches, progress))

    async def purge_dead(
        self,
        queue: str,
        job_ids: Sequence[str] | None = None,
        *,
        older_than_ms: int | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Delete dead jobs: these, or those that died at least `older_than_ms` ago, or all. Returns how many."""
        return await self._drive(lambda session: ops.purge_dead(session, queue, job_ids, older_than_ms, progress))

    async def workers(self, queue: str | None = None) -> Listing[WorkerInfo]:
        """List the workers of a queue, or of all."""
        return await self._drive(lambda session: ops.workers(session, queue))

    async def ping(self) -> float:
        """Measure one round trip to Redis, ms."""
        return await self._drive(ops.ping)

    async def aclose(self) -> None:
        """Let what is under way in this event loop end, then close its connections."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
