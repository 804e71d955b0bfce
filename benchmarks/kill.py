"""kill: from the SIGKILL of a worker to the second start of the job that it was running."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

from zwheel import Wheel

from .app import STARTS
from .bench import QUEUE, Bench
from .figures import Bar, Figure
from .machine import end

#: Lease and reaper interval, ms: scaled down, and the defaults (only with --full, for they take 35 s).
_SCALED = (2_000, 500)
_DEFAULT = (30_000, 5_000)
_LONGEST_S = 90.0


async def run(bench: Bench) -> list[Figure]:
    """Measure with a lease of 2 s and, with --full, with the default of 30 s."""
    lease, reap = _SCALED
    taken = [await _second_start(bench, lease, reap) for _ in range(bench.rounds)]
    figures = [
        Figure(
            name="kill.scaled",
            title="SIGKILL to second start, lease 2 s",
            unit="s",
            rounds=tuple(taken),
            bar=Bar(limit=(lease + reap) / 1000 + 1, at_least=False),
        )
    ]
    if bench.full:
        lease, reap = _DEFAULT
        figures.append(
            Figure(
                name="kill.default",
                title="SIGKILL to second start, lease 30 s",
                unit="s",
                rounds=(await _second_start(bench, lease, reap),),
                bar=Bar(limit=(lease + reap) / 1000 + 1, at_least=False),
            )
        )
    return figures


async def _second_start(bench: Bench, lease_ms: int, reap_ms: int) -> float:
    settings = ("--lease", f"{lease_ms}ms", "--reap", f"{reap_ms}ms", "--drain", "1s")
    with bench.server() as server:
        notes = server.directory / "starts"
        async with Wheel(server.url, namespace="zw") as wheel:
            env = {STARTS: str(notes)}
            async with bench.workers(server, wheel, env=env, settings=settings) as (first,):
                await wheel.enqueue("hold", queue=QUEUE)
                await _starts(notes, 1)
                async with bench.workers(server, wheel, env=env, settings=settings):
                    killed = time.time_ns()
                    end(first, signal.SIGKILL)
                    second = (await _starts(notes, 2))[1]
    return (second - killed) / 1e9


async def _starts(notes: Path, count: int) -> list[int]:
    """Wait until the job started `count` times; each start in ns since the epoch."""
    async with asyncio.timeout(_LONGEST_S):
        while True:
            lines = await asyncio.to_thread(_lines, notes)
            if len(lines) >= count:
                return [int(line.split()[1]) for line in lines]
            await asyncio.sleep(0.02)


def _lines(notes: Path) -> list[str]:
    return notes.read_text(encoding="utf-8").splitlines() if notes.exists() else []
