"""budget: what a job costs: commands, bytes, memory, turns of the event loop, and CPU time by layer.

Each piece of work runs three times in a thread with an event loop of its own: as it is, which gives all figures but two; under
cProfile with the thread's CPU clock, which gives the shares of the layers; and under tracemalloc, which gives the memory.
"""

from __future__ import annotations

import asyncio
import cProfile
import pstats
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import redis

from zwheel import JobState, Wheel
from zwheel.workers import Worker, WorkerSettings

from .bench import PAYLOAD, QUEUE, Bench
from .figures import Figure
from .machine import Server, on_cpus

_ONE_JOBS = 4_000
_BULK_JOBS = 20_000
_BULK_BATCH = 5_000
_DRAIN_JOBS = 20_000
_WARM_JOBS = 2_000

#: Part of a file's path -> layer; the first that fits. What fits none is "other".
_LAYERS = (
    ("/workers/", "worker"),
    ("/broker/", "connection"),
    ("/redis/", "connection"),
    ("/hiredis/", "connection"),
    ("/msgpack/", "encoding"),
    ("/payload/", "encoding"),
    ("/calls/", "encoding"),
    ("/zwheel/", "client"),
    ("/asyncio/", "event loop"),
    ("selectors.py", "event loop"),
)


class _Loop(asyncio.SelectorEventLoop):
    """Counts its turns."""

    turns = 0

    def _run_once(self) -> None:
        self.turns += 1
        super()._run_once()  # type: ignore[misc]


class _Probe:
    """Reads all counters at the start and at the end of a stretch of work."""

    def __init__(self, server: redis.Redis, kind: str) -> None:
        self._server = server
        self._kind = kind
        self.profile = cProfile.Profile(time.thread_time)
        self.spent: dict[str, float] = {}
        self._before: dict[str, float] = {}

    def start(self) -> None:
        """Begin, from inside the event loop."""
        self._before = self._read()
        if self._kind == "memory":
            tracemalloc.start()
        elif self._kind == "profile":
            self.profile.enable()

    def stop(self) -> None:
        """End."""
        self.profile.disable()
        peak = float(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        now = self._read()
        self.spent = {name: now[name] - before for name, before in self._before.items()} | {"peak": peak}

    def _read(self) -> dict[str, float]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, _Loop)
        stats, cpu, calls = (self._server.info(part) for part in ("stats", "cpu", "commandstats"))
        script = calls.get("cmdstat_evalsha", {"calls": 0, "usec": 0})
        return {
            "bytes to Redis": stats["total_net_input_bytes"], "bytes from Redis": stats["total_net_output_bytes"],
            "commands, with those inside scripts": stats["total_commands_processed"], "calls of scripts": script["calls"],
            "turns of the event loop": loop.turns, "blocks left behind": sys.getallocatedblocks(), "script": script["usec"] / 1e6,
            "server": cpu["used_cpu_user"] + cpu["used_cpu_sys"], "own": time.thread_time(), "wall": time.perf_counter(),
        }  # fmt: skip


_Work = Callable[[str, _Probe], Awaitable[int]]


@dataclass(slots=True)
class _Budget:
    """The figures of one piece of work, each for one job."""

    name: str
    title: str
    found: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def add(self, name: str, unit: str, value: float) -> None:
        """Note what one round found."""
        self.found.setdefault((name, unit), []).append(value)

    def figures(self) -> Iterator[Figure]:
        """All of them."""
        for (name, unit), rounds in self.found.items():
            slug = name.replace(",", "").replace(":", "").replace(" ", "_")
            yield Figure(
                name=f"budget.{self.name}.{slug}", title=f"{self.title}: {name}", unit=unit, rounds=tuple(rounds)
            )


async def run(bench: Bench) -> list[Figure]:
    """Measure enqueueing one by one and in bulk, and draining."""
    works: tuple[tuple[str, str, _Work], ...] = (
        ("one", "a job enqueued alone", _one), ("bulk", "a job enqueued in bulk", _bulk), ("drain", "a job drained", _drain),
    )  # fmt: skip
    figures: list[Figure] = []
    for name, title, work in works:
        budget = _Budget(name, title)
        for _ in range(bench.rounds):
            with bench.server() as server, server.client() as client:
                await asyncio.to_thread(_round, bench, server, client, work, budget)
        figures += budget.figures()
    return figures


