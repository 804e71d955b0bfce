"""schedules: ten workers whose clocks disagree make each second's occurrence once; ten thousand schedules on one shard.

The clocks of the ten are set wrong by libfaketime where it is installed (Debian: faketime), by up to an hour; lateness is
then taken from the machine's monotonic clock, which all processes share.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

from zwheel import Wheel

from .app import OCCURRENCES
from .bench import QUEUE, Bench
from .figures import Bar, Figure, percentile
from .machine import Server

_WORKERS = 10
_TICKS_S = 120
_MANY = 10_000
_IDLE_S, _FIRING_S = 30.0, 60.0
_LIBRARIES = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
)
_SKEWS = ("+0s", "-2s", "+2s", "-5s", "+5s", "+60s", "-60s", "+3600s", "-3600s", "+0.5s")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


async def run(bench: Bench) -> list[Figure]:
    """Measure both."""
    with bench.server() as server:
        figures = await _skewed(bench, server)
    with bench.server() as server:
        return figures + await _many(bench, server)


def _skew(number: int) -> dict[str, str]:
    """The environment of a process whose clock is wrong; empty where that cannot be done."""
    library = next((path for path in _LIBRARIES if Path(path).exists()), None)
    if library is None:
        return {}
    return {"LD_PRELOAD": library, "FAKETIME": _SKEWS[number % len(_SKEWS)], "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def read_occurrences(directory: Path) -> list[tuple[int, float]]:
    """Each occurrence that ran: its nominal time in ms, and how late it started, ms."""
    offset_ms = (time.time_ns() - time.monotonic_ns()) / 1e6
    found = []
    for path in directory.glob("occurrences.*"):
        for line in path.read_text(encoding="ascii").splitlines():
            nominal, mono_ns = (int(word) for word in line.split())
            found.append((nominal, mono_ns / 1e6 + offset_ms - nominal))
    return found


async def _skewed(bench: Bench, server: Server) -> list[Figure]:
    seconds = 600 if bench.full else _TICKS_S
    async with Wheel(server.url, namespace="zw") as wheel, AsyncExitStack() as stack:
        for number in range(_WORKERS):
            env = {OCCURRENCES: str(server.directory)} | _skew(number)
            await stack.enter_async_context(bench.workers(server, wheel, env=env, cpus=bench.placement.measured))
        await asyncio.sleep(3)
        await wheel.add_schedule(wheel.new_schedule("tick", "* * * * * *", "occurs", queue=QUEUE, keep=60))
        info = await wheel.schedule("tick")
        first = info.state.ahead[0][0]
        await asyncio.sleep(seconds + 2)
        await wheel.remove_schedule("tick")
        await asyncio.sleep(1)
    ran = [(nominal, late) for nominal, late in read_occurrences(server.directory) if nominal < first + seconds * 1000]
    times = Counter(nominal for nominal, _ in ran)
    lateness = [late for _, late in ran]
    doubled = sum(count - 1 for count in times.values())
    skewed = "clocks wrong by up to 1 h" if _skew(0) else "clocks right: no libfaketime here"
    what = f"`* * * * * *`, {_WORKERS} workers, {skewed}"
    return [
        Figure(
            name="schedules.ticks", title=f"{what}: occurrences of {seconds}", unit="", rounds=(float(len(times)),),
            bar=Bar(limit=float(seconds)),
        ),
        Figure(
            name="schedules.doubled", title=f"{what}: run twice", unit="", rounds=(float(doubled),),
            bar=Bar(limit=0.0, at_least=False),
        ),
        Figure(
            name="schedules.p99", title=f"{what}: p99 lateness", unit="ms", rounds=(percentile(lateness, 0.99),),
            bar=Bar(limit=10.0, at_least=False), note=f"p50 {percentile(lateness, 0.5):.1f}, max {max(lateness):.1f} ms",
        ),
        Figure(
            name="schedules.min", title=f"{what}: smallest lateness (none early)", unit="ms", rounds=(min(lateness),),
            bar=Bar(limit=0.0),
        ),
    ]  # fmt: skip


def _cpu_s(process: subprocess.Popen[bytes]) -> float:
    """CPU seconds a process and its children that it forked have used."""
    total = 0.0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(path.parent.name) == process.pid or int(fields[1]) == process.pid:
            total += (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
    return total


async def _many(bench: Bench, server: Server) -> list[Figure]:
    async with Wheel(server.url, namespace="zw") as wheel:
        started = time.monotonic()
        await _declare(wheel, "H H * * *")
        stored_s = time.monotonic() - started
        async with bench.workers(server, wheel, env={OCCURRENCES: str(server.directory)}) as processes:
            await asyncio.sleep(5)
            before, began = _cpu_s(processes[0]), time.monotonic()
            await asyncio.sleep(_IDLE_S)
            idle = (_cpu_s(processes[0]) - before) / (time.monotonic() - began) * 100
            await _declare(wheel, "H H/5 * * * *")
            await asyncio.sleep(12)
            since_ms = time.time() * 1000
            before, began = _cpu_s(processes[0]), time.monotonic()
            await asyncio.sleep(_FIRING_S)
            busy = (_cpu_s(processes[0]) - before) / (time.monotonic() - began) * 100
            until_ms = time.time() * 1000 - 1000
        wanted = 0
        for info in await wheel.schedules(QUEUE):
            wanted += len(info.rhythm().between(int(since_ms), int(until_ms), 1000))
    lateness = [late for nominal, late in read_occurrences(server.directory) if since_ms < nominal <= until_ms]
    what = f"{_MANY:,} schedules"
    rate = len(lateness) / _FIRING_S
    return [
        Figure(
            name="schedules.idle", title=f"{what}, once a day each: CPU of the one worker", unit="% of a core",
            rounds=(idle,), bar=Bar(limit=5.0, at_least=False), note=f"written at {_MANY / stored_s:,.0f}/s",
        ),
        Figure(
            name="schedules.firing", title=f"{what}, {rate:.0f} firing a second: CPU of the one worker",
            unit="% of a core", rounds=(busy,),
        ),
        Figure(
            name="schedules.lost", title=f"{what}: occurrences missing of {wanted:,}", unit="",
            rounds=(float(wanted - len(lateness)),), bar=Bar(limit=0.0, at_least=False),
        ),
        Figure(
            name="schedules.late", title=f"{what}: largest lateness", unit="ms", rounds=(max(lateness),),
            bar=Bar(limit=50.0, at_least=False),
            note=f"p50 {percentile(lateness, 0.5):.1f}, p99 {percentile(lateness, 0.99):.1f} ms",
        ),
    ]  # fmt: skip


async def _declare(wheel: Wheel, line: str) -> None:
    await wheel.sync_schedules(
        [wheel.new_schedule(f"s{n:05d}", line, "occurs", queue=QUEUE, keep=60) for n in range(_MANY)], "bench"
    )
