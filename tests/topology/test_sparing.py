"""A large fleet on a cluster spares connections and commands, and yet finds what is due."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.groups import Cluster
from tests.workers.harness import Log, Running, eventually, running
from zwheel import Wheel
from zwheel.broker.cluster import slot_of
from zwheel.keys import ShardKeys, shard_names
from zwheel.workers import fleet

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(180)]
SHARDS, WORKERS = 8, 12
#: So many that every shard has some, whatever their ids.
JOBS = 200
NAMES = shard_names("big", SHARDS)
KEYS = [ShardKeys.of("zw", name) for name in NAMES]
#: What a job may be late where those that keep time are gone, and what a busy machine takes on top, seconds.
LATE_S, BUSY_S = 1.0, 1.5


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fleet of a dozen counts as large."""
    monkeypatch.setattr(fleet, "ALL_WAIT", 8)
    monkeypatch.setattr(fleet, "NEAREST", 2)
    monkeypatch.setattr(fleet, "_COUNT_S", 1.0)
    monkeypatch.setattr(fleet, "_SPARE_COUNT_S", 1.0)


def listening(cluster: Cluster) -> Counter[str]:
    """How many connections wait, by node."""
    found: Counter[str] = Counter()
    for node in cluster.nodes[:3]:
        with node.client() as client:
            found[node.url] = int(client.info("clients")["blocked_clients"])
    return found


def haunt(cluster: Cluster, keys: ShardKeys, fire_ms: int) -> None:
    """Both who keep time for a shard are dead, and were there until just now."""
    with cluster.owner(slot_of(keys.meta)).client() as client:
        until = fire_ms + 30
        roles = {
            "keeper": "ghost123",
            "keeper_at": fire_ms,
            "keeper_end": until,
            "second": "ghost456",
            "second_end": until + 15_000,
        }
        client.hset(keys.meta, mapping=roles)


async def keeper_at(cluster: Cluster, keys: ShardKeys) -> int:
    """What the timekeeper of a shard sleeps for."""
    with cluster.owner(slot_of(keys.meta)).client() as client:
        return int(client.hget(keys.meta, "keeper_at") or 0)


async def known(workers: list[Running]) -> None:
    """Wait until each of them knows all others, and those that need not listen do not."""

    async def sizes() -> set[int]:
        return {poller.looks._lookout.fleet(poller.keys).size for one in workers for poller in one.worker.pollers}

    await eventually(sizes, lambda found: found == {len(workers)}, within=30)


@asynccontextmanager
async def a_fleet(cluster: Cluster) -> AsyncIterator[tuple[Wheel, Log, list[Running]]]:
    """Workers of one queue that know each other."""
    log = Log()
    async with Wheel(cluster.url) as wheel, AsyncExitStack() as stack:
        await wheel.create_queue("big", shards=SHARDS)

        @wheel.task(name="quick", queue="big", keep=60)
        async def quick() -> None:
            pass

        settings: dict[str, Any] = {"queues": ("big",), "concurrency": 5, "lease_ms": 30_000}
        workers = [await stack.enter_async_context(running(wheel, log, **settings)) for _ in range(WORKERS)]
        await known(workers)
        yield wheel, log, workers


async def test_few_listen_to_each_shard_one_sees_to_it_and_jobs_start_at_once(cluster: Cluster) -> None:
    async with a_fleet(cluster) as (wheel, log, workers):
        pollers = [poller for one in workers for poller in one.worker.pollers]

        def listens() -> Counter[str]:
            return Counter(str(poller.queue) for poller in pollers if poller.listens)

        # Connections that waited before the fleet was known end with their next renewal, and who keeps time by then listens.
        await eventually(
            lambda: asyncio.sleep(0, (sum(listening(cluster).values()), sum(listens().values()))),
            lambda found: found[0] == found[1] < WORKERS * SHARDS / 2, within=60,
        )  # fmt: skip
        assert (set(listens()), min(listens().values()) >= 2) == (set(NAMES), True)
        sees_to = Counter(poller.queue for poller in pollers if poller.looks.sees_to)
        assert sees_to == Counter(NAMES)
        made = await wheel.enqueue_many(wheel.new_job("quick", queue="big") for _ in range(40))
        for job in made:
            start = await log.seen("start", job.job_id)
            assert start["token"] / 1000 - job.fire_at_ms < BUSY_S * 1000


async def test_a_shard_whose_timekeeper_and_second_are_dead_is_found_within_a_second(cluster: Cluster) -> None:
    async with a_fleet(cluster) as (wheel, log, workers):
        fire_ms = int(time.time() * 1000) + 5_000
        at = datetime.fromtimestamp(fire_ms / 1000, UTC)
        made = await wheel.enqueue_many(wheel.new_job("quick", queue="big", at=at) for _ in range(JOBS))
        for keys in KEYS:
            await eventually(lambda keys=keys: keeper_at(cluster, keys), lambda at: at == fire_ms)  # type: ignore[misc]
        for keys in KEYS:
            haunt(cluster, keys, fire_ms)
            # Whoever kept time until now is dead: it wakes for nothing. Whoever sees to the shard lives, whether or not it had
            # to keep time for a while, as it does on a busy machine.
            for one in workers:
                for poller in one.worker.pollers:
                    if poller.keys == keys and poller._role.keeps and not poller.looks.sees_to:
                        poller._wake_at += 60.0
                        poller._timer.cancel()
        for job in made:
            start = await log.seen("start", job.job_id)
            assert 0 <= start["token"] / 1000 - job.fire_at_ms < (LATE_S + BUSY_S) * 1000
