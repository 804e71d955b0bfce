"""A model of zwheel at any size: how much memory, CPU, servers and connections so many jobs and workers take.

    python -m benchmarks.model              the tables of docs/scale.md
    python -m benchmarks scale nodes        what of it can be measured here, beside what the model says

It has two kinds of numbers. What a script costs was measured, and stands in `Costs`. What lies in memory and who looks
when is calculated, from how Redis keeps a hash and a sorted set and from the rules in `workers/looks.py`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from zwheel.record import record_tail
from zwheel.workers import fleet, looks
from zwheel.workers.settings import WorkerSettings

#: Characters of an id that zwheel makes, and what of a record comes before its tail: version, state, attempt, time, token.
_ID, _FIXED = 26, 37
#: What an encoded argument adds to 100 bytes of text.
_ENVELOPE = 7
#: Part of the nodes of a skip list that have one level, two, and so on: each further one has a quarter of those.
_LEVELS = [0.75 * 0.25**level for level in range(8)]
_MIB, _GIB = 2**20, 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """CPU time of one job, µs, and what a worker holds. `python -m benchmarks nodes budget` measures those of a machine.

    These are of six shards on three servers, where batches are smaller and a job costs more than with one server.
    """

    alone_us: float = 53.0
    """Of the server, for a job that is enqueued alone."""
    bulk_us: float = 5.0
    """Of the server, for a job that is enqueued with many others in one call."""
    drain_us: float = 7.0
    """Of the server, for a job that is claimed and settled among many."""
    worker_us: float = 8.4
    """Of the worker, for a job that does nothing."""
    look_us: float = 15.0
    """Of the server, for one look at a shard: six reads, in a script that looks at many."""
    connections: int = 6
    """Of a worker to one server. On a cluster four to each node, and one for each shard."""
    busy: float = 0.6
    """How much of a CPU may be used, so that jobs that come together are no later than they have to be."""


COSTS = Costs()


def size_class(size: int, quantum: int = 16) -> int:
    """How much the allocator of Redis gives for so many bytes: jemalloc's classes, as Debian builds it (quantum 16)."""
    if size <= 128:
        return max(8, -(-size // quantum) * quantum)
    step: int = 2 ** ((size - 1).bit_length() - 3)
    return -(-size // step) * step


def text_size(length: int) -> int:
    """What a text takes: its header, a zero at its end, and what the allocator adds."""
    return size_class(length + (2 if length < 32 else 4 if length < 252 else 6))


def table_size(entries: int) -> int:
    """The table of a dictionary: the next power of two, and the one before while entries still move from there.

    With each entry that comes three others move, since its job is looked up first.
    """
    table: int = 2 ** max(2, (entries - 1).bit_length())
    old = table // 2 if 3 * (entries - table // 2) < table // 2 else 0
    return 8 * (table + old)


def job_bytes(jobs: int, text: int = 100, *, task: str = "noop", days: int = 1) -> float:
    """Memory of each of so many waiting jobs of one shard, with one argument of so many bytes, due over so many days.

    Redis 7.0. A job is an entry of the hash `jobs` and a member of the sorted set of its day. Example: 100,000 jobs with
    100 bytes take 32 + 192 bytes as texts of the hash, 32 as its entry, 32 + 32 + 53 in the sorted set, 21 in tables.
    """
    record = _FIXED + len(record_tail(task, max_attempts=11)) + text + _ENVELOPE
    entry = size_class(24)
    node = sum(part * size_class(24 + 16 * (level + 1)) for level, part in enumerate(_LEVELS))
    a_day = max(1, jobs // days)
    tables = table_size(jobs) / jobs + table_size(a_day) / a_day
    return 2 * text_size(_ID) + text_size(record) + 2 * entry + node + tables


def looks_s(workers: int, shards: int) -> float:
    """How often idle workers look at a shard of a queue, a second: all of them at all of its shards."""
    often = workers if workers <= fleet.FEW else 2 + fleet.WATCHERS
    return shards * ((workers - often) / _follower_s(workers) + often / looks.BACKSTOP_S)


def _follower_s(workers: int) -> float:
    """How long a follower rests that watches no shard: until the last beat before its time, so half a beat less."""
    least, most = looks.FOLLOWER_BACKSTOP_S
    return min(most, max(least, looks.FOLLOWERS_LOOK_S * max(1, workers))) - looks.BACKSTOP_S / 2


def look_commands_s(workers: int, shards: int) -> float:
    """How many commands a second these looks are: a worker sends one for all shards that it looks at on one beat."""
    keepers = min(2, workers)
    others = workers - keepers
    if not others:
        return keepers / looks.BACKSTOP_S
    watching = others if workers <= fleet.FEW else fleet.WATCHERS
    seen = shards * (watching + (others - watching) * looks.BACKSTOP_S / _follower_s(workers)) / others
    return (keepers + others * (1 - math.exp(-seen))) / looks.BACKSTOP_S


def beats_s(workers: int) -> float:
    """How often workers write their row in the list of workers, a second."""
    return workers * 1000 / WorkerSettings().beat_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What so many jobs a second, and so many that wait, take."""

    jobs_s: float
    pending: int
    memory: float
    """Of all waiting jobs, bytes."""
    alone: float
    """CPUs of servers when each job is enqueued alone."""
    bulk: float
    """CPUs of servers when jobs are enqueued in bulk."""
    servers: int
    """Servers, one CPU each, in bulk: as many as the CPU or the memory needs."""
    by: str
    """Which of the two decides."""
    workers: int
    """Worker processes, for jobs that do nothing."""


def need(jobs_s: float, pending: int, *, server_gib: float = 48, costs: Costs = COSTS) -> Need:
    """Calculate it. server_gib: how much of a server's memory jobs may take; as much again is for a fork's copies."""
    alone = jobs_s * (costs.alone_us + costs.drain_us) / 1e6 / costs.busy
    bulk = jobs_s * (costs.bulk_us + costs.drain_us) / 1e6 / costs.busy
    # A shard of 10 million jobs of 30 days stands for all: how many there are changes a job's part of the tables little.
    memory = pending * job_bytes(min(pending, 10_000_000), days=30)
    by_memory = memory / (server_gib * _GIB)
    return Need(
        jobs_s=jobs_s, pending=pending, memory=memory, alone=alone, bulk=bulk, servers=max(1, _up(max(bulk, by_memory))),
        by="memory" if by_memory > bulk else "CPU", workers=max(1, _up(jobs_s * costs.worker_us / 1e6 / costs.busy)),
    )  # fmt: skip


def _up(value: float) -> int:
    return int(-(-value // 1))


def _amount(size: float) -> str:
    return f"{size / _GIB:,.1f} GiB" if size >= 0.95 * _GIB else f"{size / _MIB:,.0f} MiB"


def _table(heads: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def needs_table() -> str:
    """What growing queues need, as a table of docs/scale.md."""
    found = [need(10.0**n, 10**m) for n, m in ((3, 6), (4, 7), (5, 8), (6, 9), (6, 10))]
    return _table(
        ["jobs a second", "waiting", "memory", "server CPUs, enqueued alone", "in bulk", "servers, in bulk", "worker processes"],
        (
            [
                f"{one.jobs_s:,.0f}", f"{one.pending:,}", _amount(one.memory), f"{one.alone:,.1f}", f"{one.bulk:,.2f}",
                f"{one.servers:,} ({one.by})", f"{one.workers:,}",
            ]
            for one in found
        ),
    )  # fmt: skip


def waiting_table() -> str:
    """What idle workers ask, and hold open, as a table of docs/scale.md."""
    cases = ((10, 1, 1), (100, 1, 1), (100, 1, 64), (1_000, 1, 16), (10_000, 1, 1_000), (10_000, 50, 20))

    def row(workers: int, queues: int, shards: int) -> list[str]:
        asked = queues * looks_s(workers // queues, shards)
        sent = queues * look_commands_s(workers // queues, shards)
        return [
            f"{workers:,}", f"{queues:,}, {shards:,}", f"{sent:,.0f}", f"{asked:,.0f}", f"{beats_s(workers):,.0f}",
            f"{asked * COSTS.look_us / 1e6:,.2f}", f"{workers * COSTS.connections:,}",
        ]  # fmt: skip

    return _table(
        [
            "workers", "queues, shards of each", "looks sent a second", "shards seen by them", "rows written a second",
            "CPUs for looks", "connections, one server",
        ],
        (row(*case) for case in cases),
    )  # fmt: skip


def main() -> None:
    """Print the tables."""
    sys.stdout.write(f"{needs_table()}\n{waiting_table()}")


if __name__ == "__main__":
    main()
