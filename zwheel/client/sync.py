"""The blocking client: the same surface as Wheel, without await. For scripts, web views and threads."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ParamSpec, Self, TypeVar, overload

from zwheel import operations as ops
from zwheel.broker.store import Steps, SyncStore
from zwheel.calls import NewJob, Session
from zwheel.client.sync_schedules import SyncWheelSchedules
from zwheel.client.tasks import BaseTask, fire_time
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
#: What workers publish of a task is read again after so long, seconds: between two calls, since nothing runs beside them.
_OLDEST_S = 300.0


class SyncTask(BaseTask[P, R]):
    """A task of a SyncWheel."""

    __slots__ = ("_wheel",)

    def __init__(self, wheel: SyncWheel, function: Callable[P, R], name: str | None, **policy: Any) -> None:
        super().__init__(function, name, make_policy(**policy), wheel.codec)
        self._wheel = wheel

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Enqueued:
        """Store one call as a job. Returns it, or the job that already held its id or dedup key.

        Raises: BadArguments, PayloadError, InvalidTime before anything is sent; QueueFull, BrokerError.
        """
        return self._wheel.submit(self.job(*args, **kwargs))


_wheels: weakref.WeakSet[SyncWheel] = weakref.WeakSet()


def _after_fork() -> None:
    """Give each wheel a lock of its own: a thread that the child does not have may have held the parent's."""
    for wheel in _wheels:
        wheel._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class SyncWheel(SyncWheelSchedules):
    """The blocking client. Connects on first use; threads may share it, and a forked process connects anew.

    Every method raises BrokerUnavailable or OutcomeUnknown when Redis stays away for `give_up_s`.
    """

    _store: SyncStore | None = None
    _pid = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Keep the settings; the same as Wheel's."""
        super().__init__(*args, **kwargs)
        self._known: set[str] = set()
        self._lock = threading.RLock()
        _wheels.add(self)

    @overload
    def task(self, function: Callable[P, R], /) -> SyncTask[P, R]: ...
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
    ) -> Callable[[Callable[P, R]], SyncTask[P, R]]: ...
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
        """Register a function, sync or async, as a task; see `Wheel.task`."""

        def decorate(function: Callable[..., Any]) -> SyncTask[..., Any]:
            task: SyncTask[..., Any] = SyncTask(
                self, function, name, queue=queue, retries=retries, timeout=timeout, keep=keep, backoff=backoff,
                give_up_on=give_up_on, process=process,
            )  # fmt: skip
            self.register(task)
            return task

        return decorate if function is None else decorate(function)

    def _connections(self) -> Iterator[tuple[str, str]]:
        if self._store is not None and self._pid == os.getpid():
            yield self._store.url, self._store.session.namespace

    def _as_task(self, function: Callable[..., Any]) -> SyncTask[..., Any]:
        return self.task(function)

    def _drive(self, steps: Callable[[Session], Steps[T]], *, give_up_s: float | None = None) -> T:
        with self._lock:
            if self._store is None or self._pid != os.getpid():
                url, namespace = self.resolve()
                self._pid = os.getpid()
                self._store = SyncStore(url, Session(namespace), timeout_s=self.timeout_s, give_up_s=self.give_up_s)
                self._store.recorder = self.recorder(self._store.session)
            store = self._store
        return store.drive(steps(store.session), give_up_s=give_up_s)

    def learn(self, *tasks: str) -> None:
        """Read what workers publish of these tasks; see `Wheel.learn`. Raises: InvalidName, BrokerError."""
        names = [check_task(task) for task in tasks if task not in self.tasks]
        wanted, _ = self.catalogue.due(names, oldest_s=_OLDEST_S)
        if wanted:
            found, others = self._drive(lambda session: ops.learn(session, wanted))
            self.catalogue.learn(wanted, found, others)

    def submit(self, job: NewJob) -> Enqueued:
        """Store one job."""
        if job.unsettled is not None:
            self.learn(job.unsettled.task)
            (job,) = self._settled([job])
        return self._drive(lambda session: ops.enqueue_batch(session, [job], self._known))[0]

    def enqueue(
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
        """Store a job by its task's name; see `Wheel.enqueue`."""
        if isinstance(task, str) and task not in self.tasks:
            self.learn(task)
            self.catalogue.unknown(task, queue, strict=self.strict)
        job = self.new_job(
            task, args=args, kwargs=kwargs, at=at, delay=delay, queue=queue, id=id, retries=retries, timeout=timeout,
            keep=keep, dedup=dedup, within=within, headers=headers, replace=replace,
        )  # fmt: skip
        return self.submit(job)

    def enqueue_many(
        self, jobs: Iterable[NewJob], *, chunk: int = 250, progress: Progress | None = None
    ) -> list[Enqueued]:
        """Store many jobs, `chunk` at a time; see `Wheel.enqueue_many`."""
        bulk = ops.Bulk(jobs, chunk)
        answers: list[Enqueued] = []
        for part in bulk.chunks():
            if names := part.unsettled:
                self.learn(*names)
                part = part.of(self._settled(part.jobs))
            answers += self._drive(lambda session, part=part: part.store(session, self._known))  # type: ignore[misc]
            if progress is not None:
                progress(len(answers))
        if bulk.remembered:
            self._drive(bulk.forget, give_up_s=0)
        return answers

    def get(self, job_id: str, queue: str | None = None) -> Job | None:
        """Read one job; None when there is none (any more). Without `queue` it looks in every known one."""
        return self._drive(lambda session: ops.get(session, job_id, queue))

    def jobs(self, queue: str, state: JobState | None = None, *, limit: int = 100, offset: int = 0) -> Listing[Job]:
        """Read a page of jobs: running first, then scheduled by fire time, then dead and ended, newest first."""
        return self._drive(lambda session: ops.jobs(session, queue, state, limit, offset))

    def cancel(self, job_id: str, queue: str | None = None) -> CancelOutcome:
        """Take a scheduled job off the wheel; after `cancelled` it never starts, and its id is free for a new one."""
        return self._drive(lambda session: ops.cancel(session, job_id, queue))

    def reschedule(
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
        return self._drive(lambda session: ops.reschedule(session, job_id, queue, at_ms, delay_ms))

    def wait(self, job_id: str, queue: str | None = None, timeout: timedelta | float | None = None) -> Job:
        """Wait until a job ended and return it; see `Wheel.wait`. Raises: JobNotFound, WaitTimeout."""
        timeout_s = None if timeout is None else duration_ms(timeout, what="timeout") / 1000
        return self._drive(lambda session: ops.wait(session, job_id, queue, timeout_s))

    def queues(self) -> Listing[QueueName]:
        """Name every queue that was ever used; `unreadable` has what is on the list and is no name."""
        return self._drive(ops.queues)

    def queue(self, name: str) -> QueueInfo:
        """Tell how a queue stands."""
        return self._drive(lambda session: ops.queue_info(session, name))

    def queue_infos(self, names: Sequence[str]) -> list[QueueInfo]:
        """Tell how several queues stand, in two round trips for each hundred."""
        return self._drive(lambda session: ops.queue_infos(session, names))

    def pause(self, queue: str) -> None:
        """Stop claims of a queue; running jobs go on. After this returns, no new claim succeeds."""
        self._drive(lambda session: ops.pause(session, queue))

    def resume(self, queue: str) -> None:
        """Allow claims of a queue again."""
        self._drive(lambda session: ops.resume(session, queue))

    def set_cap(self, queue: str, cap: int | None) -> None:
        """Limit the living jobs of a queue; None lifts the limit. Enqueues over it raise QueueFull."""
        self._drive(lambda session: ops.set_cap(session, queue, cap))

    def count(self, queue: str, state: JobState) -> int:
        """Count the jobs of a queue in one state."""
        return self._drive(lambda session: ops.count(session, queue, state))

    def purge(self, queue: str, state: JobState, *, progress: Progress | None = None) -> int:
        """Delete every job of a queue in one state, in batches. Returns how many."""
        return self._drive(lambda session: ops.purge(session, queue, state, progress))

    def days(self, queue: str) -> Listing[DayInfo]:
        """Tell what is on the wheel, a line for each UTC day with jobs."""
        return self._drive(lambda session: ops.days(session, queue))

    def hours(self, queue: str, day: str) -> list[int]:
        """Count a day's jobs hour by hour, UTC: 24 numbers. day: `yyyymmdd`."""
        return self._drive(lambda session: ops.hours(session, queue, day))

    def dead(self, queue: str, *, limit: int = 100, offset: int = 0) -> Listing[Job]:
        """Read a page of dead jobs, newest first."""
        return self.jobs(queue, JobState.DEAD, limit=limit, offset=offset)

    def redrive(
        self,
        queue: str,
        job_ids: Sequence[str] | None = None,
        *,
        reason: str | None = None,
        task: str | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Put dead jobs back on the wheel, due now; see `Wheel.redrive`. Returns how many."""
        matches = ops.matcher(reason, task)
        return self._drive(lambda session: ops.redrive(session, queue, job_ids, matches, progress))

    def purge_dead(
        self,
        queue: str,
        job_ids: Sequence[str] | None = None,
        *,
        older_than_ms: int | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Delete dead jobs: these, or those that died at least `older_than_ms` ago, or all. Returns how many."""
        return self._drive(lambda session: ops.purge_dead(session, queue, job_ids, older_than_ms, progress))

    def published_task(self, name: str) -> PublishedTask | None:
        """Read what workers publish of a task; None when no worker has published it."""
        return self._drive(lambda session: ops.published(session, [check_task(name)])).get(name)

    def published_tasks(self) -> Listing[PublishedTask]:
        """Read what workers publish of all their tasks, by name."""
        return self._drive(ops.tasks)

    def serving(self, pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Serving]:
        """Tell who serves a task in a queue, for pairs of queue and task."""
        return self._drive(lambda session: ops.serving(session, pairs))

    def next_tasks(self, infos: Sequence[QueueInfo]) -> dict[str, str]:
        """Name the task of the first job on the wheel of each of these queues, by queue."""
        return self._drive(lambda session: ops.next_tasks(session, infos))

    def workers(self, queue: str | None = None) -> Listing[WorkerInfo]:
        """List the workers of a queue, or of all."""
        return self._drive(lambda session: ops.workers(session, queue))

    def ping(self) -> float:
        """Measure one round trip to Redis, ms."""
        return self._drive(ops.ping)

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            store, self._store = self._store, None
            if store is not None and self._pid == os.getpid():
                store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
