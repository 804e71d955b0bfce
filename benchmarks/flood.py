"""flood: very many jobs due in the same millisecond, drained by one worker that serves another queue meanwhile."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from typing import Any

import redis

from zwheel import Wheel
from zwheel.keys import ShardKeys

from .app import ORDER, SAMPLES, TICKS
from .bench import PAYLOAD, QUEUE, Bench
from .figures import Bar, Figure, percentile
from .machine import Server, on_cpus

_JOBS = 1_000_000
_CHUNK = 250
_TICK_S = 0.1
_LONGEST_S = 600.0
#: Calls that take less than this are not logged, µs, so that the log stays small.
_LOGGED_US = 1_000
_LOG_LENGTH = 100_000
#: What takes a µs or two on an idle machine: a logged one was interrupted, and tells how much a script may have been.
_PLAIN = ("HLEN", "LLEN", "ZCARD", "EXISTS", "TIME", "GET", "SET", "PING")


async def run(bench: Bench) -> list[Figure]:
    """Measure one flood of 1,000,000 jobs."""
    with bench.server() as server, server.client() as watch:
        watch.config_set("slowlog-max-len", _LOG_LENGTH)
        watch.config_set("slowlog-log-slower-than", _LOGGED_US)
        watch.slowlog_reset()
        rate, storing = await _flood(bench, server, watch)
        scripts, plain = _durations(watch, "EVALSHA"), _durations(watch, *_PLAIN)
        calls = int(watch.info("commandstats")["cmdstat_evalsha"]["calls"])
        order = json.loads((server.directory / "order.json").read_text(encoding="utf-8"))
        ticks: list[float] = json.loads((server.directory / "ticks.json").read_text(encoding="utf-8"))
    if order["started"] != _JOBS:
        raise RuntimeError(f"{order['started']} of {_JOBS} jobs started")
    return [
        Figure(name="flood", title="flood of 1,000,000 jobs, drained", unit="jobs/s", rounds=(rate,)),
        Figure(
            name="flood.script.p99", title="flood, p99 of the scripts that drain it", unit="ms",
            rounds=(percentile([_LOGGED_US / 1000] * (calls - len(scripts)) + scripts, 0.99),),
            bar=Bar(limit=10.0, at_least=False), note=f"{len(scripts)} of {calls} calls took over 1 ms",
        ),
        Figure(
            name="flood.script", title="flood, longest script that drains it", unit="ms", rounds=(max(scripts, default=_LOGGED_US / 1000),),
            floor=(max(plain, default=_LOGGED_US / 1000),), floor_title="longest O(1) command",
            bar=Bar(limit=10.0, at_least=False),
        ),
        Figure(
            name="flood.store", title="flood, longest script that stores it, 250 jobs a call", unit="ms",
            rounds=(max(storing, default=_LOGGED_US / 1000),), bar=Bar(limit=10.0, at_least=False),
            note=f"p50 {percentile(storing or [_LOGGED_US / 1000], 0.5):.1f} ms",
        ),
        Figure(
            name="flood.order", title="flood, jobs started before an older one", unit="jobs",
            rounds=(float(order["out_of_order"]),), bar=Bar(limit=0.0, at_least=False),
        ),
        Figure(
            name="flood.other", title="flood, largest lateness in another queue", unit="ms", rounds=(max(ticks),),
            bar=Bar(limit=100.0, at_least=False),
            note=f"{len(ticks)} jobs, p50 {percentile(ticks, 0.5):.1f} ms, p99 {percentile(ticks, 0.99):.1f} ms",
        ),
    ]  # fmt: skip


async def _flood(bench: Bench, server: Server, watch: redis.Redis) -> tuple[float, list[float]]:
    """Drained jobs a second, and how long the logged calls took that stored them, ms."""
    env = {ORDER: str(server.directory / "order.json"), SAMPLES: str(server.directory / "ticks.json")}
    jobs = ShardKeys.of("zw", QUEUE).jobs
    async with Wheel(server.url, namespace="zw") as wheel:
        await wheel.pause(QUEUE)
        due = datetime.now(UTC)
        with on_cpus(bench.placement.measured):
            await wheel.enqueue_many(
                (wheel.new_job("flood", args=[PAYLOAD], queue=QUEUE, at=due) for _ in range(_JOBS)), chunk=_CHUNK
            )
        storing = _durations(watch, "EVALSHA")
        watch.slowlog_reset()
        watch.config_resetstat()
        async with bench.workers(server, wheel, env=env, settings=("--queue", TICKS)):
            with on_cpus(bench.placement.server):
                started = time.perf_counter()
                await wheel.resume(QUEUE)
                while left := int(watch.hlen(jobs)):
                    if time.perf_counter() - started > _LONGEST_S:
                        raise RuntimeError(f"{left} of {_JOBS} jobs are left after {_LONGEST_S:.0f} s")
                    await wheel.enqueue("tick", queue=TICKS)
                    await asyncio.sleep(_TICK_S)
                took = time.perf_counter() - started
            async with asyncio.timeout(30):
                while (info := await wheel.queue(TICKS)).scheduled or info.processing:  # noqa: ASYNC110 - the end is elsewhere
                    await asyncio.sleep(0.1)
    return _JOBS / took, storing


def _durations(watch: redis.Redis, *names: str) -> list[float]:
    """How long each logged call of these commands took, ms; those inside scripts are logged too."""
    wanted = {name.encode() for name in names}
    entries: Any = watch.slowlog_get(_LOG_LENGTH)
    return [entry["duration"] / 1000 for entry in entries if entry["command"].split()[0].upper() in wanted]
