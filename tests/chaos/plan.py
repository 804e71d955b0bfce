"""Which faults a run meets and when: drawn from its seed before it begins."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Where(StrEnum):
    """What a fault is done to. Faults of one place wait for each other, those of a process do not."""

    PROCESS = "process"
    SERVER = "server"
    NETWORK = "network"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault."""

    name: str
    where: Where
    per_minute: float
    told: str
    """What is done, for the report."""
    rows: str
    """The rows of the fault matrix that it stands for."""


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("worker-kill", Where.PROCESS, 26, "SIGKILL of a worker", "K-07 K-20"),
        Kind("worker-stop", Where.PROCESS, 12, "SIGSTOP of a worker for 1 to 3 leases", "Z-01 Z-03 Z-09"),
        Kind("worker-drain", Where.PROCESS, 5, "SIGTERM of a worker, another is started", "K-13"),
        Kind("worker-abort", Where.PROCESS, 1, "two SIGTERMs of a worker", "K-13"),
        Kind("supervisor-kill", Where.PROCESS, 1, "SIGKILL of a supervisor", "K-22"),
        Kind("producer-kill", Where.PROCESS, 5, "SIGKILL of a producer", "K-01 K-02 K-03"),
        Kind("operator-kill", Where.PROCESS, 1.5, "SIGKILL of the operator's process", "K-23"),
        Kind("redis-kill", Where.SERVER, 2, "SIGKILL of Redis, restart on its AOF", "S-01 S-14"),
        Kind("redis-away", Where.SERVER, 1, "Redis away for more than two leases", "S-02"),
        Kind("redis-stop", Where.SERVER, 2, "SIGSTOP of Redis for up to two leases", "Z-07 S-16"),
        Kind("redis-cut", Where.SERVER, 1, "SIGKILL of Redis and a cut of its AOF's tail", "S-03 S-04"),
        Kind("redis-busy", Where.SERVER, 1, "a foreign script holds Redis", "S-15"),
        Kind("redis-full", Where.SERVER, 2, "maxmemory reached for a moment", "S-10"),
        Kind("script-flush", Where.SERVER, 4, "SCRIPT FLUSH", "S-09"),
        Kind("client-kill", Where.SERVER, 4, "CLIENT KILL of all connections", "S-18"),
        Kind("net-cut", Where.NETWORK, 4, "connections cut", "N-01"),
        Kind("net-lost-request", Where.NETWORK, 4, "a connection cut before a request arrives", "N-01"),
        Kind("net-lost-reply", Where.NETWORK, 5, "a connection cut after a request arrived", "N-01"),
        Kind("net-half-reply", Where.NETWORK, 4, "a connection cut in the middle of a reply", "N-01"),
        Kind("net-refuse", Where.NETWORK, 2, "no way to Redis for up to three leases", "N-06"),
        Kind("net-slow", Where.NETWORK, 2, "each message takes up to 0.4 s longer", "N-03 N-04"),
        Kind("net-one-way", Where.NETWORK, 3, "requests arrive, replies do not", "N-05"),
        Kind("net-freeze", Where.NETWORK, 3, "nothing passes, connections stay open", "N-06 N-09"),
    )
}

#: The same for a cluster: its nodes have no proxy before them, and a node that is stopped is a cut network.
CLUSTER_KINDS: Mapping[str, Kind] = {
    **{kind.name: kind for kind in KINDS.values() if kind.where is Where.PROCESS},
    **{
        kind.name: kind
        for kind in (
            Kind("primary-kill", Where.SERVER, 2, "SIGKILL of a primary, its replica takes over", "L-03 S-06"),
            Kind("replica-kill", Where.SERVER, 1, "SIGKILL of a replica", "S-07"),
            Kind("node-stop", Where.SERVER, 3, "SIGSTOP of a primary for up to two leases", "L-03 Z-07"),
            Kind("slot-move", Where.SERVER, 4, "the slot of a shard moves to another primary", "L-01 L-02"),
            Kind("script-flush", Where.SERVER, 2, "SCRIPT FLUSH on all nodes", "S-09"),
            Kind("client-kill", Where.SERVER, 2, "CLIENT KILL of all connections", "S-18"),
        )
    },
}


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault of a run."""

    at_s: float
    """Seconds after the start of the faults."""
    kind: Kind
    seed: int
    """What its own choices are drawn from: the victim, how long."""


def draw(
    seed: int, duration_s: float, wanted: Mapping[str, int] | None = None, kinds: Mapping[str, Kind] = KINDS
) -> list[Planned]:
    """Draw the faults of a run, in the order of their times.

    wanted: how many of each kind, and none of the others; None: as often as each kind says, and kills of workers at
    least once in three seconds.
    """
    rng = random.Random(f"plan {seed}")
    planned = []
    for kind in kinds.values():
        count = rng_round(rng, kind.per_minute * duration_s / 60) if wanted is None else wanted.get(kind.name, 0)
        if wanted is None and kind.name == "worker-kill":
            count = max(count, int(duration_s / 2.4))
        for number in range(count):
            # Spread over the run, each somewhere in its own part of it.
            share = (number + rng.random()) / count
            planned.append(Planned(duration_s * (0.03 + 0.92 * share), kind, rng.getrandbits(32)))
    return sorted(planned, key=lambda one: one.at_s)


def rng_round(rng: random.Random, amount: float) -> int:
    """Round up or down at random, so that the mean is the amount."""
    return int(amount) + (rng.random() < amount % 1)
