"""The crowd keeps the rules of the real pollers and scripts: a small one asks as often as they do, and a large one is in time."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import pytest

from zwheel import calls
from zwheel.calls import Call, NewJob, Session
from zwheel.job import JobId, QueueName
from zwheel.keys import ShardKeys, shard_names
from zwheel.payload.codec import DEFAULT
from zwheel.record import record_tail
from zwheel.workers import fleet

from . import waiting
from .conftest import Connect
from .crowd import DELAYS_S, Crowd, Plan
from .run import silent
from .virtual import Times, in_virtual_time
from .wire import Command, Server

SECONDS, JOBS_S = 90.0, 4.0


class Counting(waiting.World):
    """A world that counts what its workers ask."""

    def __init__(self, server: Server, times: Times, rng: random.Random) -> None:
        super().__init__(server, times, rng)
        self.commands: Counter[str] = Counter()

    def execute(self, commands: Sequence[Command]) -> list[Any]:
        for command in commands:
            if isinstance(command, Call):
                # One call looks at several shards.
                self.commands[command.script.name] += len(command.args) - 1 if command.script.name == "look" else 1
        return super().execute(commands)


async def real(world: Counting, workers: int, shards: list[str]) -> None:
    """Real pollers and scripts: nobody dies, and jobs come as in the crowd."""
    for number in range(workers):
        worker = waiting.SimWorker(world, f"worker{number:02d}", tuple(shards), waiting.TASKS, 10)
        world.workers.append(worker)
        worker.start()
    session, rng = Session("zw", "producer"), world.rng
    ends, number = world.times.now + SECONDS, 0
    while world.times.now < ends:
        await asyncio.sleep(rng.expovariate(JOBS_S))
        number += 1
        job = NewJob(
            job_id=JobId(f"job-{number:04d}"), queue=QueueName("b"), at_ms=None, delay_ms=int(rng.choice(DELAYS_S) * 1000),
            tail=record_tail("red", max_attempts=4), body=DEFAULT.encode([0.0], {}, context=b""),
        )  # fmt: skip
        with session.lane() as lane:
            keys = ShardKeys.of("zw", rng.choice(shards))
            world.execute([calls.enqueue(keys, [job], now_ms=world.times.us // 1000, lane=lane).call])
    for worker in world.workers:
        await worker.die()
        worker.stop()


@pytest.mark.parametrize(
    ("workers", "shards", "spares"), [(3, 1, False), (12, 1, False), (12, 4, False), (12, 8, True), (30, 12, True)]
)
def test_a_small_crowd_asks_as_often_as_real_pollers(
    workers: int, shards: int, connect: Connect, *, spares: bool
) -> None:
    times, rng = Times(), random.Random(workers)
    with silent(), in_virtual_time(times, rng) as loop:
        world = Counting(connect("valkey"), times, rng)
        world.in_parts = spares
        with world.listening(), patch.object(fleet, "ALL_WAIT", 1):
            loop.run_until_complete(real(world, workers, shard_names("b", shards)))
    plan = Plan(
        workers=workers,
        shards=shards,
        waits=shards,
        spares=spares,
        jobs_s=JOBS_S,
        seconds=SECONDS,
        kill_at_s=SECONDS,
        kill_part=0,
    )
    crowd = Crowd(plan).run().commands
    ours, theirs = (
        crowd["claim"] + crowd["look"] + crowd["follower's look"],
        world.commands["claim"] + world.commands["look"],
    )
    assert 0.7 * theirs < ours < 1.4 * theirs
