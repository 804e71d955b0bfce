"""enqueue, in bulk: `enqueue_many`, the making and encoding of the jobs included."""

from __future__ import annotations

import time

import redis.asyncio

from zwheel import JobState, Wheel

from .app import noop_task
from .bench import PAYLOAD, QUEUE, Bench
from .figures import Bar, Cpu, Figure
from .floor import pipelined
from .machine import CpuMeter, on_cpus

_JOBS = 5_000
_TURNS = 6


async def run(bench: Bench) -> list[Figure]:
    """Measure in turns with the raw pipeline."""
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
                    floor += _JOBS / await pipelined(client, _JOBS)
                    meter.start()
                    started = time.perf_counter()
                    await wheel.enqueue_many(send.job(PAYLOAD) for _ in range(_JOBS))
                    spent += time.perf_counter() - started
                    meter.stop()
                used = meter.take(_TURNS * _JOBS)
                if warm:
                    cpu.append(used)
                    raw.append(_TURNS * _JOBS / floor)
                    ours.append(_TURNS * _JOBS / spent)
                await wheel.purge(QUEUE, JobState.SCHEDULED)
        await client.aclose()
    return [
        Figure(
            name="enqueue.bulk",
            title="enqueue in bulk",
            unit="jobs/s",
            rounds=tuple(ours),
            floor=tuple(raw),
            floor_title="raw pipeline",
            cpu=tuple(cpu),
            bar=Bar(limit=80_000),
        )
    ]
