"""Workers with different tasks on one queue: a job finds the workers that know it, and dies only when none does."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.faults.test_waiting import waiting
from tests.servers import RedisServer
from tests.workers.harness import Log, eventually, one_kind, published, running
from zwheel import JobState, Reason, Wheel, current_job
from zwheel.keys import ShardKeys
from zwheel.workers import unknown
from zwheel.workers.peers import group_of

pytestmark = [pytest.mark.anyio, one_kind]
KEYS = ShardKeys.of("zw", "default")
LEASE_MS = 30_000
#: A minute and more are promised where nobody hands a job on; this is far below that, and far above what it takes.
SOON_S = 3.0


class Shop:
    """A wheel that knows `pay`, and what it ran."""

    def __init__(self, url: str) -> None:
        self.wheel = Wheel(url, namespace="zw")
        self.gate = asyncio.Event()
        self.late_ms: list[float] = []
        self.paid: list[str] = []

        @self.wheel.task(name="pay")
        async def pay() -> None:
            job = current_job()
            self.paid.append(job.id)
            self.late_ms.append(job.token / 1000 - job.fire_at_ms)

        @self.wheel.task(name="hold")
        async def hold() -> None:
            await self.gate.wait()

    @property
    def group(self) -> str:
        return group_of(self.wheel.tasks)


@pytest.fixture
async def shop(url: str, anyio_backend: str) -> AsyncIterator[Shop]:
    made = Shop(url)
    yield made
    await made.wheel.aclose()


@pytest.fixture
def mail(wheel: Wheel) -> Wheel:
    """A wheel that knows `mail` alone."""

    @wheel.task(name="mail")
    async def send() -> None:
        pass

    return wheel


@pytest.mark.parametrize("strangers", [1, 4])
async def test_a_job_that_a_stranger_claims_starts_at_once_where_its_task_is_known(
    mail: Wheel, shop: Shop, log: Log, fresh: RedisServer, strangers: int
) -> None:
    jobs = 30
    async with AsyncExitStack() as stack:
        for wheel in [mail] * strangers + [shop.wheel]:
            await stack.enter_async_context(running(wheel, log, lease_ms=LEASE_MS, unknown_ttl_ms=50))
        await published(fresh, strangers + 1)
        for n in range(1, jobs + 1):
            await mail.enqueue("pay")
            await log.until(lambda n=n: len(shop.paid) == n, SOON_S)  # type: ignore[misc]
    assert log.of("offered"), "no stranger ever got one: this showed nothing"
    late = sorted(shop.late_ms)
    assert late[0] >= 0, "the fire time stays what it was"
    assert late[jobs * 9 // 10] < 1000, late
    assert await mail.count("default", JobState.DEAD) == 0


async def test_a_job_is_never_dead_while_one_that_knows_it_lives_however_busy_that_is(
    mail: Wheel, shop: Shop, log: Log, fresh: RedisServer
) -> None:
    settings: dict[str, Any] = {"lease_ms": LEASE_MS, "concurrency": 1, "prefetch": 0, "unknown_ttl_ms": 1}
    async with running(shop.wheel, log, **settings):
        await shop.wheel.enqueue("hold")
        await log.seen("start")
        async with running(mail, log, **settings):
            await published(fresh, 2)
            job = await mail.enqueue("pay")
            await log.seen("offered", job.job_id)
            await eventually(lambda: mail.count("default", JobState.PROCESSING), lambda n: n == 1)
            listed = await mail.get(job.job_id, "default")
            assert listed is not None
            assert (listed.state, listed.attempt, listed.failures) == (JobState.SCHEDULED, 0, ())
            assert await mail.count("default", JobState.SCHEDULED) == 1
            shop.gate.set()
            await log.until(lambda: shop.paid == [job.job_id], SOON_S)
    assert log.starts()[job.job_id] == 1


async def test_an_offered_job_that_is_cancelled_or_moved_does_not_start(
    mail: Wheel, shop: Shop, log: Log, fresh: RedisServer
) -> None:
    settings: dict[str, Any] = {"lease_ms": LEASE_MS, "concurrency": 1, "prefetch": 0}
    async with running(shop.wheel, log, **settings):
        await shop.wheel.enqueue("hold")
        await log.seen("start")
        async with running(mail, log, **settings):
            await published(fresh, 2)
            cancelled, moved, left = [await mail.enqueue("pay") for _ in range(3)]
            await log.until(lambda: len(log.of("offered")) == 3)
            with fresh.client() as client:

                async def offered() -> int:
                    return int(str(client.zcard(KEYS.offered(shop.group))))

                await eventually(offered, lambda n: n == 3)
            assert (await mail.cancel(cancelled.job_id, "default")) is not None
            await mail.reschedule(moved.job_id, queue="default", delay=3600)
            shop.gate.set()
            await log.seen("done", left.job_id)
    assert shop.paid == [left.job_id]
    assert await mail.count("default", JobState.SCHEDULED) == 1


async def test_a_frozen_worker_that_gets_the_call_keeps_a_job_from_nobody(
    mail: Wheel, shop: Shop, log: Log, fresh: RedisServer
) -> None:
    call = KEYS.call(shop.group)
    reader, writer = await asyncio.open_unix_connection(str(fresh.socket))
    try:
        with fresh.client() as client:
            writer.write(b"*3\r\n$5\r\nBLPOP\r\n$%d\r\n%s\r\n$1\r\n0\r\n" % (len(call), call.encode()))
            await waiting(client, 1)
            async with running(mail, log, lease_ms=LEASE_MS), running(shop.wheel, log, lease_ms=LEASE_MS):
                await published(fresh, 2)
                await waiting(client, 3)
                # The worker that knows the task is not woken first: a token for all goes to the longest listener.
                while not log.of("offered"):
                    job = await mail.enqueue("pay")
                    await log.until(lambda j=job: j.job_id in shop.paid or log.of("offered"), SOON_S)  # type: ignore[misc]
                await log.until(lambda: job.job_id in shop.paid, SOON_S)
                assert await reader.read(1) == b"*"
    finally:
        writer.close()


async def test_a_job_of_a_task_that_nobody_knows_is_dead_in_the_end(mail: Wheel, log: Log) -> None:
    async with running(mail, log, unknown_ttl_ms=50):
        job = await mail.wait((await mail.enqueue("pay")).job_id, timeout=10)
    assert (job.state, job.reason) == (JobState.DEAD, Reason.UNKNOWN_TASK)


@pytest.mark.parametrize("jobs", [1, 1500])
async def test_a_new_worker_takes_at_once_what_nobody_knew_before_it_came(
    mail: Wheel, shop: Shop, log: Log, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    """Such a job went round once a minute in the end, and a new version waited that long for it."""
    monkeypatch.setattr(unknown, "_ROUNDS_MS", (60_000,))
    async with running(mail, log, lease_ms=LEASE_MS):
        await mail.enqueue_many([mail.new_job("pay") for _ in range(jobs)])
        await log.until(lambda: len(log.of("unknown")) == jobs)
        began = time.monotonic()
        async with running(shop.wheel, log, lease_ms=LEASE_MS):
            await log.until(lambda: len(shop.paid) == jobs, 20 + SOON_S)
        assert time.monotonic() - began < 30
    assert set(log.starts().values()) == {1}


async def test_a_job_that_nobody_knows_is_looked_at_when_its_time_is_over_and_not_later(mail: Wheel, log: Log) -> None:
    """With 20 s it was dead after 32 s: it had been put back for as long as it had waited."""
    async with running(mail, log, unknown_ttl_ms=3_000):
        job = await mail.wait((await mail.enqueue("pay")).job_id, timeout=20)
    assert "no worker that knew the task 'pay' took it for 3" in job.failures[-1].message
    assert [unknown._round_ms(age, 20_000 - age) for age in (0, 1_001, 2_003, 4_004, 8_006, 16_008)] == [
        1_000, 1_000, 2_000, 4_000, 8_000, 4_000,
    ]  # fmt: skip


async def test_a_worker_that_does_not_say_what_it_knows_may_know_it(mail: Wheel, log: Log, fresh: RedisServer) -> None:
    """One of version 0.1.0: its jobs go round on the wheel until it gets them."""
    row = {"host": "h", "pid": 1, "beat": int(time.time() * 1000)}
    with fresh.client() as client:
        client.hset(KEYS.workers, "old00001", json.dumps(row))
        async with running(mail, log, unknown_ttl_ms=50):
            job = await mail.enqueue("pay")
            await log.seen("unknown", job.job_id, count=2)
            found = await mail.get(job.job_id, "default")
            assert found is not None
            assert found.state is not JobState.DEAD
            client.hdel(KEYS.workers, "old00001")
            assert (await mail.wait(job.job_id, timeout=10)).state is JobState.DEAD


async def test_a_worker_of_a_new_group_takes_what_is_offered_to_a_busy_one(
    mail: Wheel, shop: Shop, log: Log, fresh: RedisServer, url: str
) -> None:
    settings: dict[str, Any] = {"lease_ms": LEASE_MS, "concurrency": 1, "prefetch": 0}
    paid = asyncio.Event()
    async with Wheel(url, namespace="zw") as other, running(shop.wheel, log, **settings):

        @other.task(name="pay")
        async def pay() -> None:
            paid.set()

        await shop.wheel.enqueue("hold")
        await log.seen("start")
        async with running(mail, log, **settings):
            await published(fresh, 2)
            job = await mail.enqueue("pay")
            hold = await mail.enqueue("hold")
            await log.seen("offered", job.job_id)
            await log.seen("offered", hold.job_id)
            with fresh.client() as client:
                noted = client.zrange(KEYS.offered(shop.group), 0, -1)
                assert isinstance(noted, list)
                async with running(other, log, **settings):
                    async with asyncio.timeout(SOON_S):
                        await paid.wait()
                    await log.seen("done", job.job_id)
                    notes = client.zrange(KEYS.offered(group_of(other.tasks)), 0, -1)
                    assert not any(note.startswith(hold.job_id.encode()) for note in notes)
        shop.gate.set()
        await log.seen("done", hold.job_id, within=SOON_S)
    assert shop.paid == []
