"""pending: how late jobs start while ten million others wait, and what each of those takes of the server's memory.

The ten million are due over 30 days, in no order, and are stored by `enqueue_many`; then 1,000 jobs a second come due.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from zwheel import Wheel
from zwheel.calls import NewJob

from .bench import QUEUE, Bench
from .figures import Bar, Figure, percentile
from .machine import Server, on_cpus
from .rates import measure

_PENDING, _SHORT_PENDING = 10_000_000, 2_000
_RATE, _SHORT_RATE = 1_000, 200
_SPREAD_S, _SHORT_SPREAD_S = 30, 1
_DAYS = 30
#: The first of them is due this much after all of them are stored, at the least.
_FROM = timedelta(hours=3)
#: Any prime that no usual number of jobs can be divided by: the times come in an order without order.
_STEP = 7_654_321
_SAY = 1_000_000


async def run(bench: Bench) -> list[Figure]:
    """Store, and measure once."""
    pending, rate = bench.amount(_PENDING, _SHORT_PENDING), bench.amount(_RATE, _SHORT_RATE)
    spent: dict[str, float] = {}

    async def store(server: Server, wheel: Wheel) -> None:
        with server.client() as client, on_cpus(bench.placement.measured):
            await wheel.enqueue("late", args=["x"], queue=QUEUE, delay=timedelta(days=_DAYS))
            before = int(client.info("memory")["used_memory"])
            started = time.perf_counter()
            await wheel.enqueue_many(_jobs(bench, wheel, pending))
            spent["seconds"] = time.perf_counter() - started
            spent["bytes"] = (int(client.info("memory")["used_memory"]) - before) / pending
            client.bgsave()
            while client.info("persistence")["rdb_bgsave_in_progress"]:  # noqa: ASYNC110 - the end is elsewhere
                await asyncio.sleep(0.1)
            spent["fork"] = int(client.info("stats")["latest_fork_usec"]) / 1000

    found = await measure(bench, rate, 1, spread_s=bench.amount(_SPREAD_S, _SHORT_SPREAD_S), before=store)
    what = f"{pending:,} pending"
    lateness = [
        Figure(
            name=f"pending.{name}", title=f"{what}, {rate:,} due a second: {title}", unit="ms",
            rounds=(percentile(found.lateness, part),), bar=bar, cpu=(found.cpu,),
        )
        for name, title, part, bar in (
            ("p50", "p50", 0.5, None), ("p99", "p99", 0.99, Bar(limit=5.0, at_least=False)), ("max", "largest", 1.0, None),
        )
    ]  # fmt: skip
    return [
        *lateness,
        Figure(
            name="pending.min", title=f"{what}, smallest (none early)", unit="ms", rounds=(min(found.lateness),),
            bar=Bar(limit=0.0),
        ),
        Figure(
            name="pending.memory", title=f"{what}, Redis memory of each", unit="bytes", rounds=(spent["bytes"],),
            bar=Bar(limit=350.0, at_least=False),
        ),
        Figure(name="pending.fork", title=f"{what}, the fork of a snapshot", unit="ms", rounds=(spent["fork"],)),
        Figure(
            name="pending.store", title=f"{what}, stored in bulk", unit="jobs/s", rounds=(pending / spent["seconds"],),
            note=f"{spent['seconds']:.1f} s in all",
        ),
    ]  # fmt: skip


def _jobs(bench: Bench, wheel: Wheel, pending: int) -> Iterator[NewJob]:
    first, between = datetime.now(UTC) + _FROM, timedelta(days=_DAYS) / pending
    for number in range(pending):
        if number and number % _SAY == 0:
            bench.say(f"pending: {number:,} jobs stored")
        place = number * _STEP % pending
        yield wheel.new_job("steady", args=[f"{place:0100d}"], queue=QUEUE, at=first + place * between)
