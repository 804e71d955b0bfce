"""rates: how late jobs start when many are due every second, and how much memory a worker process takes meanwhile.

The jobs are stored before the workers start, evenly spread over the seconds to come, so that nothing but the workers and
the server has work while they fire.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from zwheel import Wheel
from zwheel.calls import NewJob

from .app import RATES
from .bench import PAYLOAD, QUEUE, Bench
from .figures import Bar, Cpu, Figure, percentile
from .machine import CpuMeter, Server

_SPREAD_S = 30.0
#: How many jobs are surely stored in a second, and how long workers take to start, seconds.
_STORED_S, _HEAD_S = 25_000, 4.0
#: Jobs due a second, worker processes, and whether the queue is precise.
RATES_MEASURED = (
    (1_000, 1, False), (1_000, 1, True), (5_000, 1, False), (5_000, 2, False), (10_000, 1, False), (10_000, 2, False),
    (10_000, 2, True),
)  # fmt: skip
_BARS = {(10_000, 2): Bar(limit=2.9, at_least=False)}
_MEMORY = Bar(limit=63.0, at_least=False)


@dataclass(frozen=True, slots=True)
class Found:
    """What one run told."""

    lateness: list[float]
    """Of each job, ms."""
    memory: float
    """The most memory that one of the worker processes had, MB."""
    cpu: Cpu
    """CPU time of a job: of all workers together, and of the server."""


async def run(bench: Bench) -> list[Figure]:
    """Measure each rate with one worker process and with two."""
    figures: list[Figure] = []
    for rate, workers, precise in RATES_MEASURED:
        bench.say(f"rates: {rate:,} jobs/s, workers: {workers}{', precise' if precise else ''} ...")
        times = bench.rounds if bench.full else 1
        rounds = [await measure(bench, rate, workers, precise=precise) for _ in range(times)]
        figures += _figures(rate, workers, precise, rounds)
    return figures


def _figures(rate: int, workers: int, precise: bool, rounds: list[Found]) -> Iterator[Figure]:
    title = f"{rate:,} due a second, {workers} worker{'s' if workers > 1 else ''}{', precise' if precise else ''}"
    prefix = f"rates.{rate}.{workers}{'.precise' if precise else ''}"
    for name, what, part in (("p50", "p50", 0.50), ("p99", "p99", 0.99), ("max", "largest", 1.0)):
        yield Figure(
            name=f"{prefix}.{name}", title=f"{title}, {what}", unit="ms",
            rounds=tuple(percentile(found.lateness, part) for found in rounds),
            bar=_BARS.get((rate, workers)) if name == "p99" else None, cpu=tuple(found.cpu for found in rounds),
        )  # fmt: skip
    yield Figure(
        name=f"{prefix}.min", title=f"{title}, smallest (none early)", unit="ms",
        rounds=(min(min(found.lateness) for found in rounds),), bar=Bar(limit=0.0),
    )  # fmt: skip
    yield Figure(
        name=f"{prefix}.memory", title=f"{title}, most memory of a worker", unit="MB",
        rounds=tuple(found.memory for found in rounds), bar=_MEMORY,
    )  # fmt: skip


async def measure(
    bench: Bench, rate: int, workers: int, *, precise: bool = False, spread_s: float = _SPREAD_S,
    before: Callable[[Server, Wheel], Awaitable[None]] | None = None,
) -> Found:  # fmt: skip
    """Let so many jobs a second come due for a while, and note how late each starts.

    before: called first, to store jobs that stay where they are.
    """
    jobs = int(rate * spread_s)
    with bench.server() as server:
        async with Wheel(server.url, namespace="zw") as wheel:
            await wheel.set_precise(QUEUE, precise)
            if before is not None:
                await before(server, wheel)
            stay = (await wheel.queue(QUEUE)).scheduled
            first = datetime.now(UTC) + timedelta(seconds=_HEAD_S + jobs / _STORED_S)
            await wheel.enqueue_many(_jobs(wheel, first, rate, jobs))
            where = {RATES: str(server.directory)}
            async with bench.workers(server, wheel, processes=workers, env=where) as processes:
                early = (await wheel.queue(QUEUE)).scheduled < stay + jobs
                meter = CpuMeter(server, [process.pid for process in processes])
                await asyncio.sleep((first - datetime.now(UTC)).total_seconds())
                meter.start()
                await asyncio.sleep((first - datetime.now(UTC)).total_seconds() + spread_s)
                async with asyncio.timeout(60):
                    while (info := await wheel.queue(QUEUE)).scheduled > stay or info.processing:  # noqa: ASYNC110
                        await asyncio.sleep(0.2)
                meter.stop()
                memory = max(_memory(process.pid) for process in processes)
        late = array("f")
        for notes in server.directory.glob("rates.*"):
            late.frombytes(notes.read_bytes())
    if early or len(late) != jobs:
        raise RuntimeError(f"{len(late)} of {jobs} jobs ran{', and the workers came too late' if early else ''}")
    return Found(late.tolist(), memory, meter.take(jobs))


def _jobs(wheel: Wheel, first: datetime, rate: int, jobs: int) -> Iterator[NewJob]:
    for number in range(jobs):
        yield wheel.new_job("steady", args=[PAYLOAD], queue=QUEUE, at=first + timedelta(seconds=number / rate))


def _memory(pid: int) -> float:
    """The most memory that a process had so far, MB; 0 where the system does not tell."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return 0.0
    lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
    return int(lines["VmHWM"].split()[0]) / 1024
