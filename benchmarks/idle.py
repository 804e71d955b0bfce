"""idle: what workers with nothing to do ask of Redis, heartbeats and reaping included.

Counted twice over the same time: the commands that clients send, seen by MONITOR, and INFO's total_commands_processed,
which also counts each command inside a script.
"""

from __future__ import annotations

import asyncio
import threading
import time

from zwheel import Wheel

from .bench import QUEUE, Bench
from .figures import Bar, Figure
from .machine import Server

_SETTLE_S = 5.0
#: So much longer for each shard of each worker: all of them start at once.
_EACH_S = 0.01
_WINDOW_S = 20.0
_FULL_WINDOW_S = 60.0
#: Workers, over how many processes they are spread, shards of the queue, whether there is a schedule (far away), and the bar.
_FLEETS = (
    (1, 1, 1, False, 3.0), (10, 1, 1, False, None), (100, 4, 1, False, 60.0), (100, 4, 1, True, 60.0),
    (10, 1, 32, False, None), (100, 4, 64, False, 200.0),
)  # fmt: skip


async def run(bench: Bench) -> list[Figure]:
    """Measure 1, 10 and 100 workers, one after another, 100 that have a schedule to look after, and queues with shards."""
    figures = []
    window_s = _FULL_WINDOW_S if bench.full else _WINDOW_S
    for workers, processes, shards, scheduled, limit in _FLEETS:
        with bench.server() as server:
            async with Wheel(server.url, namespace="zw") as wheel:
                where = bench.placement.measured
                await wheel.create_queue(QUEUE, shards=shards)
                if scheduled:
                    await wheel.add_schedule(wheel.new_schedule("far", "0 0 1 1 *", "late", queue=QUEUE))
                async with bench.workers(server, wheel, processes=processes, count=workers // processes, cpus=where):
                    await asyncio.sleep(_SETTLE_S + workers * shards * _EACH_S)
                    sent, processed = await asyncio.to_thread(_count, server, window_s)
        name = f"{workers} idle worker{'s' if workers > 1 else ''}{', a schedule' if scheduled else ''}"
        name += f", {shards} shards" if shards > 1 else ""
        key = f"idle.{workers}{'.scheduled' if scheduled else ''}{f'.{shards}' if shards > 1 else ''}"
        figures += [
            Figure(
                name=key, title=f"{name}: commands sent", unit="/s", rounds=(sent,),
                bar=None if limit is None else Bar(limit=limit, at_least=False),
            ),
            Figure(
                name=f"{key}.info", title=f"{name}: with those inside scripts", unit="/s", rounds=(processed,),
            ),
        ]  # fmt: skip
    return figures


def _count(server: Server, seconds: float) -> tuple[float, float]:
    """Commands a second: sent by clients, and processed."""
    sent = 0
    over = threading.Event()
    with server.client() as admin, server.client() as watcher, watcher.monitor() as monitor:

        def read() -> None:
            nonlocal sent
            for line in monitor.listen():
                if over.is_set():
                    return
                if line["client_type"] != "lua" and not line["command"].upper().startswith(("INFO", "CLIENT")):
                    sent += 1

        reader = threading.Thread(target=read, daemon=True)
        admin.ping()
        before = int(admin.info("stats")["total_commands_processed"])
        reader.start()
        started = time.monotonic()
        time.sleep(seconds)
        after = int(admin.info("stats")["total_commands_processed"])
        took = time.monotonic() - started
        over.set()
        admin.ping()
        reader.join(5)
    return sent / took, (after - before - 1) / took
