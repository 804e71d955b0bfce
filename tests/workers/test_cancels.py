"""Cancelling jobs that run, on a real server: each answer is true, and nothing of a cancelled job is tried again."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import pytest

from tests.client.test_reshard import claimed_by_hand
from tests.servers import RedisServer
from tests.workers.harness import QUICK, Log, eventually, one_kind, running
from zwheel import CancelOutcome, Discard, Job, JobState, Retry, Wheel, cancel_requested, check_cancelled
from zwheel.keys import ShardKeys

pytestmark = pytest.mark.anyio
KEYS = ShardKeys.of("zw", "default")
#: A running job hears within a second; what a busy machine takes on top, seconds.
HEARS_S, BUSY_S = 1.0, 3.0


async def ended(wheel: Wheel, job_id: str) -> Job:
    """The job, when it has ended."""

    async def look() -> Job | None:
        return await wheel.get(job_id)

    job = await eventually(look, lambda job: job is not None and job.state.terminal)
    assert job is not None
    return job


async def test_a_coroutine_is_cancelled_within_a_second_and_never_tried_again(url: str, fresh: RedisServer) -> None:
    log, cleaned = Log(), []
    async with Wheel(url) as wheel:

        @wheel.task(name="long", keep=60)
        async def long() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                cleaned.append(time.monotonic())

        async with running(wheel, log, **QUICK):
            job = await long.enqueue()
            await log.seen("start", job.job_id)
            asked = time.monotonic()
            assert await wheel.cancel(job.job_id) is CancelOutcome.CANCEL_REQUESTED
            assert await wheel.cancel(job.job_id) in (CancelOutcome.CANCEL_REQUESTED, CancelOutcome.CANCELLED)
            found = await ended(wheel, job.job_id)
            assert (found.state, found.attempt, found.failures) == (JobState.CANCELLED, 1, ())
            assert found.cancel_asked_ms is not None
            assert cleaned[0] - asked < HEARS_S + BUSY_S
            assert await wheel.cancel(job.job_id) is CancelOutcome.CANCELLED
            assert log.starts()[job.job_id] == 1
            with fresh.client() as client:
                assert (client.zcard(KEYS.processing), client.zcard(KEYS.done)) == (0, 1)
                assert 0 < client.pttl(KEYS.asked) <= 86_400_000


async def test_what_a_task_does_when_it_is_cancelled_decides_only_whether_it_is_done(
    url: str, fresh: RedisServer
) -> None:
    log = Log()
    async with Wheel(url) as wheel:

        @wheel.task(name="stubborn", keep=60)
        async def stubborn(how: str) -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                match how:
                    case "raises":
                        raise ValueError("not now") from None
                    case "retries":
                        raise Retry(delay=0) from None
                    case "discards":
                        raise Discard("no") from None

        async with running(wheel, log, **QUICK):
            jobs = {how: await stubborn.enqueue(how) for how in ("raises", "retries", "discards", "returns")}
            for job in jobs.values():
                await log.seen("start", job.job_id)
                assert await wheel.cancel(job.job_id) is CancelOutcome.CANCEL_REQUESTED
            states = {how: (await ended(wheel, job.job_id)).state for how, job in jobs.items()}
            cancelled = dict.fromkeys(("raises", "retries", "discards"), JobState.CANCELLED)
            assert states == {**cancelled, "returns": JobState.DONE}
            assert await wheel.cancel(jobs["returns"].job_id) is CancelOutcome.TOO_LATE
            assert set(log.starts().values()) == {1}


async def test_a_task_that_goes_on_is_stopped_by_its_timeout_and_is_cancelled_then(
    url: str, fresh: RedisServer
) -> None:
    log = Log()
    async with Wheel(url) as wheel:

        @wheel.task(name="deaf", keep=60, timeout=2, retries=5)
        async def deaf() -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
            await asyncio.sleep(60)

        async with running(wheel, log, **QUICK):
            job = await deaf.enqueue()
            await log.seen("start", job.job_id)
            assert await wheel.cancel(job.job_id) is CancelOutcome.CANCEL_REQUESTED
            found = await ended(wheel, job.job_id)
            assert (found.state, found.attempt) == (JobState.CANCELLED, 1)


async def test_a_task_that_caught_its_cancellation_is_told_once_more_when_somebody_asks_again(
    url: str, fresh: RedisServer
) -> None:
    log = Log()
    caught: list[int] = []
    async with Wheel(url) as wheel:

        @wheel.task(name="stubborn", keep=60)
        async def stubborn() -> None:
            while len(caught) < 2:
                try:
                    await asyncio.sleep(600)
                except asyncio.CancelledError:
                    caught.append(1)
            raise asyncio.CancelledError

        async with running(wheel, log, **QUICK):
            job = await stubborn.enqueue()
            await log.seen("start", job.job_id)
            assert await wheel.cancel(job.job_id) is CancelOutcome.CANCEL_REQUESTED

            async def times() -> int:
                return len(caught)

            await eventually(times, lambda count: count == 1)
            assert await wheel.cancel(job.job_id) is CancelOutcome.CANCEL_REQUESTED
            assert (await ended(wheel, job.job_id)).state is JobState.CANCELLED


async def test_a_function_in_a_thread_is_told_when_it_asks(url: str, fresh: RedisServer) -> None:
    log = Log()
    async with Wheel(url) as wheel:

        @wheel.task(name="steps", keep=60)
        def steps(how: str) -> None:
            for _ in range(2000):
                time.sleep(0.01)
                if how == "checks":
                    check_cancelled()
                elif cancel_requested():
                    return
            raise AssertionError("nobody told it")

        async with running(wheel, log, **QUICK):
            checks, returns = await steps.enqueue("checks"), await steps.enqueue("returns")
            for job in (checks, returns):
                await log.seen("start", job.job_id)
                assert await wheel.cancel(job.job_id) is CancelOutcome.CANCEL_REQUESTED
            assert (await ended(wheel, checks.job_id)).state is JobState.CANCELLED
            # Who returns has done what it was to do.
            assert (await ended(wheel, returns.job_id)).state is JobState.DONE
    assert not cancel_requested()
    check_cancelled()


async def test_the_process_of_a_job_is_killed(url: str, fresh: RedisServer) -> None:
    from tests.workers import isolated_app

    log = Log()
    async with Wheel(url) as wheel:
        wheel.tasks.update(isolated_app.wheel.tasks)
        async with running(wheel, log, **QUICK):
            job = await wheel.enqueue("sleeps", args=[60.0], keep=60)
            await log.seen("start", job.job_id)
            assert await wheel.cancel(job.job_id) is CancelOutcome.CANCEL_REQUESTED
            assert (await ended(wheel, job.job_id)).state is JobState.CANCELLED


@one_kind
async def test_a_job_whose_worker_is_dead_is_cancelled_when_it_is_taken_back(url: str, fresh: RedisServer) -> None:
    async with Wheel(url) as wheel:
        job = await wheel.enqueue("t", keep=60)
        claimed_by_hand(fresh, "default")
        assert await wheel.cancel(job.job_id) is CancelOutcome.CANCEL_REQUESTED
        with fresh.client() as client:
            client.zadd(KEYS.processing, {job.job_id: 1})
        wheel.task(name="t")(lambda: None)
        log = Log()
        async with running(wheel, log, **QUICK):
            assert (await ended(wheel, job.job_id)).state is JobState.CANCELLED
        assert not log.starts()
        assert await wheel.cancel("nobody") is CancelOutcome.UNKNOWN


async def test_a_worker_that_stops_lets_a_cancelled_job_go_for_good(url: str, fresh: RedisServer) -> None:
    """It hears of the request only by the answer to what it says itself."""
    log = Log()
    async with Wheel(url) as wheel:

        @wheel.task(name="long", keep=60)
        async def long() -> None:
            await asyncio.sleep(60)

        settings: dict[str, Any] = {**QUICK, "drain_ms": 1}
        async with running(wheel, log, **settings) as one:
            job = await long.options(dedup="one").enqueue()
            await log.seen("start", job.job_id)
            assert await wheel.cancel(job.job_id) is CancelOutcome.CANCEL_REQUESTED
            one.worker.stop()
        assert (await ended(wheel, job.job_id)).state is JobState.CANCELLED
        # Its key is free.
        assert not (await long.options(dedup="one").enqueue()).existed
