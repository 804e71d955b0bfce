"""Workers serve all shards of their queues: nothing is lost, early or left, whatever shard it is in."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tests.servers import RedisServer
from zwheel import Wheel, current_job
from zwheel.job import JobState
from zwheel.keys import ShardKeys, shard_names

from .app import AT_ONCE
from .harness import eventually, one_kind, running

pytestmark = [pytest.mark.anyio, one_kind]
SHARDS = 5
NAMES = shard_names("orders", SHARDS)


@pytest.fixture
async def sharded(wheel: Wheel) -> Wheel:
    await wheel.create_queue("orders", shards=SHARDS)
    return wheel


async def test_one_worker_runs_the_jobs_of_all_shards_and_a_task_sees_one_queue(sharded: Wheel) -> None:
    seen: set[tuple[int, str]] = set()

    @sharded.task(name="note", queue="orders", keep=60)
    async def note(number: int) -> None:
        seen.add((number, current_job().queue))

    async with running(sharded, queues=("orders",)):
        await sharded.enqueue_many([note.job(number) for number in range(300)])
        await eventually(lambda: sharded.count("orders", JobState.DONE), lambda done: done == 300)
    assert seen == {(number, "orders") for number in range(300)}
    info = await sharded.queue("orders")
    assert (info.scheduled, info.processing, info.dead) == (0, 0, 0)


async def test_retries_and_deaths_stay_in_their_shard(sharded: Wheel, fresh: RedisServer) -> None:
    @sharded.task(name="fails", queue="orders", retries=2, backoff=AT_ONCE)
    async def fails(number: int) -> None:
        raise ValueError(number)

    jobs = [fails.job(number) for number in range(40)]
    async with running(sharded, queues=("orders",)):
        await sharded.enqueue_many(jobs)
        await eventually(lambda: sharded.count("orders", JobState.DEAD), lambda dead: dead == 40)
    dead = await sharded.dead("orders", limit=100)
    assert {job.attempt for job in dead} == {3} and {job.queue for job in dead} == {"orders"}
    with fresh.client() as client:
        assert sum(client.zcard(ShardKeys.of("zw", name).dead) for name in NAMES) == 40
    assert await sharded.redrive("orders") == 40


async def test_jobs_fire_at_their_times_in_every_shard(sharded: Wheel) -> None:
    late: list[float] = []

    @sharded.task(name="fire", queue="orders")
    async def fire() -> None:
        late.append((datetime.now(UTC) - current_job().fire_at).total_seconds())

    async with running(sharded, queues=("orders",)):
        at = datetime.now(UTC) + timedelta(seconds=0.7)
        jobs = [sharded.new_job("fire", queue="orders", at=at + timedelta(milliseconds=7 * n)) for n in range(50)]
        await sharded.enqueue_many(jobs)
        await eventually(lambda: asyncio.sleep(0, len(late)), lambda count: count == 50)
    assert min(late) >= -0.002, "this process reads the same clock as the server"


async def test_what_a_dead_worker_held_in_any_shard_comes_back(sharded: Wheel, fresh: RedisServer) -> None:
    begun: list[str] = []
    gate = asyncio.Event()

    @sharded.task(name="hold", queue="orders", keep=60)
    async def hold() -> None:
        begun.append(current_job().id)
        await gate.wait()

    jobs = [hold.job() for _ in range(20)]
    async with running(sharded, queues=("orders",), concurrency=20, lease_ms=600) as first:
        await sharded.enqueue_many(jobs)
        await eventually(lambda: asyncio.sleep(0, len(begun)), lambda count: count == 20)
        await first.vanish()
        gate.set()
        async with running(sharded, queues=("orders",), concurrency=20, lease_ms=600):
            await eventually(lambda: sharded.count("orders", JobState.DONE), lambda done: done == 20)
    assert sorted(begun) == sorted([job.id for job in jobs] * 2)


async def test_occurrences_of_schedules_in_all_shards_fire(sharded: Wheel) -> None:
    seen: dict[str, int] = {}

    @sharded.task(name="tick", queue="orders")
    async def tick(name: str) -> None:
        seen[name] = seen.get(name, 0) + 1

    names = [f"s{number}" for number in range(8)]
    async with running(sharded, queues=("orders",)):
        for name in names:
            await sharded.add_schedule(sharded.new_schedule(name, "@every 1s", "tick", args=[name], queue="orders"))
        await eventually(lambda: asyncio.sleep(0, dict(seen)), lambda now: len(now) == 8 and min(now.values()) > 1)


async def test_a_paused_queue_starts_nothing_in_any_shard(sharded: Wheel) -> None:
    seen: list[int] = []

    @sharded.task(name="note", queue="orders")
    async def note(number: int) -> None:
        seen.append(number)

    await sharded.pause("orders")
    async with running(sharded, queues=("orders",)):
        await sharded.enqueue_many([note.job(number) for number in range(30)])
        await asyncio.sleep(0.3)
        assert seen == []
        await sharded.resume("orders")
        await eventually(lambda: asyncio.sleep(0, len(seen)), lambda count: count == 30)


async def test_a_worker_is_listed_once(sharded: Wheel) -> None:
    async with running(sharded, queues=("orders", "default")) as worker:
        listed = await eventually(lambda: sharded.workers("orders"), lambda found: len(found) == 1)
        assert listed[0].id == worker.worker.id and listed[0].queues == ("orders", "default")
        assert (await sharded.queue("orders")).workers == 1
    await eventually(lambda: sharded.workers("orders"), lambda found: not found)
