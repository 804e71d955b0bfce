"""The async client: define tasks, enqueue jobs, look at them and act on them."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ParamSpec, Self, TypeVar, overload

from zwheel import operations as ops
from zwheel.broker.store import Steps, Store
from zwheel.calls import NewJob, Session
from zwheel.client.connection import Client
from zwheel.client.tasks import BaseTask, fire_time
from zwheel.client.wheel_schedules import WheelSchedules
from zwheel.errors import InvalidInput
from zwheel.info import DayInfo, QueueInfo, Serving, WorkerInfo
from zwheel.job import CancelOutcome, Enqueued, Job, JobState, QueueName, RescheduleOutcome
from zwheel.keys import check_task
from zwheel.operations.act import Progress
from zwheel.outside import Listing
from zwheel.policy import DEFAULT_RETRIES, make_policy
from zwheel.published.task import PublishedTask
from zwheel.retry import Backoff
from zwheel.times import duration_ms

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

#: How many chunks of one `enqueue_many` are under way at a time: one is stored while the next is encoded.
_CHUNKS_UNDER_WAY = 2


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
    def _clients(self) -> dict[asyncio.AbstractEventLoop, Client]:
        """What each event loop has. Threads may meet here first at the same time: the dict takes the first one's."""
        found: dict[asyncio.AbstractEventLoop, Client] = vars(self).setdefault(_CLIENTS, {})
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

    def _connections(self) -> Iterator[tuple[str, str]]:
        for loop, client in list(self._clients.items()):
            if not loop.is_closed():
                yield client.store.url, client.store.session.namespace

    def _as_task(self, function: Callable[..., Any]) -> Task[..., Any]:
        return self.task(function)

    def _connect(self) -> Client:
        loop = asyncio.get_running_loop()
        clients = self.__dict__.get(_CLIENTS)
        client: Client | None = None if clients is None else clients.get(loop)
        if client is None:
            for other in [other for other in list(self._clients) if other.is_closed()]:
                if (gone := self._clients.pop(other, None)) is not None:
                    gone.abandon()
            url, namespace = self.resolve()
            store = Store(url, Session(namespace), timeout_s=self.timeout_s, give_up_s=self.give_up_s)
            store.recorder = self.recorder(store.session)
            clients = self._clients
            client = clients[loop] = Client(store, self.catalogue, lambda: clients.pop(loop, None))
            _wheels.add(self)
        return client

    async def _drive(self, steps: Callable[[Session], Steps[T]]) -> T:
        store = self._connect().store
        return await store.drive(steps(store.session))

    async def submit(self, job: NewJob) -> Enqueued:
        """Store one job. Concurrent calls are batched automatically."""
        if job.unsettled is not None:
            await self._connect().learn([job.unsettled.task])
            (job,) = self._settled([job])
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
        neither does one that is done or dead. Raises also: QueueFull, BrokerError, and UnknownTask where the wheel is
        strict.
        """
        if isinstance(task, str) and task not in self.tasks:
            await self.learn(task)
            self.catalogue.unknown(task, queue, strict=self.strict)
        job = self.new_job(
            task, args=args, kwargs=kwargs, at=at, delay=delay, queue=queue, id=id, retries=retries, timeout=timeout,
            keep=keep, dedup=dedup, within=within, headers=headers, replace=replace,
        )  # fmt: skip
        return await self._connect().batcher(job.queue).submit(job)

    async def learn(self, *tasks: str) -> None:
        """Read what workers publish of these tasks, so that `new_job` and `new_schedule` know it: queue, policy, signature.

        `enqueue` does so by itself. What was read lately is not read again. Raises: InvalidName, BrokerError.
        """
        await self._connect().learn([check_task(task) for task in tasks if task not in self.tasks])

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
                if names := part.unsettled:
                    await client.learn(names)
                    part = part.of(self._settled(part.jobs))
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

    async def jobs(
        self, queue: str, state: JobState | None = None, *, limit: int = 100, offset: int = 0
    ) -> Listing[Job]:
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

    async def dead(self, queue: str, *, limit: int = 100, offset: int = 0) -> Listing[Job]:
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

    async def published_task(self, name: str) -> PublishedTask | None:
        """Read what workers publish of a task; None when no worker has published it."""
        return (await self._drive(lambda session: ops.published(session, [check_task(name)]))).get(name)

    async def published_tasks(self) -> Listing[PublishedTask]:
        """Read what workers publish of all their tasks, by name."""
        return await self._drive(ops.tasks)

    async def serving(self, pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Serving]:
        """Tell who serves a task in a queue, for pairs of queue and task."""
        return await self._drive(lambda session: ops.serving(session, pairs))

    async def next_tasks(self, infos: Sequence[QueueInfo]) -> dict[str, str]:
        """Name the task of the first job on the wheel of each of these queues, by queue."""
        return await self._drive(lambda session: ops.next_tasks(session, infos))

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
