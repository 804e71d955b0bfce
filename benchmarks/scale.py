"""scale: what of the model of `model.py` can be measured on one machine, beside what the model says.

The CPU that a job takes is measured by `nodes`: there one server is a part of a CPU, and three are three.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from zwheel import Wheel
from zwheel.calls import NewJob, reading
from zwheel.keys import ShardKeys, shard_names

from . import model
from .app import noop_task
from .bench import QUEUE, Bench
from .figures import Figure
from .machine import Server

_TITLE = "the model"
#: Jobs, and bytes of the text in each.
_MEMORY = ((100_000, 100), (100_000, 900), (300_000, 20))
#: Workers and shards, all in one process.
_FLEETS = ((20, 1), (20, 8), (100, 1))
_SETTLE_S, _WINDOW_S, _SHORT_WINDOW_S = 6.0, 20.0, 3.0
_ROWS, _READS = 10_000, 20


async def run(bench: Bench) -> list[Figure]:
    """Measure each part once."""
    figures = []
    for jobs, text in _MEMORY[:1] if bench.short else _MEMORY:
        figures.append(await _memory(bench, bench.amount(jobs, 5_000), text))
    for workers, shards in _FLEETS[:1] if bench.short else _FLEETS:
        figures += await _looks(bench, workers, shards)
    return [*figures, *await _rows(bench)]


async def _memory(bench: Bench, jobs: int, text: int) -> Figure:
    bench.say(f"scale: {jobs:,} jobs with {text:,} bytes of text ...")
    with bench.server() as server, server.client() as client:
        async with Wheel(server.url, namespace="zw") as wheel:
            send = noop_task(wheel)
            await wheel.enqueue(send.name, args=[""], queue=QUEUE, delay=timedelta(days=30))
            before = int(client.info("memory")["used_memory"])
            await wheel.enqueue_many(_jobs(wheel, jobs, text))
            each = (int(client.info("memory")["used_memory"]) - before) / jobs
    return Figure(
        name=f"scale.memory.{jobs}.{text}", title=f"memory of each of {jobs:,} jobs with {text:,} bytes", unit="bytes",
        rounds=(each,), floor=(model.job_bytes(jobs, text),), floor_title=_TITLE,
    )  # fmt: skip


def _jobs(wheel: Wheel, jobs: int, text: int) -> Iterator[NewJob]:
    send = noop_task(wheel)
    day = (datetime.now(UTC) + timedelta(days=1)).replace(hour=0, minute=0)
    for number in range(jobs):
        at = day + timedelta(hours=20) * (number / jobs)
        yield wheel.new_job(send, args=[f"{number:0{text}d}"], queue=QUEUE, at=at)


async def _looks(bench: Bench, workers: int, shards: int) -> list[Figure]:
    """How often idle workers look, and how many connections each has."""
    bench.say(f"scale: {workers} idle workers, shards: {shards} ...")
    window_s = bench.amount(int(_WINDOW_S), int(_SHORT_WINDOW_S))
    with bench.server() as server:
        async with Wheel(server.url, namespace="zw") as wheel:
            await wheel.create_queue(QUEUE, shards=shards)
            async with bench.workers(server, wheel, count=workers, cpus=bench.placement.measured):
                await asyncio.sleep(_SETTLE_S)
                with server.client() as client:
                    connections = (len(client.client_list()) - 2) / workers
                seen = await asyncio.to_thread(_count, server, window_s)
    what = f"{workers} idle workers, shards: {shards}"
    return [
        Figure(
            name=f"scale.looks.{workers}.{shards}", title=f"{what}: looks", unit="/s", rounds=(seen,),
            floor=(model.looks_s(workers, shards),), floor_title=_TITLE,
        ),
        Figure(
            name=f"scale.connections.{workers}.{shards}", title=f"{what}: connections of each", unit="",
            rounds=(connections,), floor=(float(model.COSTS.connections),), floor_title=_TITLE,
        ),
    ]  # fmt: skip


def _count(server: Server, seconds: float) -> float:
    """Shards that are looked at, a second: a look at a shard takes five keys."""
    seen = 0
    over = threading.Event()
    with server.client() as admin, server.client() as watcher, watcher.monitor() as monitor:

        def read() -> None:
            nonlocal seen
            for line in monitor.listen():
                if over.is_set():
                    return
                words = line["command"].split()
                if words[0].upper() == "EVALSHA" and words[1] == reading("look").sha:
                    seen += int(words[2]) // 5

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        time.sleep(seconds)
        over.set()
        admin.ping()
        reader.join(5)
    return seen / seconds


async def _rows(bench: Bench) -> list[Figure]:
    """What it takes to read the list of very many workers, which each new worker does, and each that cleans up."""
    rows = bench.amount(_ROWS, 100)
    with bench.server() as server, server.client() as client:
        key = ShardKeys.of("zw", shard_names(QUEUE, 8)[0]).workers
        async with Wheel(server.url, namespace="zw") as wheel, bench.workers(server, wheel):
            (row,) = client.hvals(ShardKeys.of("zw", QUEUE).workers)
        document: dict[str, Any] = json.loads(row)
        client.hset(key, mapping={f"w{number:07d}": json.dumps(document | {"pid": number}) for number in range(rows)})
        client.config_resetstat()
        for _ in range(_READS):
            client.hgetall(key)
        spent: Any = client.info("commandstats")
        ms = float(spent["cmdstat_hgetall"]["usec_per_call"]) / 1000
    return [
        Figure(name="scale.row", title="a worker's row in the list of workers", unit="bytes", rounds=(float(len(row)),)),
        Figure(
            name="scale.rows", title=f"reading a list of {rows:,} workers, in the server", unit="ms", rounds=(ms,),
            note=f"{rows * (len(row) + 8) / 2**20:.1f} MiB to send each time",
        ),
    ]  # fmt: skip