def _round(bench: Bench, server: Server, client: redis.Redis, work: _Work, budget: _Budget) -> None:
    """One round of one piece of work, in a thread."""

    def once(kind: str) -> tuple[_Probe, int]:
        probe = _Probe(client, kind)
        with on_cpus(bench.placement.measured), asyncio.Runner(loop_factory=_Loop) as runner:
            jobs = runner.run(_awaited(work(server.url, probe)))
        return probe, jobs

    plain, jobs = once("plain")
    spent = {name: value / jobs for name, value in plain.spent.items()}
    for name in (
        "calls of scripts",
        "commands, with those inside scripts",
        "turns of the event loop",
        "blocks left behind",
    ):
        budget.add(f"{name}, for 1,000 jobs", "", spent[name] * 1000)
    for name in ("bytes to Redis", "bytes from Redis"):
        budget.add(name, "bytes", spent[name])
    memory, _ = once("memory")
    budget.add("memory of all that is under way, at its peak", "bytes", memory.spent["peak"])
    for name, title in (
        ("wall", "by the clock"),
        ("own", "CPU, own"),
        ("server", "CPU, server"),
        ("script", "inside scripts"),
    ):
        budget.add(title, "µs", spent[name] * 1e6)
    profiled, _ = once("profile")
    for layer, share in _shares(profiled.profile).items():
        budget.add(f"CPU, own: {layer}", "µs", share * spent["own"] * 1e6)


async def _awaited(work: Awaitable[int]) -> int:
    return await work


def _shares(profile: cProfile.Profile) -> dict[str, float]:
    """Which part of the profiled CPU time each layer took. What is written in C counts for the layer that called it."""
    found = dict.fromkeys([*dict.fromkeys(layer for _, layer in _LAYERS), "other"], 0.0)
    stats: dict[
        tuple[str, int, str], tuple[int, int, float, float, dict[tuple[str, int, str], tuple[int, int, float, float]]]
    ]
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    for (path, _, _), (_, _, own, _, callers) in stats.items():
        if path != "~":
            found[_layer(path)] += own
            continue
        for (caller, _, _), (_, _, part, _) in callers.items():
            found[_layer(caller)] += part
    total = sum(found.values())
    return {layer: seconds / total for layer, seconds in found.items()}


def _layer(path: str) -> str:
    return next((layer for part, layer in _LAYERS if part in Path(path).as_posix()), "other")


async def _one(url: str, probe: _Probe) -> int:
    async with Wheel(url, namespace="zw") as wheel:
        enqueue = wheel.task(name="noop", queue=QUEUE)(_noop).enqueue
        for _ in range(_WARM_JOBS):
            await enqueue(PAYLOAD)
        probe.start()
        for _ in range(_ONE_JOBS):
            await enqueue(PAYLOAD)
        probe.stop()
    return _ONE_JOBS


async def _bulk(url: str, probe: _Probe) -> int:
    async with Wheel(url, namespace="zw") as wheel:
        job = wheel.task(name="noop", queue=QUEUE)(_noop).job
        await wheel.enqueue_many(job(PAYLOAD) for _ in range(_BULK_BATCH))
        probe.start()
        for _ in range(0, _BULK_JOBS, _BULK_BATCH):
            await wheel.enqueue_many(job(PAYLOAD) for _ in range(_BULK_BATCH))
        probe.stop()
    return _BULK_JOBS


async def _drain(url: str, probe: _Probe) -> int:
    """One worker in this thread, from one job to another in the middle of a long queue."""
    ran = 0
    async with Wheel(url, namespace="zw") as wheel:

        @wheel.task(name="noop", queue=QUEUE)
        async def noop(text: str) -> None:
            nonlocal ran
            ran += 1
            if ran == _WARM_JOBS:
                probe.start()
            elif ran == _WARM_JOBS + _DRAIN_JOBS:
                probe.stop()
                worker.stop()

        await wheel.enqueue_many(noop.job(PAYLOAD) for _ in range(_WARM_JOBS + _DRAIN_JOBS + _WARM_JOBS))
        worker = Worker(wheel, WorkerSettings(queues=(QUEUE,)))
        await worker.run()
        await wheel.purge(QUEUE, JobState.SCHEDULED)
    return _DRAIN_JOBS


async def _noop(text: str) -> None:
    """Never run: only its name and signature are used."""
