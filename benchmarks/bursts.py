"""enqueue, 1,000 concurrent single calls on one client, which it batches automatically."""

from __future__ import annotations

import asyncio
import time

import redis.asyncio

from zwheel import JobState, Wheel

from .app import noop_task
from .bench import PAYLOAD, QUEUE, Bench
from .figures import Bar, Cpu, Figure
from .floor import pipelined
from .machine import CpuMeter, on_cpus

_CALLS = 1_000
_TURNS = 10


async def run(bench: Bench) -> list[Figure]:
    """Measure bursts of 1,000 calls, in turns with the raw pipeline."""
    ours: list[float] = []
    raw: list[float] = []
    cpu: list[Cpu] = []
    with bench.server() as server, on_cpus(bench.placement.measured):
        meter = CpuMeter(server)
        client = redis.asyncio.Redis.from_url(server.url, protocol=2)
        async with Wheel(server.url, namespace="zw") as wheel:
            send = noop_task(wheel)
            for warm in range(bench.rounds + 1):
                floor = spent = 0.0
                for _ in range(_TURNS):
                    floor += _CALLS / await pipelined(client, _CALLS, batch=_CALLS)
                    meter.start()
                    started = time.perf_counter()
                    await asyncio.gather(*[send.enqueue(PAYLOAD) for _ in range(_CALLS)])
                    spent += time.perf_counter() - started
                    meter.stop()
                used = meter.take(_TURNS * _CALLS)
                if warm:
                    cpu.append(used)
                    raw.append(_TURNS * _CALLS / floor)
                    ours.append(_TURNS * _CALLS / spent)
                await wheel.purge(QUEUE, JobState.SCHEDULED)
        await client.aclose()
    return [
        Figure(
            name="enqueue.concurrent",
            title="enqueue, 1,000 concurrent calls",
            unit="jobs/s",
            rounds=tuple(ours),
            floor=tuple(raw),
            floor_title="raw pipeline",
            cpu=tuple(cpu),
            bar=Bar(limit=30_000),
        )
    ]
