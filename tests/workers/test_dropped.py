"""A worker that runs begins to serve a shard, and ends it: what it had claimed there is settled first."""

from __future__ import annotations

import asyncio

import pytest

from tests.servers import RedisServer
from tests.workers.harness import eventually, one_kind, running
from zwheel import JobState, Wheel
from zwheel.keys import shard_names, shard_number

pytestmark = [pytest.mark.anyio, one_kind]
NAMES = shard_names("orders", 2)


async def test_a_shard_is_dropped_when_its_jobs_are_settled_and_is_begun_again(fresh: RedisServer) -> None:
    begun: list[str] = []
    gate = asyncio.Event()
    async with Wheel(fresh.url) as wheel:
        await wheel.create_queue("orders", shards=2)

        @wheel.task(name="hold", queue="orders", keep=60)
        async def hold(shard: str) -> None:
            begun.append(shard)
            await gate.wait()

        async def enqueue(count: int = 40) -> list[str]:
            jobs = [wheel.new_job("hold", args=["?"], queue="orders", id=f"job-{len(begun)}-{n}") for n in range(count)]
            await wheel.enqueue_many(jobs)
            return [NAMES[shard_number(job.id, 2)] for job in jobs]

        async with running(wheel, queues=("orders",), concurrency=100) as handle:
            shards = handle.worker.shards
            assert shards is not None
            first = await enqueue()
            await eventually(lambda: asyncio.sleep(0, len(begun)), lambda count: count == 40)
            (gone,) = (shard.keys for shard in shards if shard.keys.name == NAMES[1])
            dropping = asyncio.create_task(shards.drop(NAMES[1]))
            await eventually(lambda: asyncio.sleep(0, len(shards.parts)), lambda parts: parts == 7)
            assert not dropping.done(), "its jobs run"
            gate.set()
            await dropping
            assert await wheel.count("orders", JobState.DONE) >= first.count(NAMES[1])
            assert [poller.queue for poller in handle.worker.pollers] == NAMES[:1]
            second = await enqueue()
            await eventually(lambda: asyncio.sleep(0, len(begun)), lambda count: count == 40 + second.count(NAMES[0]))
            shards.add(gone)
            await eventually(lambda: wheel.count("orders", JobState.DONE), lambda done: done == 80)
            assert not handle.task.done()
