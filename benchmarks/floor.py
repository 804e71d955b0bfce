"""The floor of this machine: what the same Redis does when asked as plainly as can be."""

from __future__ import annotations

import time
from collections.abc import Sequence

import redis.asyncio

from zwheel import Wheel, calls
from zwheel.broker.store import Store
from zwheel.calls import Lane, Session, day_name, read_claim
from zwheel.times import DAY_MS

from .bench import PAYLOAD, QUEUE
from .machine import Server

_TRIVIAL = "return 1"
#: How many jobs the raw loops put into one round trip.
BATCH = 500


async def pipelined(client: redis.asyncio.Redis, jobs: int, batch: int = BATCH) -> float:
    """Jobs a second of raw ZADD and HSET, two commands a job, many jobs a round trip, with redis-py's own pipeline."""
    started = time.perf_counter()
    for first in range(0, jobs, batch):
        pipe = client.pipeline(transaction=False)
        for number in range(first, min(first + batch, jobs)):
            name = f"{number:026d}"
            pipe.zadd("floor:times", {name: number})
            pipe.hset("floor:jobs", name, PAYLOAD)
        await pipe.execute()
    rate = jobs / (time.perf_counter() - started)
    await client.delete("floor:times", "floor:jobs")
    return rate


class RoundTrips:
    """Raw round trips: redis-py's `evalsha` of a script that does nothing, with the same payload."""

    def __init__(self, server: Server) -> None:
        self._client = redis.asyncio.Redis.from_url(server.url, protocol=2)
        self._sha = ""

    async def seconds(self, count: int) -> float:
        """How long `count` round trips take, one after another."""
        client = self._client
        if not self._sha:
            self._sha = str(await client.script_load(_TRIVIAL))
        sha = self._sha
        started = time.perf_counter()
        for _ in range(count):
            await client.evalsha(sha, 1, "floor:key", PAYLOAD)
        return time.perf_counter() - started

    async def aclose(self) -> None:
        """Close the connection."""
        await self._client.aclose()


async def bare_drain(server: Server, wheel: Wheel, jobs: int) -> float:
    """Jobs a second that a bare loop claims and completes with zwheel's scripts and calls, without running anything."""
    queue = f"{QUEUE}-bare"
    session = Session("zw")
    store = Store(server.url, session)
    keys = session.keys(queue)
    await wheel.enqueue_many(wheel.new_job("noop", args=[PAYLOAD], queue=queue) for _ in range(jobs))
    ends: list[tuple[bytes | str, bytes]] = []
    done = 0
    day = ""
    started = time.perf_counter()
    while done < jobs:
        claim = calls.claim(
            keys, day=day or day_name(session.clock.now_ms() // DAY_MS), worker="barebare", lease_ms=30_000,
            limit=BATCH, lane=Lane(session.caller, "claim", session.request()),
        )  # fmt: skip
        asked = [claim]
        if ends:
            lane = Lane(session.caller, "settle", session.request())
            asked.insert(0, calls.settle(keys, ends, most_dead=0, now_ms=session.clock.now_ms(), lane=lane))
        replies = await store.send(asked)
        done += len(ends)
        claimed = read_claim(replies[-1])
        day = claimed.day
        ends = _held(claimed.jobs)
    rate = jobs / (time.perf_counter() - started)
    await store.aclose()
    return rate


def _held(jobs: Sequence[bytes]) -> list[tuple[bytes | str, bytes]]:
    return [(jobs[i], jobs[i + 1][21:37]) for i in range(0, len(jobs), 2)]
