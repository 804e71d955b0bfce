"""lateness: how long after its fire time a job starts. 2,000 jobs over 20 s, one worker process that is
otherwise idle; of a plain queue and of a precise one.

The floor is a loop in a process placed alike that sleeps until a time and then makes one round trip: what the machine's
timers and its loopback cost before any queue.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from datetime import UTC, datetime, timedelta

from zwheel import Wheel

from .app import SAMPLES
from .bench import PAYLOAD, QUEUE, Bench
from .figures import Bar, Figure, percentile
from .floor import RoundTrips
from .machine import Server, on_cpus

_JOBS = 2_000
_SPREAD_S = 20.0
_HEAD_S = 2.0
_FLOOR_SLEEPS = 400


async def run(bench: Bench) -> list[Figure]:
    """Measure p50, p99, the largest and the smallest lateness, ms."""
    rounds = bench.rounds if bench.full else 1
    plain: list[list[float]] = []
    precise: list[list[float]] = []
    floors: list[list[float]] = []
    for number in range(rounds):
        with bench.server() as server:
            floors.append(await _floor(bench, server))
            plain.append(await lateness(bench, server, random.Random(number)))
        with bench.server() as server:
            precise.append(await lateness(bench, server, random.Random(number), precise=True))
    return [
        *_figures("lateness", "", plain, floors, (1.2, 3.0)),
        *_figures("lateness.precise", ", precise", precise, floors, (0.5, 1.0)),
    ]


def _figures(
    name: str, kind: str, ours: list[list[float]], floors: list[list[float]], limits: tuple[float, float]
) -> list[Figure]:
    """limits: what p50 and p99 may be, ms."""
    p50, p99 = (Bar(limit=limit, at_least=False) for limit in limits)

    def figure(what: str, part: float, bar: Bar | None) -> Figure:
        return Figure(
            name=f"{name}.{what}", title=f"lateness at 100 jobs/s{kind}, {'largest' if what == 'max' else what}", unit="ms",
            rounds=tuple(percentile(s, part) for s in ours), floor=tuple(percentile(s, part) for s in floors),
            floor_title="sleep + round trip", bar=bar,
        )  # fmt: skip

    return [
        figure("p50", 0.50, p50),
        figure("p99", 0.99, p99),
        figure("max", 1.0, None),
        Figure(
            name=f"{name}.min", title=f"lateness at 100 jobs/s{kind}, smallest (none early)", unit="ms",
            rounds=(min(min(samples) for samples in ours),), bar=Bar(limit=0.0),
        ),
    ]  # fmt: skip


async def _floor(bench: Bench, server: Server) -> list[float]:
    trips = RoundTrips(server)
    found = []
    with on_cpus(bench.placement.measured):
        await trips.seconds(10)
        for _ in range(_FLOOR_SLEEPS):
            due = time.time() + 0.01
            await asyncio.sleep(due - time.time())
            await trips.seconds(1)
            found.append((time.time() - due) * 1000)
    await trips.aclose()
    return found


async def lateness(bench: Bench, server: Server, chance: random.Random, *, precise: bool = False) -> list[float]:
    """How late each job starts, ms."""
    samples = server.directory / "samples.json"
    async with Wheel(server.url, namespace="zw") as wheel:
        await wheel.set_precise(QUEUE, precise)
        async with bench.workers(server, wheel, env={SAMPLES: str(samples)}):
            step = _SPREAD_S / _JOBS
            first = datetime.now(UTC) + timedelta(seconds=_HEAD_S)
            await wheel.enqueue_many(
                wheel.new_job(
                    "late", args=[PAYLOAD], queue=QUEUE, at=first + timedelta(seconds=(i + chance.random()) * step)
                )
                for i in range(_JOBS)
            )
            await asyncio.sleep(_HEAD_S + _SPREAD_S)
            async with asyncio.timeout(30):
                while (info := await wheel.queue(QUEUE)).scheduled or info.processing:  # noqa: ASYNC110 - the end is elsewhere
                    await asyncio.sleep(0.2)
        found: list[float] = json.loads(samples.read_text(encoding="utf-8"))
    if len(found) != _JOBS:
        raise RuntimeError(f"{len(found)} of {_JOBS} jobs ran")
    return found
