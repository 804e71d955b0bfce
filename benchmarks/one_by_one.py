"""enqueue, one by one: each call waits for the one before. Raw round trips run in turns with it."""

from __future__ import annotations

import gc
import time

from zwheel import JobState, SyncWheel, Wheel

from .bench import PAYLOAD, QUEUE, Bench
from .figures import Bar, Cpu, Figure
from .floor import RoundTrips
from .machine import CpuMeter, on_cpus

_TURNS = 8
_CALLS = 500
_FLOOR = "raw EVALSHA"


async def run(bench: Bench) -> list[Figure]:
    """Measure the async and the sync client; the bar is on the async one."""
    # What this program imported is not a producer's heap: no collection during the measurement walks it.
    gc.collect()
    gc.freeze()
    raw: list[float] = []
    ours: list[float] = []
    blocking: list[float] = []
    sync: list[float] = []
    cpu: list[Cpu] = []
    blocking_cpu: list[Cpu] = []
    with bench.server() as server, server.client() as admin, on_cpus(bench.placement.measured):
        sha = str(admin.script_load("return 1"))
        trips = RoundTrips(server)
        meter, blocking_meter = CpuMeter(server), CpuMeter(server)
        blocking_wheel = SyncWheel(server.url, namespace="zw")
        async with Wheel(server.url, namespace="zw") as wheel:
            send = wheel.task(name="noop", queue=QUEUE)(_noop)
            blocking_send = blocking_wheel.task(name="noop", queue=QUEUE)(_noop)
            await send.enqueue(PAYLOAD)
            blocking_send.enqueue(PAYLOAD)
            for _ in range(bench.rounds):
                spent = [0.0, 0.0, 0.0, 0.0]
                for _ in range(_TURNS):
                    spent[0] += await trips.seconds(_CALLS)
                    meter.start()
                    began = time.perf_counter()
                    for _ in range(_CALLS):
                        await send.enqueue(PAYLOAD)
                    spent[1] += time.perf_counter() - began
                    meter.stop()
                    began = time.perf_counter()
                    for _ in range(_CALLS):
                        admin.evalsha(sha, 1, "floor:key", PAYLOAD)
                    spent[2] += time.perf_counter() - began
                    blocking_meter.start()
                    began = time.perf_counter()
                    for _ in range(_CALLS):
                        blocking_send.enqueue(PAYLOAD)
                    spent[3] += time.perf_counter() - began
                    blocking_meter.stop()
                for rates, seconds in zip((raw, ours, blocking, sync), spent, strict=True):
                    rates.append(_TURNS * _CALLS / seconds)
                cpu.append(meter.take(_TURNS * _CALLS))
                blocking_cpu.append(blocking_meter.take(_TURNS * _CALLS))
                await wheel.purge(QUEUE, JobState.SCHEDULED)
        await trips.aclose()
        blocking_wheel.close()
    return [
        Figure(
            name="enqueue.one", title="enqueue one by one", unit="jobs/s", rounds=tuple(ours), floor=tuple(raw),
            floor_title=_FLOOR, bar=Bar(limit=0.8, of_floor=True), cpu=tuple(cpu),
        ),
        Figure(
            name="enqueue.one.sync", title="enqueue one by one, sync client", unit="jobs/s", rounds=tuple(sync),
            floor=tuple(blocking), floor_title=f"{_FLOOR}, sync", cpu=tuple(blocking_cpu),
        ),
    ]  # fmt: skip


async def _noop(text: str) -> None:
    """Never run: only its name and signature are used."""
