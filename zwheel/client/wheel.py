"""The async client: define tasks, enqueue jobs, look at them and act on them.

`make format` derives the blocking client from this file and from schedules, so that a method is written once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ParamSpec, Self, TypeVar, Unpack, overload

from zwheel import operations as ops
from zwheel.calls import NewJob
from zwheel.client.schedules import WheelSchedules
from zwheel.client.tasks import BaseTask, fire_time
from zwheel.errors import InvalidInput
from zwheel.info import DayInfo, QueueInfo, ReshardProgress, Serving, WorkerInfo
from zwheel.job import CancelOutcome, Enqueued, Job, JobState, QueueName, RescheduleOutcome
from zwheel.keys import check_task
from zwheel.operations.act import Progress
from zwheel.outside import Listing
from zwheel.policy import JobOptions, PolicyOptions, make_policy
from zwheel.published.task import PublishedTask
from zwheel.times import duration_ms

P = ParamSpec("P")
R = TypeVar("R")


class Task(BaseTask[P, R]):
    """A task of an async Wheel."""

    __slots__ = ("_wheel",)

    def __init__(
        self, wheel: Wheel, function: Callable[P, R], name: str | None, **policy: Unpack[PolicyOptions]
    ) -> None:
        super().__init__(function, name, make_policy(**policy), wheel.codec)
        self._wheel = wheel

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Enqueued:
        """Store one call as a job. Returns it, or the job that already held its id or dedup key.

        Raises: BadArguments, PayloadError, InvalidTime before anything is sent; QueueFull, BrokerError.
        """
        return await self._wheel._store(self.job(*args, **kwargs))


class Wheel(WheelSchedules):
    """The async client. Connects on first use; may be made at import time and shared by event loops in any threads.

    Each loop has connections of its own. `aclose` closes those of the loop that it runs in; the end of `asyncio.run`
    closes what was left open there. Every method raises BrokerUnavailable or OutcomeUnknown when Redis stays away for
    `give_up_s`.
    """

    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(
        self, function: None = None, /, *, name: str | None = None, **policy: Unpack[PolicyOptions]
    ) -> Callable[[Callable[P, R]], Task[P, R]]: ...
    def task(
        self, function: Callable[..., Any] | None = None, /, *, name: str | None = None, **policy: Unpack[PolicyOptions]
    ) -> Any:
        """Register a function, sync or async, as a task.

        name: How jobs name it; the default is `module.function`. policy: see PolicyOptions.
        """

        def decorate(function: Callable[..., Any]) -> Task[..., Any]:
            task: Task[..., Any] = Task(self, function, name, **policy)
            self.register(task)
            return task

        return decorate if function is None else decorate(function)

    def _as_task(self, function: Callable[..., Any]) -> Task[..., Any]:
        return self.task(function)

    async def submit(self, job: NewJob) -> Enqueued:
        """Store one job."""
        if job.unsettled is not None:
            await self.learn(job.unsettled.task)
            (job,) = self._settled([job])
        return await self._store(job)

    async def enqueue(
        self,
        task: str | BaseTask[Any, Any],
        *,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[JobOptions],
    ) -> Enqueued:
        """Store a job by its task's name; the task's code need not be here. See `new_job` for what is checked.

        Returns the job, or the job that already held its id or dedup key. A cancelled job holds no id; with `replace`
        neither does a job that is done or dead. Raises also: QueueFull, BrokerError, and UnknownTask where the wheel is
        strict.
        """
        if isinstance(task, str) and task not in self.tasks:
            await self.learn(task)
            self.catalogue.unknown(task, options.get("queue"), strict=self.strict)
        return await self._store(self.new_job(task, args=args, kwargs=kwargs, **options))

    async def get(self, job_id: str, queue: str | None = None) -> Job | None:
        """Read one job; None when there is none (any more). Without `queue` it looks in every known one."""
        return await self._drive(lambda session: ops.get(session, job_id, queue))

    async def jobs(
        self, queue: str, state: JobState | None = None, *, limit: int = 100, offset: int = 0
    ) -> Listing[Job]:
        """Read a page of jobs: running first, then scheduled by fire time, then dead and ended, newest first."""
        return await self._drive(lambda session: ops.jobs(session, queue, state, limit, offset))

    async def cancel(self, job_id: str, queue: str | None = None) -> CancelOutcome:
        """Cancel a job, and say what became of it.

        cancelled: it never starts, and its id is free for a new job. cancel_requested: its worker hears of it within a second,
        and stops it: see `check_cancelled` for tasks that are plain functions. Unless it is done by then it ends as cancelled,
        also when its worker is dead.
        """
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

    async def create_queue(self, queue: str, *, shards: int = 1) -> None:
        """Make a queue before its first job, with 1 to 1024 shards. A queue that nobody made has one.

        The same call again changes nothing. Raises: InvalidInput; QueueExists, when it has another number of shards.
        """
        await self._drive(lambda session: ops.create_queue(session, queue, shards))

    async def reshard_queue(
        self, queue: str, *, shards: int, wait: bool = True, progress: Callable[[ReshardProgress], None] | None = None
    ) -> ReshardProgress:
        """Cut a queue into another number of shards, 1 to 1024, while producers and workers go on.

        Returns when all its jobs have moved; with `wait=False` what runs may be left, and workers move what is left of that.
        The same call again goes on where one before it stopped; workers do so too. Raises: InvalidInput; ReshardUnderWay,
        when it is being cut into another number already.
        """
        return await self._drive(lambda session: ops.reshard(session, queue, shards, progress, wait=wait))

    async def remove_queue(self, queue: str, *, jobs: bool = False, progress: Progress | None = None) -> int:
        """Remove an empty queue; with `jobs=True` also one with jobs and schedules, which are deleted. Returns how many jobs.

        Settings such as its cap go with it. A job that is enqueued at this moment is stored before, and the queue stays, or
        makes the queue anew. Raises: QueueInUse, while workers serve it, or when there are jobs.
        """
        from zwheel.operations.remove import remove_queue

        return await self._drive(lambda session: remove_queue(session, queue, jobs=jobs, progress=progress))

    async def pause(self, queue: str) -> None:
        """Stop claims of a queue; running jobs go on. After this returns, no new claim succeeds."""
        await self._drive(lambda session: ops.pause(session, queue))

    async def resume(self, queue: str) -> None:
        """Allow claims of a queue again."""
        await self._drive(lambda session: ops.resume(session, queue))

    async def set_cap(self, queue: str, cap: int | None) -> None:
        """Limit the living jobs of a queue; None lifts the limit. Enqueues over it raise QueueFull."""
        await self._drive(lambda session: ops.set_cap(session, queue, cap))

    async def set_precise(self, queue: str, precise: bool) -> None:
        """Let workers take jobs of a queue a few ms ahead and hold them until their very time, or no longer do so."""
        await self._drive(lambda session: ops.set_precise(session, queue, precise))

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
        """Delete dead jobs: these, or all that died at least `older_than_ms` ago, or all. Returns how many."""
        return await self._drive(lambda session: ops.purge_dead(session, queue, job_ids, older_than_ms, progress))

    async def published_task(self, name: str) -> PublishedTask | None:
        """Read what workers publish of a task; None when no worker has published it."""
        found = await self._drive(lambda session: ops.published(session, [check_task(name)]))
        return found.get(name)

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

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
