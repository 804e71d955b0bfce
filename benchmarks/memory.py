"""memory: what one waiting job costs Redis, beside the payload alone as a member of a sorted set."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import redis

from zwheel import Wheel

from .app import noop_task
from .bench import QUEUE, Bench
from .figures import Bar, Figure
from .machine import Server

_JOBS = 100_000
_SPREAD = timedelta(hours=6)


async def run(bench: Bench) -> list[Figure]:
    """Measure 100,000 jobs whose fire times are spread over 6 hours of tomorrow."""
    ours = []
    floor = []
    for _ in range(bench.rounds if bench.full else 1):
        with bench.server() as server, server.client() as client:
            ours.append(await _jobs(server, client))
        with bench.server() as server, server.client() as client:
            floor.append(_members(client))
    return [
        Figure(
            name="memory",
            title="Redis memory per waiting job",
            unit="bytes",
            rounds=tuple(ours),
            floor=tuple(floor),
            floor_title="payload as member",
            bar=Bar(limit=400, at_least=False),
        )
    ]


def _used(client: redis.Redis) -> int:
    return int(client.info("memory")["used_memory"])


def _payload(number: int) -> str:
    """100 bytes of text that no other job has."""
    return f"{number:0100d}"


async def _jobs(server: Server, client: redis.Redis) -> float:
    first = (datetime.now(UTC) + timedelta(days=1)).replace(hour=6, minute=0, second=0, microsecond=0)
    async with Wheel(server.url, namespace="zw") as wheel:
        send = noop_task(wheel)
        await send.enqueue(_payload(0))
    client.flushall()
    before = _used(client)
    async with Wheel(server.url, namespace="zw") as wheel:
        send = noop_task(wheel)
        await wheel.enqueue_many(
            wheel.new_job(send, args=[_payload(i)], queue=QUEUE, at=first + _SPREAD * (i / _JOBS)) for i in range(_JOBS)
        )
    return (_used(client) - before) / _JOBS


def _members(client: redis.Redis) -> float:
    before = _used(client)
    for first in range(0, _JOBS, 1000):
        client.zadd("floor", {_payload(i): 1_790_000_000_000 + i for i in range(first, first + 1000)})
    return (_used(client) - before) / _JOBS
