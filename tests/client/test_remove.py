"""A queue that nobody serves is removed with all its keys, and no job that was acknowledged is lost by that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.doctor.conftest import Doctor, doctor
from tests.servers import RedisServer
from tests.skew.hand import Hand
from tests.workers.harness import eventually, running
from zwheel import BrokerRefused, QueueInUse, SyncWheel, Wheel
from zwheel.job import JobState
from zwheel.keys import ShardKeys, shard_names

__all__ = ["doctor"]
pytestmark = pytest.mark.anyio
FAR = 3_600


@pytest.fixture(params=[1, 3], ids=["one shard", "three shards"])
async def shards(request: pytest.FixtureRequest) -> int:
    count: int = request.param
    return count


@pytest.fixture
async def wheel(url: str, anyio_backend: str, shards: int) -> AsyncIterator[Wheel]:
    async with Wheel(url, namespace="zw", give_up_s=5) as made:
        await made.create_queue("orders", shards=shards)
        yield made


def left(fresh: RedisServer) -> dict[str, dict[str, str]]:
    """What the server has but for answers that are kept for repeats."""
    with fresh.client() as client:
        names = sorted(key.decode() for key in client.scan_iter() if b":replay:" not in key)
        assert all(name.endswith(":meta") for name in names), names
        return {name: {f.decode(): v.decode() for f, v in client.hgetall(name).items()} for name in names}


def marks(shards: int) -> dict[str, dict[str, str]]:
    """What stays of a queue with several shards: each says that it takes no jobs."""
    names = shard_names("orders", shards) if shards > 1 else []
    return {ShardKeys.of("zw", name).meta: {"shards": "0"} for name in names}


async def test_an_empty_queue_goes_with_its_settings(wheel: Wheel, fresh: RedisServer, shards: int) -> None:
    await wheel.set_cap("orders", 10)
    await wheel.set_precise("orders", True)
    await wheel.pause("orders")
    made = [await wheel.enqueue("t", queue="orders", delay=FAR, dedup=f"k{n}", within=FAR) for n in range(9)]
    for answer in made:
        await wheel.cancel(answer.job_id, "orders")
    assert await wheel.purge("orders", JobState.DONE) == 9
    assert await wheel.remove_queue("orders") == 0
    assert await wheel.queues() == []
    assert left(fresh) == marks(shards)
    assert await wheel.remove_queue("orders") == 0, "the same again changes nothing"


async def test_a_queue_with_jobs_stays_unless_they_are_meant_too(
    wheel: Wheel, fresh: RedisServer, shards: int, url: str
) -> None:
    await wheel.enqueue_many(wheel.new_job("t", args=["x" * 2_000], queue="orders", delay=FAR) for _ in range(12))
    await wheel.add_schedule(wheel.new_schedule("often", "@every 90s", "t", queue="orders"))
    with pytest.raises(QueueInUse, match="it has jobs or schedules$"):
        await wheel.remove_queue("orders")
    assert not (await wheel.enqueue("t", queue="orders", delay=FAR)).existed, "it is open as before"
    told: list[int] = []
    deleted = await wheel.remove_queue("orders", jobs=True, progress=told.append)
    assert 13 <= deleted <= 14
    assert told[-1] == deleted
    assert left(fresh) == marks(shards)


async def test_a_queue_that_is_served_stays(wheel: Wheel) -> None:
    @wheel.task(name="work", queue="orders")
    async def work() -> None: ...

    async with running(wheel, queues=("orders",)):
        await eventually(lambda: wheel.workers("orders"), lambda found: len(found) == 1)
        with pytest.raises(QueueInUse, match="'orders' is not removed: 1 worker serves it"):
            await wheel.remove_queue("orders", jobs=True)
        answer = await wheel.enqueue("work", queue="orders", keep=60)
        assert (await wheel.wait(answer.job_id, timeout=10)).state is JobState.DONE


async def test_a_queue_whose_jobs_are_held_stays(fresh: RedisServer) -> None:
    hand = Hand(fresh.url, "aaaaaaaa")
    hand.enqueue("a")
    hand.claim(1)
    async with Wheel(fresh.url, namespace="zw") as wheel:
        with pytest.raises(QueueInUse, match="1 job of it is held by workers that are gone"):
            await wheel.remove_queue(hand.keys.queue, jobs=True)
    hand.store.close()


async def test_a_producer_that_knew_the_queue_makes_it_anew(wheel: Wheel, fresh: RedisServer, shards: int) -> None:
    async with Wheel(fresh.url, namespace="zw") as producer:
        answer = await producer.enqueue("t", queue="orders", delay=FAR)
        await wheel.cancel(answer.job_id)
        assert await wheel.remove_queue("orders", jobs=True) == 1
        again = await producer.enqueue("t", queue="orders", delay=FAR)
        async with Wheel(fresh.url, namespace="zw") as stranger:
            found = await stranger.get(again.job_id, "orders")
            assert found is not None and found.state is JobState.SCHEDULED
            assert (await stranger.queue("orders")).shards == 1
            assert shards == 1 or await stranger.queues() == ["orders"]


async def test_a_queue_of_that_name_can_be_made_again_with_any_number_of_shards(wheel: Wheel, shards: int) -> None:
    await wheel.remove_queue("orders")
    for count in (3, 2, 1, 3):
        await wheel.create_queue("orders", shards=count)
        await wheel.enqueue_many(wheel.new_job("t", queue="orders", delay=FAR) for _ in range(20))
        info = await wheel.queue("orders")
        assert (info.shards, info.scheduled) == (count, 20)
        assert await wheel.remove_queue("orders", jobs=True) == 20


async def test_what_is_acknowledged_while_a_queue_is_removed_is_there(wheel: Wheel, fresh: RedisServer) -> None:
    """Producers and removers at the same moment, again and again: a job is either refused or there, or was deleted and counted."""
    stored: list[str] = []
    refused = removed = 0

    async def produce() -> None:
        nonlocal refused
        async with Wheel(fresh.url, namespace="zw") as producer:
            for _ in range(60):
                try:
                    stored.append((await producer.enqueue("t", queue="orders", delay=FAR)).job_id)
                except BrokerRefused:
                    refused += 1

    producers = [asyncio.create_task(produce()) for _ in range(3)]
    while not all(producer.done() for producer in producers):
        try:
            removed += await wheel.remove_queue("orders")
        except QueueInUse:
            removed += await wheel.purge("orders", JobState.SCHEDULED)
    await asyncio.gather(*producers)
    assert len(stored) + refused == 180
    with fresh.client() as client:
        places = [ShardKeys.of("zw", name).jobs for name in ["orders", *shard_names("orders", 3)]]
        assert sum(client.hlen(place) for place in places) + removed == len(stored)


async def test_a_removal_that_was_cut_off_is_said_and_done_again(wheel: Wheel, fresh: RedisServer, shards: int) -> None:
    with fresh.client() as client:
        for name in shard_names("orders", shards):
            client.hset(ShardKeys.of("zw", name).meta, "shards", 0)
    with pytest.raises(BrokerRefused, match="queue orders is being removed, and nothing was stored"):
        await wheel.enqueue("t", queue="orders")
    with SyncWheel(fresh.url, namespace="zw") as blocking:
        assert blocking.remove_queue("orders") == 0
    assert left(fresh) == marks(shards)
    assert not (await wheel.enqueue("t", queue="orders", delay=FAR)).existed


async def test_doctor_says_nothing_of_a_removed_queue(wheel: Wheel, fresh: RedisServer, doctor: Doctor) -> None:
    await wheel.enqueue("t", queue="orders", delay=FAR)
    await wheel.remove_queue("orders", jobs=True)
    told = await asyncio.to_thread(doctor, fresh.url)
    assert [finding for finding in told.findings if finding.get("queue")] == []
