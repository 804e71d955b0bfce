"""A worker of a former version sets aside what it cannot read, and a worker of this one takes it back.

Only in runs about damage, beside which no model runs. A job that is aside is not judged; once it is back all that follows
is (`life.py`).
"""

from __future__ import annotations

from typing import Any

from tests.simulator.world import KEYS, QUEUE, Acting, World
from zwheel import calls
from zwheel.calls import Call
from zwheel.job import JobId, QueueName
from zwheel.record import read_record
from zwheel.times import DAY_MS, day_of


def set_aside(world: World) -> None:
    """A claim or a reap of a former version meets a record that it cannot read, as one script."""
    judge, now_ms = world.judge, world.server_us // 1000
    met = [
        job_id
        for job_id, life in judge.lives.items()
        if job_id.startswith("g") and job_id in world.acked and not life.damaged
        if (life.state == "s" and life.fire <= now_ms) or (life.state == "p" and life.lease_until <= now_ms)
    ]
    if not met:
        return
    # Those whose holder may come back are rare, and more can go wrong with them.
    job_id = world.decisions.pick([i for i in met if judge.lives[i].state == "p"] or met)
    life = judge.lives[job_id]
    place = KEYS.processing if life.state == "p" else KEYS.wheel(day_of(life.fire))
    world.backend.run([("ZADD", KEYS.dead, "NX", now_ms, job_id), ("ZREM", place, job_id)])
    life.damaged = life.aside = True
    world.say("former worker", f"sets {job_id} aside, which is {life.state}")
    world.mark("set aside")


def take_back(world: World) -> Acting:
    """What a worker does with what came into the dead set."""
    (ids,) = yield (("ZRANGE", KEYS.dead, 0, -1),)
    if not ids:
        return
    now_ms = max(0, world.server_us // 1000)
    first = _place(ids, day_of(now_ms), day_of(max(0, now_ms - DAY_MS)))
    (reply,) = yield (first,)
    for job_id, letter in zip(ids, calls.read_repair(first, reply).jobs, strict=True):
        if letter == "m":
            (raw,) = yield (("HGET", KEYS.jobs, job_id),)
            if raw:
                yield (_place([job_id], day_of(read_record(JobId(job_id.decode()), QueueName(QUEUE), raw).fire_at_ms)),)


def take_all_back(world: World) -> None:
    """The same at the end of a run, when nothing goes wrong any more."""
    steps = take_back(world)
    replies: Any = None
    while True:
        try:
            ask = steps.send(replies)
        except StopIteration:
            return
        assert not isinstance(ask, float)
        replies = world.execute(ask, "drain")


def _place(ids: list[bytes], *days: str) -> Call:
    return calls.repair(KEYS, days=days, ids=ids, mend=False, place=True)
