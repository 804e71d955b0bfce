"""scripts: the longest script, while very many jobs that are due at once are stored and drained by a bare loop.

On a busy machine the time of a script by the clock is mostly that of the neighbours: the server waits for a CPU in the
middle of it. Linux tells of each thread how long it was on a CPU and how long it waited for one. Both are read before
and after each call, when the server has nothing else to do. So a script's own time is known to some µs on any machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import redis

from zwheel import Wheel, calls
from zwheel.broker.store import Commands, Store
from zwheel.calls import Lane, Session, day_name, read_claim
from zwheel.errors import ConfigError
from zwheel.times import DAY_MS

from .bench import PAYLOAD, QUEUE, Bench
from .figures import Bar, Figure, percentile
from .machine import Server, on_cpus

_JOBS, _SHORT_JOBS = 1_000_000, 3_000
_AOF = ("--appendonly", "yes")
_NO_AUTO_REWRITE = ("--auto-aof-rewrite-percentage", "0")
#: What is measured: a name, how many jobs are stored and claimed by a call, and options of the server. A worker with its
#: default settings claims up to 150; `enqueue_many` sends 250.
_CASES: tuple[tuple[str, str, int, int, tuple[str, ...]], ...] = (
    ("default", "default batches", 250, 150, ()),
    ("most", "the largest batches", 1_000, 1_000, ()),
    ("aof", "default batches, append-only file, rewritten meanwhile", 250, 150, (*_AOF, *_NO_AUTO_REWRITE)),
)
_BAR = Bar(limit=10.0, at_least=False)


@dataclass(frozen=True, slots=True)
class _Spent:
    """One call, ms."""

    own: float
    """On a CPU, with the reading of the call and the writing of its answer."""
    waited: float
    """For a CPU."""
    clock: float
    """Inside the script, by the clock."""
    left: int
    """How many jobs there were."""

    @property
    def asleep(self) -> float:
        """Neither on a CPU nor waiting for one: for a lock or a disk."""
        return max(0.0, self.clock - self.own - self.waited)


@dataclass(slots=True)
class _Watch:
    """The server's main thread, from one call to the next."""

    server: Server
    client: redis.Redis
    store: Store
    found: dict[str, list[_Spent]] = field(default_factory=dict)

    async def send(self, name: str, commands: Commands, left: int) -> Any:
        """Send one call and note what it took; its answer."""
        scripts_ms = self._scripts_ms()
        own, waited = self._thread_ms()
        (reply,) = await self.store.send(commands)
        own_after, waited_after = self._thread_ms()
        self.found.setdefault(name, []).append(
            _Spent(own_after - own, waited_after - waited, self._scripts_ms() - scripts_ms, left)
        )
        return reply

    def _thread_ms(self) -> tuple[float, float]:
        """How long it was on a CPU so far, and how long it waited for one."""
        pid = self.server.pid
        own, waited, _ = Path(f"/proc/{pid}/task/{pid}/schedstat").read_text(encoding="ascii").split()
        return int(own) / 1e6, int(waited) / 1e6

    def _scripts_ms(self) -> float:
        stats: Any = self.client.info("commandstats")
        return float(stats.get("cmdstat_evalsha", {"usec": 0})["usec"]) / 1e3


async def run(bench: Bench) -> list[Figure]:
    """Measure each case once. Raises: ConfigError where the system does not tell."""
    if not os.access("/proc/self/schedstat", os.R_OK):
        raise ConfigError("this system does not tell how long a thread was on a CPU (/proc/self/schedstat)")
    figures: list[Figure] = []
    for name, title, chunk, limit, options in _CASES:
        bench.say(f"scripts: {title} ...")
        with bench.server(*options) as server, server.client() as client, on_cpus(bench.placement.measured):
            store = Store(server.url, Session("zw"))
            watch = _Watch(server, client, store)
            jobs = bench.amount(_JOBS, _SHORT_JOBS)
            await _store(watch, jobs, chunk, rewrite=bool(options))
            await _drain(watch, jobs, limit, rewrite=bool(options))
            forked_ms = int(client.info("stats")["latest_fork_usec"]) / 1000
            await store.aclose()
        figures += _figures(name, title, watch)
        if options:
            figures.append(
                Figure(name=f"scripts.{name}.fork", title=f"{title}: the fork", unit="ms", rounds=(forked_ms,))
            )
    return figures


def _figures(name: str, title: str, watch: _Watch) -> Iterator[Figure]:
    for script, found in watch.found.items():
        longest = max(found, key=lambda spent: spent.own)
        own = [spent.own for spent in found]
        yield Figure(
            name=f"scripts.{name}.{script}", title=f"{title}: longest {script}, on the server's CPU", unit="ms",
            rounds=(longest.own,), bar=_BAR,
            note=f"p50 {percentile(own, 0.5):.2f}, p99 {percentile(own, 0.99):.2f}; the longest with {longest.left:,} jobs; by the"
            f" clock {max(s.clock for s in found):.1f}, waited for a CPU {max(s.waited for s in found):.1f},"
            f" asleep {max(s.asleep for s in found):.1f} ms",
        )  # fmt: skip


async def _store(watch: _Watch, jobs: int, chunk: int, *, rewrite: bool) -> None:
    """Store jobs that are due at once, so many a call."""
    session = watch.store.session
    keys = session.keys(QUEUE)
    wheel, due = Wheel(watch.server.url, namespace="zw"), datetime.now(UTC)
    new = (wheel.new_job("noop", args=[PAYLOAD], queue=QUEUE, at=due) for _ in range(jobs))
    stored = 0
    while batch := list(islice(new, chunk)):
        if rewrite and stored <= jobs // 2 < stored + chunk:
            _rewrite(watch.client)
        with session.lane() as lane:
            sent = calls.enqueue(keys, batch, now_ms=session.clock.now_ms(), lane=lane, chunk=True)
        await watch.send("enqueue", (sent.call,), stored)
        stored += len(batch)
    await wheel.aclose()


def _rewrite(client: redis.Redis) -> None:
    """Begin to rewrite the append-only file, after the rewrite that may be under way."""
    while client.info("persistence")["aof_rewrite_in_progress"]:
        time.sleep(0.05)
    client.bgrewriteaof()


async def _drain(watch: _Watch, jobs: int, limit: int, *, rewrite: bool) -> None:
    """Claim and settle them, so many a call."""
    session = watch.store.session
    keys, day, left = session.keys(QUEUE), "", jobs
    if rewrite:
        _rewrite(watch.client)
    while left:
        lane = Lane(session.caller, "claim", session.request())
        day = day or day_name(session.clock.now_ms() // DAY_MS)
        claim = calls.claim(keys, day=day, worker="barebare", lease_ms=600_000, limit=limit, lane=lane)
        claimed = read_claim(await watch.send("claim", (claim,), left))
        day, found = claimed.day, claimed.jobs
        ends: list[tuple[bytes | str, bytes]] = [(found[i], found[i + 1][21:37]) for i in range(0, len(found), 2)]
        if ends:
            lane = Lane(session.caller, "settle", session.request())
            settle = calls.settle(keys, ends, most_dead=0, now_ms=session.clock.now_ms(), lane=lane)
            await watch.send("settle", (settle,), left)
            left -= len(ends)
