"""Jobs run at their time, once, whatever kind of function they are."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import pytest

from tests.servers import RedisServer
from tests.workers.harness import Log, eventually, running
from zwheel import JobState, Retry, Wheel, current_job
from zwheel.errors import ZwheelError

pytestmark = pytest.mark.anyio


def server_us(server: RedisServer) -> int:
    with server.client() as client:
        seconds, us = client.time()
        return int(seconds) * 1_000_000 + int(us)


async def test_no_job_starts_before_its_fire_time(wheel: Wheel, fresh: RedisServer) -> None:
    started: dict[str, int] = {}
    due: dict[str, int] = {}
    everything = asyncio.Event()

    @wheel.task
    async def record() -> None:
        started[current_job().id] = server_us(fresh)
        if len(started) == 24:
            everything.set()

    async with running(wheel, concurrency=30):
        base = server_us(fresh)
        for i in range(12):
            # Fractions of a millisecond: a fire time that is cut off instead of rounded up would be early.
            at_us = base + 100_000 + i * 20_000 + 17 + i * 83
            at = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=at_us)
            due[(await record.options(at=at).enqueue()).job_id] = at_us
        for i in range(12):
            delay_us = 50_000 + i * 20_000 + 333
            taken_in = server_us(fresh)
            answer = await record.options(delay=timedelta(microseconds=delay_us)).enqueue()
            due[answer.job_id] = taken_in + delay_us
        async with asyncio.timeout(5):
            await everything.wait()
    lateness = {job: started[job] - due[job] for job in due}
    assert min(lateness.values()) >= 0, lateness
    assert sorted(lateness.values())[12] < 1_000_000, "half of the jobs are more than a second late"


async def test_an_overdue_job_runs_at_once_and_the_oldest_goes_first(wheel: Wheel, log: Log) -> None:
    order: list[str] = []

    @wheel.task(retries=0)
    async def note(name: str) -> None:
        order.append(name)

    now = datetime.now(UTC)
    for name, days in (("yesterday", 1), ("last year", 365), ("last week", 7), ("1970", 20_000)):
        await note.options(at=now - timedelta(days=days)).enqueue(name)
    async with running(wheel, log, concurrency=1):
        await log.seen("done", count=4)
        assert await eventually(lambda: wheel.days("default"), lambda days: not days) == []
    assert order == ["1970", "last year", "last week", "yesterday"]


async def test_a_burst_over_several_workers_runs_each_job_once(wheel: Wheel, log: Log) -> None:
    runs: Counter[int] = Counter()

    @wheel.task
    async def count(n: int) -> None:
        runs[n] += 1

    at = datetime.now(UTC) + timedelta(milliseconds=300)
    many = 1500
    await wheel.enqueue_many(count.options(at=at).job(n) for n in range(many))
    async with AsyncExitStack() as stack:
        for _ in range(4):
            await stack.enter_async_context(running(wheel, log, concurrency=50))
        await log.until(lambda: len(log.of("done")) >= many, 20)
        await eventually(lambda: wheel.count("default", JobState.PROCESSING), lambda left: left == 0)
    assert len(runs) == many
    assert set(runs.values()) == {1}
    assert set(log.starts().values()) == {1}


async def test_every_waiting_worker_gets_some_of_a_burst_of_slow_jobs(wheel: Wheel, log: Log) -> None:
    gate = asyncio.Event()

    @wheel.task
    async def hold() -> None:
        await gate.wait()

    async with (
        running(wheel, log, concurrency=2),
        running(wheel, log, concurrency=2),
        running(wheel, log, concurrency=2),
    ):
        await wheel.enqueue_many(hold.job() for _ in range(6))
        await log.seen("start", count=6, within=3)
        gate.set()
        await log.seen("done", count=6)


@pytest.mark.parametrize("busy", ["alpha", "beta"])
async def test_one_worker_serves_two_queues_also_when_one_of_them_is_idle(wheel: Wheel, log: Log, busy: str) -> None:
    @wheel.task
    async def work() -> None:
        pass

    async with running(wheel, log, queues=("alpha", "beta"), concurrency=1):
        # Both pollers have claimed and wait by now, and one of them held the only place while the other asked.
        await eventually(wheel.workers, lambda found: len(found) == 1)
        for n in range(1, 4):
            await work.options(queue=busy).enqueue()
            await log.seen("done", count=n, within=3)


async def test_a_busy_queue_does_not_starve_the_other_one_of_the_same_worker(wheel: Wheel, log: Log) -> None:
    order: list[str] = []

    @wheel.task
    async def work() -> None:
        order.append(current_job().queue)
        await asyncio.sleep(0)

    await wheel.enqueue_many(work.options(queue="busy").job() for _ in range(3000))
    await wheel.enqueue_many(work.options(queue="calm").job() for _ in range(10))
    async with running(wheel, log, queues=("busy", "calm"), concurrency=10, prefetch=20):
        await log.until(lambda: order.count("calm") == 10, 20)
        assert order.count("busy") < 2500, "the calm queue had to wait for most of the busy one"
        await log.seen("done", count=3010, within=30)


async def test_sync_tasks_run_in_threads_side_by_side(wheel: Wheel, log: Log) -> None:
    together = threading.Barrier(3, timeout=10)
    seen: dict[str, str] = {}

    @wheel.task(keep=60)
    def meet(name: str) -> None:
        together.wait()
        seen[name] = f"{threading.current_thread().name} {current_job().id}"

    async with running(wheel, log, concurrency=3):
        jobs = [await meet.enqueue(name) for name in "abc"]
        for job in jobs:
            assert (await wheel.wait(job.job_id, timeout=10)).state is JobState.DONE
    assert {text.split()[1] for text in seen.values()} == {job.job_id for job in jobs}
    assert len({text.split()[0] for text in seen.values()}) == 3
    assert threading.main_thread().name not in {text.split()[0] for text in seen.values()}


async def test_a_task_sees_its_own_job(wheel: Wheel, log: Log) -> None:
    seen = []

    @wheel.task(queue="q1", retries=4)
    async def look() -> None:
        seen.append(current_job())

    before = time.time_ns() // 1000
    async with running(wheel, log, queues=("q1",)):
        answer = await look.options(headers={"trace": "t-1"}).enqueue()
        await log.seen("done")
    (job,) = seen
    assert (job.id, job.task, job.queue) == (answer.job_id, look.name, "q1")
    assert (job.attempt, job.max_attempts, job.headers["trace"]) == (1, 5, "t-1")
    assert job.fire_at_ms == answer.fire_at_ms
    assert job.fire_at == answer.fire_at
    assert job.token >= before
    with pytest.raises(ZwheelError):
        current_job()


async def test_the_token_grows_with_every_claim(wheel: Wheel, log: Log) -> None:
    tokens: list[int] = []

    @wheel.task(retries=5)
    async def fail() -> None:
        tokens.append(current_job().token)
        if len(tokens) < 4:
            raise Retry(delay=0)

    async with running(wheel, log):
        await fail.enqueue()
        await log.seen("done")
    assert len(tokens) == 4
    assert tokens == sorted(set(tokens))


async def test_a_worker_never_runs_more_than_its_concurrency(wheel: Wheel, log: Log) -> None:
    now = most = 0

    @wheel.task
    async def work() -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1

    await wheel.enqueue_many(work.job() for _ in range(300))
    async with running(wheel, log, concurrency=7):
        await log.seen("done", count=300)
    assert most == 7
