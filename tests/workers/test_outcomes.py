"""How an attempt ends: retries, backoff, giving up, timeouts, and what a dead job says of itself."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest

from tests.workers.harness import Log, eventually, running
from zwheel import Backoff, Discard, Job, JobState, Reason, Retry, Wheel, current_job

pytestmark = pytest.mark.anyio

AT_ONCE = Backoff(first=0.001, factor=1, longest=0.001)


async def died(wheel: Wheel, job_id: str, queue: str = "default") -> Job:
    job = await wheel.wait(job_id, queue, timeout=10)
    assert job.state is JobState.DEAD
    return job


async def test_a_failing_job_runs_retries_and_once_more_and_is_then_dead(wheel: Wheel, log: Log) -> None:
    attempts = []

    @wheel.task(retries=2, backoff=AT_ONCE)
    async def fail() -> None:
        attempts.append(current_job().attempt)
        raise ValueError(f"bad luck {len(attempts)}")

    async with running(wheel, log):
        job = await died(wheel, (await fail.enqueue()).job_id)
    assert attempts == [1, 2, 3]
    assert (job.attempt, job.max_attempts, job.reason) == (3, 3, Reason.ERROR)
    assert [(f.attempt, f.kind, f.message) for f in job.failures] == [
        (1, "ValueError", "bad luck 1"), (2, "ValueError", "bad luck 2"), (3, "ValueError", "bad luck 3"),
    ]  # fmt: skip
    assert "bad luck" in job.failures[0].traceback
    assert all(f.worker for f in job.failures)


async def test_a_retry_waits_within_its_backoff(wheel: Wheel, log: Log) -> None:
    @wheel.task(retries=1, backoff=Backoff(first=20, factor=1, longest=20))
    async def fail() -> None:
        raise ValueError

    async with running(wheel, log):
        await wheel.enqueue_many(fail.job() for _ in range(40))
        await log.seen("retried", count=40)
        await eventually(lambda: wheel.count("default", JobState.PROCESSING), lambda left: left == 0)
        waiting = [job for job in await wheel.jobs("default", JobState.SCHEDULED) if job.failures]
    delays = sorted(job.fire_at_ms - job.failures[-1].at_ms for job in waiting)
    # A second for what passes between the failure and Redis hearing of it.
    assert delays[0] >= -50 and delays[-1] <= 21_000
    assert delays[-1] - delays[0] > 5_000, "no jitter"


async def test_a_task_names_the_delay_of_its_retry(wheel: Wheel, log: Log) -> None:
    @wheel.task(retries=3)
    async def later() -> None:
        raise Retry("not yet", delay=timedelta(hours=2))

    async with running(wheel, log):
        answer = await later.enqueue()
        await log.seen("retried")
        job = await eventually(
            lambda: wheel.get(answer.job_id), lambda job: job is not None and job.state is JobState.SCHEDULED
        )
    assert job is not None
    assert 7_195_000 < job.fire_at_ms - answer.fire_at_ms < 7_205_000
    assert (job.attempt, job.failures[-1].kind, job.failures[-1].message) == (1, "Retry", "not yet")


async def test_a_retry_beyond_the_calendar_does_not_end_the_worker(wheel: Wheel, log: Log) -> None:
    @wheel.task(retries=3)
    async def never() -> None:
        raise Retry(delay=timedelta(days=2_920_000))

    @wheel.task(keep=60)
    async def fine() -> None:
        pass

    async with running(wheel, log):
        answer = await never.enqueue()
        await log.seen("retried", answer.job_id)
        assert (await wheel.wait((await fine.enqueue()).job_id, timeout=5)).state is JobState.DONE
        job = await wheel.get(answer.job_id)
    assert job is not None
    assert job.state is JobState.SCHEDULED
    assert job.fire_at.year > 2900


async def test_discard_ends_a_job_whatever_attempts_are_left(wheel: Wheel, log: Log) -> None:
    @wheel.task(retries=9)
    async def refuse() -> None:
        raise Discard("the order is gone")

    async with running(wheel, log):
        job = await died(wheel, (await refuse.enqueue()).job_id)
    assert (job.attempt, job.reason, job.failures[-1].message) == (1, Reason.DISCARDED, "the order is gone")


async def test_give_up_on_ends_a_job_for_these_exceptions_and_their_kinds(wheel: Wheel, log: Log) -> None:
    @wheel.task(retries=9, backoff=AT_ONCE, give_up_on=(LookupError,))
    async def look(kind: str) -> None:
        raise KeyError(kind) if kind == "key" else OSError(kind)

    async with running(wheel, log):
        given_up = await died(wheel, (await look.enqueue("key")).job_id)
        retried = await look.options(retries=1).enqueue("other")
        assert (await died(wheel, retried.job_id)).attempt == 2
    assert (given_up.attempt, given_up.reason) == (1, Reason.DISCARDED)


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_timeout_of_the_task_ends_an_attempt(wheel: Wheel, log: Log, kind: str) -> None:
    async def slow() -> None:
        await asyncio.Event().wait()

    def slow_in_a_thread() -> None:
        time.sleep(0.3)

    task = wheel.task(timeout=0.1, retries=1, backoff=AT_ONCE)(slow if kind == "async" else slow_in_a_thread)
    async with running(wheel, log):
        job = await died(wheel, (await task.enqueue()).job_id)
    assert [f.reason for f in job.failures] == [Reason.TIMEOUT, Reason.TIMEOUT]
    assert job.attempt == 2


async def test_a_timeout_of_the_job_goes_before_that_of_the_task(wheel: Wheel, log: Log) -> None:
    @wheel.task(timeout=0.05, retries=0, keep=60)
    async def wait_a_little() -> None:
        await asyncio.sleep(0.2)

    async with running(wheel, log):
        longer = await wait_a_little.options(timeout=5).enqueue()
        assert (await wheel.wait(longer.job_id, timeout=5)).state is JobState.DONE
        assert (await died(wheel, (await wait_a_little.enqueue()).job_id)).reason == Reason.TIMEOUT
        by_name = await wheel.enqueue(wait_a_little.name, timeout=5, keep=60)
        assert (await wheel.wait(by_name.job_id, timeout=5)).state is JobState.DONE


async def test_a_task_may_clean_up_after_its_timeout_and_still_end_well(wheel: Wheel, log: Log) -> None:
    @wheel.task(timeout=0.05, retries=0, keep=60)
    async def tidy() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)

    async with running(wheel, log):
        assert (await wheel.wait((await tidy.enqueue()).job_id, timeout=5)).state is JobState.DONE


async def test_retries_of_the_job_go_before_those_of_the_task(wheel: Wheel, log: Log) -> None:
    @wheel.task(retries=9, backoff=AT_ONCE)
    async def fail() -> None:
        raise ValueError

    async with running(wheel, log):
        assert (await died(wheel, (await fail.options(retries=0).enqueue()).job_id)).attempt == 1


async def test_a_dead_job_that_is_redriven_has_all_its_attempts_again(wheel: Wheel, log: Log) -> None:
    broken = True

    @wheel.task(retries=1, backoff=AT_ONCE, keep=60)
    async def maybe() -> None:
        if broken:
            raise ValueError

    async with running(wheel, log):
        answer = await maybe.enqueue()
        await died(wheel, answer.job_id)
        broken = False
        assert await wheel.redrive("default", [answer.job_id]) == 1
        job = await wheel.wait(answer.job_id, timeout=5)
    assert (job.state, job.attempt) == (JobState.DONE, 1)


async def test_the_dead_set_keeps_its_size_and_counts_what_went(wheel: Wheel, log: Log) -> None:
    @wheel.task(retries=0)
    async def fail() -> None:
        raise ValueError

    async with running(wheel, log, most_dead=5):
        await wheel.enqueue_many(fail.job() for _ in range(12))
        info = await eventually(lambda: wheel.queue("default"), lambda q: q.dead + q.trimmed == 12)
    assert (info.dead, info.trimmed) == (5, 7)


async def test_a_job_is_kept_as_long_as_asked_and_no_longer(wheel: Wheel, log: Log) -> None:
    @wheel.task
    async def work() -> None:
        pass

    async with running(wheel, log):
        gone = await work.enqueue()
        short = await work.options(keep=0.2).enqueue()
        chosen = await work.options(id="mine").enqueue()
        await log.seen("done", count=3)
        kept = await wheel.wait(chosen.job_id, timeout=5)
        assert kept.body == b""
        assert (await work.options(id="mine").enqueue()).existed
        await eventually(lambda: wheel.get(gone.job_id), lambda job: job is None)
        await eventually(lambda: wheel.get(short.job_id), lambda job: job is None, within=5)
        assert await wheel.get("mine") is not None


async def test_cancelled_jobs_never_start(wheel: Wheel, log: Log) -> None:
    @wheel.task
    async def work() -> None:
        pass

    answers = await wheel.enqueue_many(work.options(delay=0.05).job() for _ in range(60))
    async with running(wheel, log, concurrency=3):
        outcomes = dict(
            zip(
                [a.job_id for a in answers],
                await asyncio.gather(*(wheel.cancel(a.job_id, "default") for a in answers)),
                strict=True,
            )
        )
        cancelled = {job for job, outcome in outcomes.items() if outcome == "cancelled"}
        await log.until(lambda: len(log.of("done")) == len(answers) - len(cancelled))
    assert cancelled.isdisjoint(log.starts())
    assert cancelled | set(log.starts()) == set(outcomes)


async def test_a_rescheduled_job_runs_once_at_its_new_time(wheel: Wheel, log: Log) -> None:
    @wheel.task
    async def work() -> None:
        pass

    async with running(wheel, log):
        sooner = await work.options(delay=3600).enqueue()
        later = await work.options(delay=0.2).enqueue()
        assert await wheel.reschedule(sooner.job_id, delay=0.01) == "rescheduled"
        assert await wheel.reschedule(later.job_id, delay=3600) == "rescheduled"
        await log.seen("done", sooner.job_id, within=3)
        marker = await work.options(delay=0.3).enqueue()
        await log.seen("done", marker.job_id)
    assert log.starts() == {sooner.job_id: 1, marker.job_id: 1}
