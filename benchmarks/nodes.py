"""nodes: a queue of four shards on three servers beside a queue of one shard on one server.

All of them share the CPUs of this machine, so more servers bring no more CPU. Two things are measured: what a job costs
on both, which tells what more machines would give; and both in slow motion, where each server may use only a part of a
CPU, as if it had a slow machine of its own.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from zwheel import Wheel
from zwheel.keys import ShardKeys, shard_names

from .app import noop_task
from .bench import PAYLOAD, QUEUE, Bench
from .figures import Bar, Cpu, Figure
from .machine import Cluster, CpuMeter, Server, on_cpus

#: Shards and servers. A queue is as fast as the server with most of its shards: of four shards on three servers one has two.
_ARRANGEMENTS = ((1, 1), (4, 3), (6, 3))
#: What each of them has to reach in slow motion, as a multiple of the first one.
_AT_LEAST = {4: 1.8, 6: 2.7}
_JOBS, _SLOW_JOBS, _SHORT_JOBS = 100_000, 60_000, 1_000
_WORKERS = 2
#: How many calls of `enqueue_many` are under way at a time.
_CALLS = 8
_LONGEST_S = 300.0
_LOOK_S = 0.02
#: In slow motion a server runs for 1 ms, and then not until 8 ms are over.
_RUNS_US, _PERIOD_US = 1_000, 8_000


@dataclass(slots=True)
class _Case:
    """One arrangement, and what its rounds found."""

    key: str
    title: str
    shards: int
    servers: int
    bulk: list[float]
    bulk_cpu: list[Cpu]
    drain: list[float]
    drain_cpu: list[Cpu]

    @classmethod
    def of(cls, shards: int, servers: int) -> _Case:
        """The empty case of so many shards on so many servers."""
        title = f"{shards} shard{'s' * (shards > 1)} on {servers} server{'s' * (servers > 1)}"
        return cls(f"{shards}.{servers}", title, shards, servers, [], [], [], [])


async def run(bench: Bench) -> list[Figure]:
    """Measure the arrangements in turns, as they are and in slow motion."""
    figures: list[Figure] = []
    for slow in (False, True):
        if slow and _cgroups() is None:
            bench.say("nodes: no slow motion: this system or user may not limit the CPU of a process (cgroups)")
            break
        cases = [_Case.of(*arrangement) for arrangement in (_ARRANGEMENTS[:2] if bench.short else _ARRANGEMENTS)]
        for number in range(1 if bench.short else bench.rounds):
            for case in cases:
                bench.say(f"nodes: round {number + 1}, {case.title}{', in slow motion' if slow else ''} ...")
                await _measure(bench, case, slow=slow)
        for case in cases:
            figures += _figures(case, cases[0], slow=slow)
    return figures


def _figures(case: _Case, one: _Case, *, slow: bool) -> Iterator[Figure]:
    for what, title, rounds, floor, cpu in (
        ("drain", "drain, 2 worker processes", case.drain, one.drain, case.drain_cpu),
        ("bulk", "enqueue in bulk, 8 calls at a time", case.bulk, one.bulk, case.bulk_cpu),
    ):
        others = case is not one
        yield Figure(
            name=f"nodes.{'slow.' * slow}{case.key}.{what}", unit="jobs/s", rounds=tuple(rounds), cpu=tuple(cpu),
            title=f"{case.title}: {title}{', in slow motion' * slow}",
            floor=tuple(floor) if others else (), floor_title=one.title if others else "",
            bar=Bar(limit=_AT_LEAST[case.shards], of_floor=True) if others and slow else None,
        )  # fmt: skip


async def _measure(bench: Bench, case: _Case, *, slow: bool) -> None:
    jobs = bench.amount(_SLOW_JOBS if slow else _JOBS, _SHORT_JOBS)
    with ExitStack() as stack:
        servers: Server | Cluster
        if case.servers == 1:
            servers = stack.enter_context(bench.server())
        else:
            keys = [ShardKeys.of("zw", name).meta for name in shard_names(QUEUE, case.shards)]
            servers = stack.enter_context(Cluster(bench.program, bench.placement.server, case.servers, keys))
        if slow:
            stack.enter_context(_slow_motion(servers.pids))
        async with Wheel(servers.url, namespace="zw") as wheel:
            await wheel.create_queue(QUEUE, shards=case.shards)
            await wheel.pause(QUEUE)
            async with bench.workers(servers, wheel, processes=_WORKERS) as workers:
                await _fill(wheel, jobs // 10)
                await _empty(wheel)
                await wheel.pause(QUEUE)
                meter = CpuMeter(servers)
                with on_cpus(bench.placement.measured):
                    case.bulk.append(await _timed(meter, _fill(wheel, jobs), jobs))
                case.bulk_cpu.append(meter.take(jobs))
                meter = CpuMeter(servers, [worker.pid for worker in workers])
                case.drain.append(await _timed(meter, _empty(wheel), jobs))
                case.drain_cpu.append(meter.take(jobs))


async def _timed(meter: CpuMeter, work: Awaitable[None], jobs: int) -> float:
    """Jobs a second of a piece of work."""
    meter.start()
    started = time.perf_counter()
    await work
    took = time.perf_counter() - started
    meter.stop()
    return jobs / took


async def _fill(wheel: Wheel, jobs: int) -> None:
    send = noop_task(wheel)
    part = jobs // _CALLS
    await asyncio.gather(
        *(
            wheel.enqueue_many(send.job(PAYLOAD) for _ in range(part if n else jobs - part * (_CALLS - 1)))
            for n in range(_CALLS)
        )
    )


async def _empty(wheel: Wheel) -> None:
    await wheel.resume(QUEUE)
    async with asyncio.timeout(_LONGEST_S):
        while (info := await wheel.queue(QUEUE)).scheduled or info.processing:  # noqa: ASYNC110 - the end is elsewhere
            await asyncio.sleep(_LOOK_S)


def _cgroups() -> Path | None:
    """Where groups of processes with a limit on their CPU can be made; None: nowhere."""
    for where in (Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")):
        limits = where / "cpu.cfs_quota_us", where / "cgroup.subtree_control"
        able = limits[0].exists() or (limits[1].exists() and "cpu" in limits[1].read_text(encoding="ascii").split())
        if able and os.access(where, os.W_OK):
            return where
    return None


@contextmanager
def _slow_motion(pids: Sequence[int]) -> Iterator[None]:
    """Let each of these processes have a small part of a CPU."""
    base = _cgroups()
    assert base is not None, "looked at before"
    groups = []
    try:
        for pid in pids:
            group = Path(tempfile.mkdtemp(prefix="zwb-", dir=base))
            groups.append(group)
            if (group / "cpu.max").exists():
                (group / "cpu.max").write_text(f"{_RUNS_US} {_PERIOD_US}", encoding="ascii")
            else:
                (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US), encoding="ascii")
                (group / "cpu.cfs_quota_us").write_text(str(_RUNS_US), encoding="ascii")
            (group / "cgroup.procs").write_text(str(pid), encoding="ascii")
        yield
    finally:
        for group, pid in zip(groups, pids, strict=False):
            with suppress(OSError):  # it may have ended
                (base / "cgroup.procs").write_text(str(pid), encoding="ascii")
            group.rmdir()
