"""drain: how fast worker processes empty a queue of jobs that do nothing.

The queue is filled while it is paused and the workers are up. The clock runs from `resume` until Redis holds no job any
more, so every completion is settled. The end is found by asking for one length every 5 ms, from the server's CPU.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from zwheel import Wheel
from zwheel.calls import NewJob
from zwheel.keys import ShardKeys

from .app import noop_task
from .bench import PAYLOAD, QUEUE, Bench
from .figures import Bar, Cpu, Figure
from .floor import bare_drain
from .machine import CpuMeter, Server, on_cpus

_JOBS = 40_000
_WARM_JOBS = 5_000
_WATCH_S = 0.005
_LONGEST_S = 120.0
Job = Callable[[str], NewJob]


async def run(bench: Bench) -> list[Figure]:
    """Measure one worker process and two, round by round on the same server."""
    bare: list[float] = []
    one: list[float] = []
    two: list[float] = []
    one_cpu: list[Cpu] = []
    two_cpu: list[Cpu] = []
    with bench.server() as server:
        async with Wheel(server.url, namespace="zw") as wheel:
            send = noop_task(wheel)
            for _ in range(bench.rounds):
                with on_cpus(bench.placement.measured):
                    bare.append(await bare_drain(server, wheel, _JOBS))
                rate, used = await _drain(bench, server, wheel, send.job, 1)
                one.append(rate)
                one_cpu.append(used)
                rate, used = await _drain(bench, server, wheel, send.job, 2)
                two.append(rate)
                two_cpu.append(used)
    floor_title = "bare loop, same scripts"
    shared = bench.placement.measured and len(bench.placement.measured) < 2
    return [
        Figure(
            name="drain.1", title="drain, 1 worker process", unit="jobs/s", rounds=tuple(one), floor=tuple(bare),
            floor_title=floor_title, bar=Bar(limit=40_000), cpu=tuple(one_cpu),
        ),
        Figure(
            name="drain.2", title="drain, 2 worker processes", unit="jobs/s", rounds=tuple(two), floor=tuple(one),
            floor_title="1 process", cpu=tuple(two_cpu),
            note="not pinned: more processes than CPUs beside the server's" if shared else "",
        ),
    ]  # fmt: skip


async def _drain(bench: Bench, server: Server, wheel: Wheel, job: Job, processes: int) -> tuple[float, Cpu]:
    await wheel.pause(QUEUE)
    async with bench.workers(server, wheel, processes=processes) as workers:
        meter = CpuMeter(server, [worker.pid for worker in workers])
        await _once(bench, server, wheel, job, _WARM_JOBS, meter)
        meter.take(_WARM_JOBS)
        return await _once(bench, server, wheel, job, _JOBS, meter), meter.take(_JOBS)


async def _once(bench: Bench, server: Server, wheel: Wheel, job: Job, jobs: int, meter: CpuMeter) -> float:
    await wheel.pause(QUEUE)
    await wheel.enqueue_many(job(PAYLOAD) for _ in range(jobs))
    key = ShardKeys.of("zw", QUEUE).jobs
    with server.client() as watch, on_cpus(bench.placement.server):
        meter.start()
        started = time.perf_counter()
        await wheel.resume(QUEUE)
        while watch.hlen(key):
            if time.perf_counter() - started > _LONGEST_S:
                raise RuntimeError(f"{watch.hlen(key)} of {jobs} jobs are left after {_LONGEST_S:.0f} s")
            await asyncio.sleep(_WATCH_S)
        took = time.perf_counter() - started
        meter.stop()
        return jobs / took
