"""midnight: ten thousand schedules that are all due in the same second; one worker process.

Occurrences are put on the wheel seconds ahead of their time. With `skip` that holds where the occurrence before has ended by
then; no other occurrence is decided at its time, as none of these schedules fired before.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

from zwheel import Wheel

from .app import OCCURRENCES
from .bench import QUEUE, Bench
from .figures import Bar, Cpu, Figure, percentile
from .machine import CpuMeter
from .schedules import read_occurrences

_MANY, _SHORT_MANY = 10_000, 50
#: How many schedules are surely written in a second; how long a worker has, after it started, before they are due.
_WRITTEN_S, _HEAD_S, _SHORT_HEAD_S = 500, 20, 3
_LONGEST_S = 120.0
_CASES = ((1, "allow", 1), (1, "skip", 1), (4, "skip", 1), (4, "skip", 2))


async def run(bench: Bench) -> list[Figure]:
    """Measure a queue of one shard with both policies, and one of four shards."""
    figures: list[Figure] = []
    for shards, overlap, workers in _CASES[::3] if bench.short else _CASES:
        bench.say(f"midnight: shards: {shards}, overlap {overlap}, workers: {workers} ...")
        lateness, cpu = await _once(bench, shards, overlap, workers)
        title = f"{len(lateness):,} schedules due in a second, overlap {overlap}, shards: {shards}, workers: {workers}"
        key = f"midnight.{overlap}.{shards}.{workers}"
        figures += [
            Figure(
                name=key, title=f"{title}: the last one starts after", unit="ms", rounds=(max(lateness),), cpu=(cpu,),
                bar=Bar(limit=1_000.0, at_least=False),
                note=f"p50 {percentile(lateness, 0.5):.0f}, p99 {percentile(lateness, 0.99):.0f} ms",
            ),
            Figure(
                name=f"{key}.min", title=f"{title}: smallest lateness (none early)", unit="ms", rounds=(min(lateness),),
                bar=Bar(limit=0.0),
            ),
        ]  # fmt: skip
    return figures


async def _once(bench: Bench, shards: int, overlap: str, workers: int) -> tuple[list[float], Cpu]:
    """How late each occurrence starts, ms, and what one costs from some seconds before its time on."""
    many = bench.amount(_MANY, _SHORT_MANY)
    head_s = bench.amount(_HEAD_S, _SHORT_HEAD_S)
    with bench.server() as server:
        where = {OCCURRENCES: str(server.directory)}
        async with Wheel(server.url, namespace="zw") as wheel:
            await wheel.create_queue(QUEUE, shards=shards)
            async with bench.workers(server, wheel, processes=workers, env=where) as processes:
                at = (datetime.now(UTC) + timedelta(seconds=head_s + many / _WRITTEN_S + 1)).replace(microsecond=0)
                line = f"{at:%S} {at:%M} {at:%H} {at:%d} {at:%m} *"
                await wheel.sync_schedules(
                    [
                        wheel.new_schedule(f"s{n:05d}", line, "occurs", queue=QUEUE, overlap=overlap, keep=60)
                        for n in range(many)
                    ],
                    "bench",
                )
                left_s = (at - datetime.now(UTC)).total_seconds()
                if left_s < head_s / 2:
                    raise RuntimeError(
                        f"the schedules were written {left_s:.1f} s before they are due, which is too late"
                    )
                await asyncio.sleep(left_s - head_s / 2)
                meter = CpuMeter(server, [process.pid for process in processes])
                meter.start()
                await asyncio.sleep((at - datetime.now(UTC)).total_seconds())
                ends = time.monotonic() + _LONGEST_S
                while (info := await wheel.queue(QUEUE)).done < many or info.processing:
                    if time.monotonic() > ends:
                        raise RuntimeError(f"{info.done} of {many} occurrences ran within {_LONGEST_S:.0f} s")
                    await asyncio.sleep(0.1)
                meter.stop()
        lateness = [late for _, late in read_occurrences(server.directory)]
    if len(lateness) != many:
        raise RuntimeError(f"{len(lateness)} of {many} occurrences ran")
    return lateness, meter.take(many)
