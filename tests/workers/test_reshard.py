"""Workers follow a queue that is cut into another number of shards while they work."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.faults.witness import python
from tests.servers import RedisServer
from tests.workers.harness import eventually, one_kind, running
from zwheel import Backoff, JobState, Wheel
from zwheel.broker.store import SyncStore
from zwheel.calls import Session
from zwheel.history import History
from zwheel.keys import ShardKeys, shard_names
from zwheel.verify import Bounds, Report, check, read, take_snapshot

pytestmark = [pytest.mark.anyio, one_kind]
CUT = """
import sys
from zwheel import SyncWheel
with SyncWheel(sys.argv[1], namespace="zw") as wheel:
    wheel.reshard_queue("orders", shards=int(sys.argv[2]))
"""


def judged(fresh: RedisServer, history: Path, *, drained: bool = False) -> Report:
    """What the checker says of a history and of what is stored now."""
    store = SyncStore(fresh.url, Session("zw", caller="look"))
    History.of(history).write(list(take_snapshot(store)))
    store.close()
    return check(read([history]), Bounds(reap_ms=500, slack_ms=5_000, both_ms=20_000, idle_ms=5_000, drained=drained))


@pytest.mark.parametrize(("before", "after"), [(1, 3), (4, 1)])
async def test_jobs_that_become_due_meanwhile_start_once_and_promptly(
    fresh: RedisServer, tmp_path: Path, before: int, after: int
) -> None:
    """Two workers and a producer go on; the history shows that every promise holds over both cuts."""
    runs: Counter[str] = Counter()
    async with Wheel(fresh.url, history=tmp_path) as wheel:
        await wheel.create_queue("orders", shards=before)

        @wheel.task(name="count", queue="orders")
        async def count(name: str) -> None:
            runs[name] += 1

        rng = random.Random(before)
        ids = [f"job-{n}" for n in range(600)]
        jobs = [
            wheel.new_job("count", args=[name], queue="orders", id=name, delay=rng.uniform(0.5, 4.0)) for name in ids
        ]
        await wheel.enqueue_many(jobs)
        async with running(wheel, queues=("orders",)) as one, running(wheel, queues=("orders",)):
            await asyncio.sleep(1.0)
            moving = asyncio.create_task(wheel.reshard_queue("orders", shards=after))
            while not moving.done():
                name = f"more-{len(ids)}"
                ids.append(name)
                await wheel.enqueue("count", args=[name], queue="orders", id=name, delay=0.1)
            assert (await moving).done
            await eventually(lambda: asyncio.sleep(0, len(runs)), lambda number: number == len(ids))
            names = shard_names("orders", after)
            await eventually(
                lambda: asyncio.sleep(0, [p.queue for p in one.worker.pollers]), lambda now: set(now) == set(names)
            )
    assert set(runs.values()) == {1}
    assert not judged(fresh, tmp_path, drained=True).broken


async def test_a_job_that_runs_ends_where_it_began_and_its_retry_moves(fresh: RedisServer) -> None:
    gate, tries = asyncio.Event(), Counter[str]()
    async with Wheel(fresh.url) as wheel:
        await wheel.create_queue("orders", shards=1)

        @wheel.task(name="hold", queue="orders", retries=2, backoff=Backoff(first=0.05, factor=1))
        async def hold(name: str) -> None:
            tries[name] += 1
            await gate.wait()
            if tries[name] == 1:
                raise ValueError("once more")

        await wheel.enqueue("hold", args=["a"], queue="orders", id="a")
        async with running(wheel, queues=("orders",)) as handle:
            await handle.log.seen("start", "a")
            told = await wheel.reshard_queue("orders", shards=4, wait=False)
            assert (told.left, told.running, told.done) == (1, 1, False)
            await asyncio.sleep(1.0)  # longer than its lease: it is renewed where it is
            gate.set()
            await eventually(lambda: wheel.get("a"), lambda job: job is not None and job.state is JobState.DONE)
            # A worker moves what is left, and ends the reshard.
            await eventually(lambda: wheel.queue("orders"), lambda info: info.former is None)
        assert tries == {"a": 2}


@pytest.mark.parametrize("place", ["reshard.after=kill@15", "depart.after=kill@2", "arrive.after=kill@2"])
async def test_workers_go_on_when_whoever_began_has_died(fresh: RedisServer, place: str) -> None:
    async with Wheel(fresh.url) as wheel:
        await wheel.create_queue("orders", shards=2)
        jobs = [wheel.new_job("t", queue="orders", delay=3_600, id=f"job-{n}") for n in range(1_500)]
        await wheel.enqueue_many(jobs)
        async with running(wheel, queues=("orders",)):
            code, _ = await python(fresh.url, "4", code=CUT, ZWHEEL_FAILPOINTS=place)
            assert code == -9
            await eventually(lambda: wheel.queue("orders"), lambda info: info.former is None and info.shards == 4)
        assert (await wheel.queue("orders")).scheduled == 1_500
        with fresh.client() as client:
            for name in shard_names("orders", 2):
                assert not client.exists(ShardKeys.of("zw", name).jobs)


async def test_a_worker_that_comes_in_the_middle_serves_both_cuts(fresh: RedisServer) -> None:
    runs: Counter[str] = Counter()
    async with Wheel(fresh.url) as wheel:
        await wheel.create_queue("orders", shards=2)

        @wheel.task(name="count", queue="orders")
        async def count(name: str) -> None:
            runs[name] += 1

        await wheel.enqueue_many(
            [wheel.new_job("count", args=[str(n)], queue="orders", id=f"job-{n}", delay=1) for n in range(1_500)]
        )
        code, _ = await python(fresh.url, "5", code=CUT, ZWHEEL_FAILPOINTS="arrive.after=kill@2")
        assert code == -9
        async with running(wheel, queues=("orders",), concurrency=100):
            await eventually(lambda: asyncio.sleep(0, sum(runs.values())), lambda number: number == 1_500)
            await eventually(lambda: wheel.queue("orders"), lambda info: info.former is None)
        assert set(runs.values()) == {1}


async def test_a_schedule_goes_on_in_the_new_shards_and_every_time_is_accounted_for(
    fresh: RedisServer, tmp_path: Path
) -> None:
    names = ("each-allow", "each-skip")
    async with Wheel(fresh.url, history=tmp_path) as wheel:
        await wheel.create_queue("orders", shards=1)

        @wheel.task(name="tick", queue="orders")
        async def tick() -> None:
            return

        for name in names:
            await wheel.add_schedule(
                wheel.new_schedule(name, "* * * * * *", "tick", queue="orders", overlap=name.removeprefix("each-"))
            )
        async with running(wheel, queues=("orders",)) as handle:

            def started() -> list[int]:
                jobs = [about["job"].partition("@")[0] for about in handle.log.of("start")]
                return [jobs.count(name) for name in names]

            def go_on(before: list[int]) -> Callable[[], bool]:
                return lambda: min(now - then for now, then in zip(started(), before, strict=True)) > 1

            for shards in (3, 2):
                before = started()
                assert (await wheel.reshard_queue("orders", shards=shards)).done
                await handle.log.until(go_on(before))
    assert not judged(fresh, tmp_path).broken


async def test_a_queue_that_is_cut_again_and_again_is_served(fresh: RedisServer) -> None:
    async with Wheel(fresh.url) as wheel:
        await wheel.create_queue("orders", shards=1)

        @wheel.task(name="t", queue="orders", keep=600)
        async def t() -> None:
            return

        async with running(wheel, queues=("orders",)) as handle:
            for number, shards in enumerate((3, 1, 3, 2)):
                assert (await wheel.reshard_queue("orders", shards=shards)).done
                await wheel.enqueue_many([wheel.new_job("t", queue="orders") for _ in range(20)])
                await eventually(lambda: wheel.count("orders", JobState.DONE), partial(int.__eq__, 20 * number + 20))
            names = shard_names("orders", 2)
            await eventually(
                lambda: asyncio.sleep(0, {p.queue for p in handle.worker.pollers}), lambda now: now == set(names)
            )
            assert not handle.task.done()


async def test_what_cannot_move_is_said_and_the_queues_beside_it_move(
    fresh: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Something is on its way that no version knows: the worker goes on, and moves the jobs of other queues."""
    queues = ("damaged", "orders")
    async with Wheel(fresh.url) as wheel:
        for queue in queues:
            await wheel.create_queue(queue, shards=1)
            await wheel.enqueue("t", queue=queue, delay=3_600)
            code, _ = await python(
                fresh.url, "2", code=CUT.replace("orders", queue), ZWHEEL_FAILPOINTS="depart.before=kill@1"
            )
            assert code == -9
        keys = ShardKeys.of("zw", "damaged")
        with fresh.client() as client:
            client.hset(keys.leaving, mapping={"#": "5", "zz": "?"})
            async with running(wheel, queues=queues) as handle:
                await eventually(lambda: wheel.queue("orders"), lambda info: info.former is None)
                await eventually(
                    lambda: asyncio.sleep(0, caplog.text), lambda said: "zz is on its way to another shard" in said
                )
                assert (await wheel.queue("damaged")).former == 1
                client.hdel(keys.leaving, "zz")
                await eventually(lambda: wheel.queue("damaged"), lambda info: info.former is None)
                assert not handle.task.done()
