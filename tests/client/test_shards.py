"""A queue with several shards is one queue for whoever uses it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.servers import RedisServer
from tests.skew.hand import Hand
from zwheel import InvalidInput, InvalidName, QueueExists, QueueFull, SyncWheel, Wheel
from zwheel.job import CancelOutcome, JobState, RescheduleOutcome
from zwheel.keys import ShardKeys, queue_of, shard_names, shard_number

pytestmark = pytest.mark.anyio
SHARDS = 4
NAMES = shard_names("orders", SHARDS)
FAR = 3_600


@pytest.fixture
async def wheel(url: str, anyio_backend: str) -> AsyncIterator[Wheel]:
    async with Wheel(url, namespace="zw", give_up_s=5) as made:
        await made.create_queue("orders", shards=SHARDS)
        yield made


def lies_in(fresh: RedisServer, job_id: str) -> list[str]:
    """The shards that have a record of this id."""
    with fresh.client() as client:
        names = [*NAMES, "orders"]
        return [name for name in names if client.hexists(ShardKeys.of("zw", name).jobs, job_id)]


async def test_jobs_spread_over_the_shards_and_each_is_found_by_its_id(wheel: Wheel, fresh: RedisServer) -> None:
    jobs = [wheel.new_job("t", args=[n], queue="orders", delay=FAR, id=f"job-{n}") for n in range(60)]
    await wheel.enqueue_many(jobs[:40], chunk=10)
    await asyncio.gather(
        *[wheel.enqueue("t", args=[n], queue="orders", delay=FAR, id=f"job-{n}") for n in range(40, 60)]
    )
    places = {job.id: lies_in(fresh, job.id) for job in jobs}
    assert all(len(found) == 1 for found in places.values())
    assert {found[0] for found in places.values()} == set(NAMES)
    assert all(places[job.id] == [f"orders/{shard_number(job.id, SHARDS)}of{SHARDS}"] for job in jobs)
    async with Wheel(fresh.url) as stranger:
        found = await stranger.get("job-17")
        assert found is not None and (found.queue, found.id) == ("orders", "job-17")
        assert await stranger.count("orders", JobState.SCHEDULED) == 60
        again = await stranger.enqueue("t", queue="orders", id="job-17")
        assert (again.existed, again.queue) == (True, "orders")


async def test_the_same_bulk_again_makes_no_job_twice(wheel: Wheel) -> None:
    jobs = [wheel.new_job("t", args=[n], queue="orders", delay=FAR, id=f"job-{n}") for n in range(30)]
    first = await wheel.enqueue_many(jobs)
    second = await wheel.enqueue_many(jobs)
    assert [answer.existed for answer in first] == [False] * 30
    assert [answer.existed for answer in second] == [True] * 30
    assert [answer.job_id for answer in second] == [job.id for job in jobs]


async def test_jobs_of_one_dedup_key_meet_whatever_their_ids_are(wheel: Wheel, fresh: RedisServer) -> None:
    first = await wheel.enqueue("t", queue="orders", dedup="customer 42", delay=FAR)
    for _ in range(10):
        answer = await wheel.enqueue("t", queue="orders", dedup="customer 42", delay=FAR)
        assert (answer.existed, answer.job_id) == (True, first.job_id)
    assert len(lies_in(fresh, first.job_id)) == 1
    found = await wheel.get(first.job_id, "orders")
    assert found is not None and found.dedup
    assert await wheel.cancel(first.job_id) is CancelOutcome.CANCELLED
    assert not (await wheel.enqueue("t", queue="orders", dedup="customer 42")).existed


async def test_a_job_is_moved_and_cancelled_where_it_is(wheel: Wheel) -> None:
    for number in range(12):
        await wheel.enqueue("t", queue="orders", id=f"j{number}", delay=FAR)
    at = datetime.now(UTC) + timedelta(days=2)
    assert await wheel.reschedule("j3", at=at) is RescheduleOutcome.RESCHEDULED
    assert [await wheel.cancel(f"j{n}", "orders") for n in range(12)] == [CancelOutcome.CANCELLED] * 12
    assert await wheel.cancel("none", "orders") is CancelOutcome.UNKNOWN
    assert await wheel.count("orders", JobState.SCHEDULED) == 0


async def test_a_page_of_jobs_is_in_order_over_all_shards(wheel: Wheel) -> None:
    jobs = [wheel.new_job("t", queue="orders", delay=FAR + n, id=f"j{n:02d}") for n in range(25)]
    await wheel.enqueue_many(jobs)
    names = [job.id for job in await wheel.jobs("orders", limit=100)]
    assert names == [job.id for job in jobs]
    pages = [await wheel.jobs("orders", limit=7, offset=start) for start in range(0, 28, 7)]
    assert [job.id for page in pages for job in page] == names


async def test_what_is_said_of_the_queue_is_of_all_its_shards(wheel: Wheel, fresh: RedisServer) -> None:
    jobs = [wheel.new_job("t", queue="orders", delay=FAR + n, id=f"j{n:02d}") for n in range(25)]
    await wheel.enqueue_many(jobs)
    info = await wheel.queue("orders")
    assert (info.name, info.shards, info.scheduled, info.next_job, info.paused) == ("orders", 4, 25, "j00", False)
    assert sum(day.jobs for day in await wheel.days("orders")) == 25
    assert len({day.day for day in await wheel.days("orders")}) == len(await wheel.days("orders"))
    assert await wheel.queues() == ["orders"]
    await wheel.pause("orders")
    assert (await wheel.queue("orders")).paused
    with fresh.client() as client:
        assert all(client.hexists(ShardKeys.of("zw", name).meta, "paused") for name in NAMES)
    await wheel.resume("orders")
    assert not (await wheel.queue("orders")).paused
    assert await wheel.purge("orders", JobState.SCHEDULED) == 25
    assert await wheel.count("orders", JobState.SCHEDULED) == 0


async def test_all_shards_of_a_queue_are_precise_or_none_is(wheel: Wheel, fresh: RedisServer) -> None:
    await wheel.set_precise("orders", True)
    assert (await wheel.queue("orders")).precise
    with fresh.client() as client:
        assert all(client.hexists(ShardKeys.of("zw", name).meta, "precise") for name in NAMES)
    await wheel.set_precise("orders", False)
    assert not (await wheel.queue("orders")).precise


async def test_each_shard_has_its_part_of_the_cap(wheel: Wheel) -> None:
    await wheel.set_cap("orders", 10)
    assert (await wheel.queue("orders")).cap == 12, "10 in four parts, each rounded up"
    with pytest.raises(QueueFull):
        for number in range(60):
            await wheel.enqueue("t", queue="orders", id=f"j{number}", delay=FAR)
    assert 3 <= await wheel.count("orders", JobState.SCHEDULED) <= 12


async def test_dead_jobs_are_listed_redriven_and_purged_over_all_shards(wheel: Wheel, fresh: RedisServer) -> None:
    for number in range(20):
        await wheel.enqueue("t", queue="orders", id=f"j{number}", delay=FAR)
    with fresh.client() as client:
        for name in NAMES:
            keys = ShardKeys.of("zw", name)
            for job_id, raw in client.hgetall(keys.jobs).items():
                client.hset(keys.jobs, job_id, raw[:1] + b"x" + raw[2:])
                client.zadd(keys.dead, {job_id: 1_800_000_000_000})
            for bucket in client.scan_iter(keys.wheel("*").replace("{", "[{]")):
                client.delete(bucket)
    assert len(await wheel.dead("orders")) == 20
    assert await wheel.redrive("orders", ["j1", "j2", "j3"]) == 3
    assert await wheel.purge_dead("orders", ["j4", "j5"]) == 2
    assert await wheel.redrive("orders", task="t") == 15
    assert await wheel.count("orders", JobState.DEAD) == 0


async def test_a_schedule_and_its_occurrences_are_in_one_shard(wheel: Wheel, fresh: RedisServer) -> None:
    names = [f"s{number}" for number in range(6)]
    for name in names:
        await wheel.add_schedule(wheel.new_schedule(name, "@every 90s", "t", queue="orders"))
    assert [info.name for info in await wheel.schedules("orders")] == names
    fired = await wheel.trigger_schedule("s3")
    assert lies_in(fresh, fired.job_id) == [f"orders/{shard_number('s3', SHARDS)}of{SHARDS}"]
    assert (await wheel.schedule("s3")).queue == "orders"
    found = await wheel.get(fired.job_id)
    assert found is not None and found.queue == "orders"
    await wheel.pause_schedule("s3")
    await wheel.remove_schedule("s3")
    assert len(await wheel.schedules()) == 5


async def test_a_queue_is_made_once(wheel: Wheel, fresh: RedisServer) -> None:
    await wheel.create_queue("orders", shards=SHARDS)
    with pytest.raises(QueueExists, match="'orders' exists already, with 4 shards"):
        await wheel.create_queue("orders", shards=8)
    await wheel.enqueue("t", queue="old", delay=FAR)
    with pytest.raises(QueueExists, match="'old' exists already, with 1 shard$"):
        await wheel.create_queue("old", shards=2)
    await wheel.create_queue("old", shards=1)
    for wrong in (0, -1, 1025):
        with pytest.raises(InvalidInput, match="between 1 and 1,024"):
            await wheel.create_queue("new", shards=wrong)
    odd: tuple[Any, ...] = ("4", True, 1.5, None)
    for other in odd:
        with pytest.raises(InvalidInput, match="is not a whole number"):
            await wheel.create_queue("new", shards=other)
    for name in ("a/b", "orders/1of4", ""):
        with pytest.raises(InvalidName):
            await wheel.create_queue(name, shards=2)
    assert await wheel.queues() == ["old", "orders"]
    assert await wheel.count("old", JobState.SCHEDULED) == 1


async def test_a_queue_with_jobs_that_is_on_no_list_keeps_its_shard(wheel: Wheel, fresh: RedisServer) -> None:
    await wheel.enqueue("t", queue="lost", delay=FAR)
    with fresh.client() as client:
        client.hdel("zw:queues", "lost")
    async with Wheel(fresh.url) as other:
        with pytest.raises(QueueExists):
            await other.create_queue("lost", shards=3)
        assert await other.count("lost", JobState.SCHEDULED) == 1
        assert not (await other.enqueue("t", queue="lost", delay=FAR)).existed


async def test_a_producer_that_believed_in_one_shard_is_told_and_stores_nothing_there(fresh: RedisServer) -> None:
    """It has asked for the number of shards when there was none; then the queue is made, and only then it stores."""
    async with Wheel(fresh.url) as producer, Wheel(fresh.url) as maker:
        assert await producer.count("orders", JobState.SCHEDULED) == 0
        client = producer._connect()
        await maker.create_queue("orders", shards=SHARDS)
        client.store.session.counts["orders"] = 1
        batch = [producer.new_job("t", queue="orders", id=f"j{n}", delay=FAR) for n in range(9)]
        answers = await producer.enqueue_many(batch)
        assert [answer.job_id for answer in answers] == [job.id for job in batch]
        client.store.session.counts["orders"] = 1
        alone = await producer.enqueue("t", queue="orders", id="alone", delay=FAR)
        assert not alone.existed
    assert all(lies_in(fresh, job_id) != ["orders"] for job_id in ("j0", "j5", "alone"))
    assert len(lies_in(fresh, "alone")) == 1


async def test_the_blocking_client_does_the_same(wheel: Wheel, url: str) -> None:
    with SyncWheel(url) as blocking:
        blocking.create_queue("orders", shards=SHARDS)
        made = blocking.enqueue_many([blocking.new_job("t", queue="orders", id=f"b{n}", delay=FAR) for n in range(20)])
        assert {answer.queue for answer in made} == {"orders"}
        assert blocking.queue("orders").scheduled == 20
        assert blocking.cancel("b7") is CancelOutcome.CANCELLED
    hand = Hand(url, "aaaaaaaa")
    assert queue_of("orders/3of4") == "orders"
    hand.store.close()
