"""A fleet that spares, of which one worker has room: does it find the jobs that all others would wait for?"""

from __future__ import annotations

import asyncio
import random
from unittest.mock import patch

from tests.simulator.run import silent
from tests.simulator.virtual import Times, in_virtual_time
from tests.simulator.waiting import LOOK_S, MANY, SPARE_KNOWN_S, TASKS, SimWorker, World, enqueue
from tests.simulator.wire import Server
from zwheel.keys import ShardKeys
from zwheel.workers import fleet


def all_but_one_full(server: Server) -> list[float]:
    """A fleet that spares, of which one worker has room: how late a job starts on each shard, seconds; at most ten minutes."""
    times, rng = Times(), random.Random(1)
    with silent(), in_virtual_time(times, rng) as loop:
        world = World(server, times, rng)
        world.queues, world.in_parts = tuple(MANY), True
        with world.listening(), patch.object(fleet, "ALL_WAIT", 1):
            return loop.run_until_complete(_all_but_one_full(world))


async def _all_but_one_full(world: World) -> list[float]:
    world.workers = [SimWorker(world, f"worker{number:02d}", world.queues, TASKS, 1) for number in range(12)]
    for worker in world.workers:
        worker.start()
    await asyncio.sleep(SPARE_KNOWN_S)
    number = 0
    while sum(worker.slots.room() for worker in world.workers) > 1:
        number += 1
        enqueue(world, f"long-{number:02d}", world.queues[number % len(MANY)], 0, 3600.0)
        await asyncio.sleep(1.0)
    late = []
    for queue in world.queues:
        number += 1
        job = f"job-{number:02d}"
        enqueue(world, job, queue, 0, 0.01)
        since = world.times.now
        keys = ShardKeys.of("zw", queue)
        for _ in range(round(600 / LOOK_S)):
            await asyncio.sleep(LOOK_S)
            if not world.server.plain([("HEXISTS", keys.jobs, job)])[0]:
                break
        late.append(world.times.now - since)
    for worker in world.workers:
        await worker.die()
        worker.stop()
    return late
