"""idle: what workers with nothing to do ask of Redis, heartbeats and reaping included.

Counted twice over the same time: the commands that clients send, seen by MONITOR, and INFO's total_commands_processed,
which also counts each command inside a script. On a cluster those of all nodes are added up, and the connections that wait are
counted too.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import ExitStack

from zwheel import Wheel
from zwheel.keys import ShardKeys, shard_names

from .bench import QUEUE, Bench
from .figures import Bar, Figure
from .machine import Cluster, Server

_SETTLE_S = 5.0
#: So much longer for each shard of each worker: all of them start at once.
_EACH_S = 0.01
_WINDOW_S = 20.0
_FULL_WINDOW_S = 60.0
#: Workers, over how many processes they are spread, shards of the queue and on how many servers they lie, whether there is a
#: schedule (far away), and the bar.
_FLEETS = (
    (1, 1, 1, 1, False, 3.0), (10, 1, 1, 1, False, None), (100, 4, 1, 1, False, 60.0), (100, 4, 1, 1, True, 60.0),
    (10, 1, 32, 1, False, None), (100, 4, 64, 1, False, 200.0), (100, 4, 64, 3, False, 200.0),
)  # fmt: skip
#: The bar for the connections of each worker that wait.
_WAITING = 4.0
#: So much longer on a cluster: a fleet that spares first learns who is there.
_CLUSTER_S = 45.0


async def run(bench: Bench) -> list[Figure]:
    """Measure 1, 10 and 100 workers, one after another, 100 that have a schedule to look after, and queues with shards."""
    figures = []
    window_s = _FULL_WINDOW_S if bench.full else _WINDOW_S
    for workers, processes, shards, nodes, scheduled, limit in _FLEETS:
        with ExitStack() as stack:
            target: Server | Cluster
            if nodes == 1:
                target = stack.enter_context(bench.server())
                servers = [target]
            else:
                keys = [ShardKeys.of("zw", name).meta for name in shard_names(QUEUE, shards)]
                target = stack.enter_context(Cluster(bench.program, bench.placement.server, nodes, keys))
                servers = target.servers
            async with Wheel(target.url, namespace="zw") as wheel:
                where = bench.placement.measured
                await wheel.create_queue(QUEUE, shards=shards)
                if scheduled:
                    await wheel.add_schedule(wheel.new_schedule("far", "0 0 1 1 *", "late", queue=QUEUE))
                async with bench.workers(target, wheel, processes=processes, count=workers // processes, cpus=where):
                    await asyncio.sleep(_SETTLE_S + workers * shards * _EACH_S + _CLUSTER_S * (nodes > 1))
                    counts = await asyncio.gather(*(asyncio.to_thread(_count, server, window_s) for server in servers))
                    waiting = sum(await asyncio.gather(*(asyncio.to_thread(_waiting, server) for server in servers)))
        sent, processed = (sum(part) for part in zip(*counts, strict=True))
        name = f"{workers} idle worker{'s' if workers > 1 else ''}{', a schedule' if scheduled else ''}"
        name += f", {shards} shards" if shards > 1 else ""
        name += f" on {nodes} nodes" if nodes > 1 else ""
        key = f"idle.{workers}{'.scheduled' if scheduled else ''}{f'.{shards}' if shards > 1 else ''}"
        key += ".cluster" if nodes > 1 else ""
        figures += [
            Figure(
                name=key, title=f"{name}: commands sent", unit="/s", rounds=(sent,),
                bar=None if limit is None else Bar(limit=limit, at_least=False),
            ),
            Figure(
                name=f"{key}.info", title=f"{name}: with those inside scripts", unit="/s", rounds=(processed,),
            ),
        ]  # fmt: skip
        if shards > 1:
            figures.append(
                Figure(
                    name=f"{key}.waiting", title=f"{name}: connections of each that wait", unit="",
                    rounds=(waiting / workers,), bar=Bar(limit=_WAITING, at_least=False),
                )
            )  # fmt: skip
    return figures


def _waiting(server: Server) -> int:
    """How many connections are blocked."""
    with server.client() as admin:
        return int(admin.info("clients")["blocked_clients"])


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
