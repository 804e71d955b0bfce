"""The public surface as a type checker sees it. Never run: `make check` reads it.

Each `type: ignore` is a mistake that must be found; mypy reports the ones that are no longer needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import assert_type

from zwheel import (
    Backoff,
    CancelOutcome,
    DayInfo,
    Enqueued,
    Failure,
    Job,
    JobState,
    NewJob,
    QueueInfo,
    RescheduleOutcome,
    Retry,
    SyncWheel,
    WaitTimeout,
    Wheel,
    WorkerInfo,
    ZwheelError,
    current_job,
)
from zwheel.job import JobId, QueueName, WorkerId
from zwheel.outside import Listing

wheel = Wheel("redis://localhost:6379/0", namespace="shop", owner="shop")
sync_wheel = SyncWheel()


@wheel.task(queue="emails", retries=3, timeout=30, keep=timedelta(hours=1), backoff=Backoff(), give_up_on=(ValueError,))
async def send(to: str, n: int = 1) -> float:
    return n / 2


@wheel.task
async def bare(to: str) -> None: ...


@wheel.task(name="images.resize")
def resize(path: str) -> int:
    return len(path)


@sync_wheel.task(name="emails.send")
def sync_send(to: str, n: int = 1) -> float:
    return n / 2


async def a_task_is_still_the_function_it_was() -> None:
    assert_type(await send("a", n=2), float)
    assert_type(resize("a.png"), int)
    await send("a", m=2)  # type: ignore[call-arg]
    await send(1)  # type: ignore[arg-type]


async def a_task_is_enqueued_with_its_own_arguments() -> None:
    enqueued = await send.enqueue("a", n=2)
    assert_type(enqueued, Enqueued)
    assert_type(enqueued.job_id, JobId)
    assert_type(enqueued.existed, bool)
    assert_type(enqueued.queue, QueueName)
    assert_type(enqueued.fire_at, datetime)
    assert_type(await bare.enqueue("a"), Enqueued)
    assert_type(await resize.enqueue("a.png"), Enqueued)
    assert_type(send.job("a", n=2), NewJob)
    await send.enqueue()  # type: ignore[call-arg]
    await send.enqueue("a", n="2")  # type: ignore[arg-type]
    send.job(to=1)  # type: ignore[arg-type]


async def options_keep_the_arguments() -> None:
    later = send.options(
        delay=60,
        id="x",
        queue="slow",
        retries=0,
        timeout=5,
        keep=3600,
        dedup="key",
        within=timedelta(hours=1),
        replace=True,
    )
    assert_type(await later.enqueue("a", n=2), Enqueued)
    assert_type(send.options(at=datetime(2030, 1, 1, tzinfo=UTC)).job("a"), NewJob)
    await later.enqueue(2)  # type: ignore[arg-type]
    send.options(delay="60")  # type: ignore[arg-type]
    send.options(at=60)  # type: ignore[arg-type]
    send.options(colour="red")  # type: ignore[call-arg]
    wheel.new_job("emails.send", colour="red")  # type: ignore[call-arg]
    await wheel.enqueue("emails.send", delay="60")  # type: ignore[arg-type]
    sync_wheel.enqueue("emails.send", delay="60")  # type: ignore[arg-type]
    wheel.task(name="emails.send", retry=3)  # type: ignore[call-overload]


async def jobs_by_name() -> None:
    by_name = await wheel.enqueue(
        "emails.send", args=["a"], kwargs={"n": 2}, delay=timedelta(minutes=1), headers={"a": "b"}
    )
    assert_type(by_name, Enqueued)
    assert_type(by_name.replaced, bool)
    new = wheel.new_job("emails.send", args=["a"], at=datetime(2030, 1, 1, tzinfo=UTC), id="x", dedup="k")
    assert_type(new, NewJob)
    assert_type(await wheel.enqueue_many([new, send.job("a")], chunk=100), list[Enqueued])
    assert_type(await wheel.enqueue_many(send.job(name) for name in "abc"), list[Enqueued])
    await wheel.enqueue("emails.send", delay="1m")  # type: ignore[arg-type]


async def reading_and_acting_on_jobs(job_id: JobId) -> None:
    job = await wheel.get(job_id, queue="emails")
    assert_type(job, Job | None)
    job.state  # type: ignore[union-attr]
    jobs = await wheel.jobs("emails", JobState.DEAD, limit=10, offset=0)
    assert_type(jobs, Listing[Job])
    assert_type(jobs[0].state, JobState)
    assert_type(jobs[0].failures, tuple[Failure, ...])
    assert_type(jobs[0].worker, WorkerId | None)
    assert_type(await wheel.cancel(job_id), CancelOutcome)
    assert_type(await wheel.reschedule(job_id, delay=5), RescheduleOutcome)
    assert_type(await wheel.wait(job_id, timeout=5), Job)


async def reading_and_acting_on_queues() -> None:
    assert_type(await wheel.queues(), Listing[QueueName])
    info = await wheel.queue("emails")
    assert_type(info, QueueInfo)
    assert_type(info.oldest_due_ms, int | None)
    assert_type(await wheel.remove_queue("emails", jobs=True), int)
    await wheel.pause("emails")
    await wheel.resume("emails")
    await wheel.set_cap("emails", None)
    await wheel.set_precise("emails", True)
    assert_type(await wheel.count("emails", JobState.SCHEDULED), int)
    assert_type(await wheel.purge("emails", JobState.SCHEDULED, progress=print), int)
    assert_type(await wheel.days("emails"), Listing[DayInfo])
    assert_type(await wheel.hours("emails", "20261201"), list[int])
    assert_type(await wheel.dead("emails", limit=10, offset=0), Listing[Job])
    assert_type(await wheel.redrive("emails", ["a", "b"]), int)
    assert_type(await wheel.purge_dead("emails", older_than_ms=1000), int)
    assert_type(await wheel.workers(), Listing[WorkerInfo])
    assert_type(await wheel.ping(), float)


async def a_wheel_is_closed_by_its_block() -> None:
    async with Wheel() as opened:
        assert_type(opened, Wheel)
    await wheel.aclose()
    with SyncWheel() as shut:
        assert_type(shut, SyncWheel)
    with Wheel():  # type: ignore[attr-defined]
        pass


def the_sync_twin_has_the_same_surface(job_id: JobId, names: Sequence[str]) -> None:
    assert_type(sync_send("a", n=2), float)
    assert_type(sync_send.enqueue("a", n=2), Enqueued)
    assert_type(sync_send.options(delay=60).enqueue("a"), Enqueued)
    assert_type(sync_wheel.enqueue("emails.send", args=["a"]), Enqueued)
    assert_type(sync_wheel.enqueue_many([sync_send.job(name) for name in names]), list[Enqueued])
    assert_type(sync_wheel.get(job_id), Job | None)
    assert_type(sync_wheel.jobs("emails"), Listing[Job])
    assert_type(sync_wheel.cancel(job_id), CancelOutcome)
    assert_type(sync_wheel.reschedule(job_id, at=datetime(2030, 1, 1, tzinfo=UTC)), RescheduleOutcome)
    assert_type(sync_wheel.wait(job_id), Job)
    assert_type(sync_wheel.queues(), Listing[QueueName])
    assert_type(sync_wheel.queue("emails"), QueueInfo)
    assert_type(sync_wheel.purge("emails", JobState.DONE), int)
    assert_type(sync_wheel.redrive("emails"), int)
    assert_type(sync_wheel.workers("emails"), Listing[WorkerInfo])
    assert_type(sync_wheel.ping(), float)
    sync_wheel.close()
    sync_send.enqueue(1)  # type: ignore[arg-type]


async def inside_a_task() -> None:
    job = current_job()
    assert_type(job.id, JobId)
    assert_type(job.token, int)
    assert_type(job.attempt, int)
    raise Retry(delay=timedelta(minutes=5))


def errors_have_one_root() -> None:
    try:
        sync_wheel.ping()
    except WaitTimeout as error:
        assert_type(error, WaitTimeout)
    except ZwheelError as error:
        assert_type(str(error), str)
