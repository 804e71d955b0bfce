"""Who acts on schedules: workers that advance them, two at a time, and a person who writes, stops and deletes them."""

from __future__ import annotations

from typing import Any

from tests.simulator.actors import drive, persist, timed
from tests.simulator.world import KEYS, QUEUE, Acting, Process, World
from zwheel import calls
from zwheel.broker.store import Steps
from zwheel.client.declare import make_definition
from zwheel.errors import BrokerError, ScheduleNotFound
from zwheel.operations import schedules as ops
from zwheel.operations.late import give_back
from zwheel.operations.occurrence import advance_of
from zwheel.payload.codec import DEFAULT
from zwheel.schedules.definition import Definition
from zwheel.schedules.plan import plan
from zwheel.schedules.state import Status, read_schedule

NAMES = ("tick", "tock")


def scheduler(world: World, process: Process) -> Acting:
    """Advances what it reads, and is often too late with it."""
    decisions = world.decisions
    while True:
        yield decisions.pick((2.0, 1.0, 0.3, 9.0))
        try:
            name = decisions.pick(NAMES)
            (raw,) = yield from persist([("HGET", KEYS.schedules, name)], decisions)
            if raw is None:
                continue
            info = read_schedule(raw)
            if info.status is not Status.ACTIVE and not decisions.chance(0.3):
                continue
            now_ms = world.server_us // 1000  # asked for together with the record
            if decisions.chance(0.5):
                yield from drive(timed(give_back(process.session, QUEUE, name, {}), world), decisions)
            call = calls.advance(KEYS, [advance_of(info, DEFAULT, plan(info.definition, info.state, now_ms))])
            yield decisions.pick((0.0, 0.0, 0.3))
            yield from persist([call], decisions)
        except BrokerError:
            world.mark("scheduler gave up")


def tender(world: World, process: Process) -> Acting:
    """Writes schedules, pauses, resumes, triggers and deletes them."""
    decisions, session = world.decisions, process.session
    yield 0.2
    while True:
        name = decisions.pick(NAMES)
        steps: Steps[Any]
        match decisions.choose(7):
            case 0 | 1 | 2:
                steps = ops.add_schedule(session, DEFAULT, _definition(world, name), True)
            case 3:
                steps = ops.pause_schedule(session, DEFAULT, name, QUEUE)
            case 4:
                steps = ops.resume_schedule(session, DEFAULT, name, QUEUE, decisions.chance(0.5))
            case 5:
                steps = ops.trigger_schedule(session, DEFAULT, name, QUEUE)
            case _:
                steps = ops.remove_schedule(session, name, QUEUE)
        try:
            yield from drive(timed(steps, world), decisions)
        except BrokerError:
            world.mark("tender gave up")
        except ScheduleNotFound:
            pass
        yield decisions.pick((2.0, 0.5, 9.0, 30.0))


def _definition(world: World, name: str) -> Definition:
    decisions = world.decisions
    return make_definition(
        {}, DEFAULT, name, decisions.pick(("*/2 * * * * *", "*/5 * * * * *", "@every 7s", "0 * * * *")), "mail.send",
        queue=QUEUE, retries=2, keep=60, overlap=decisions.pick(("allow", "buffer_one", "skip")),
        misfire=decisions.pick(("fire_once", "skip", "fire_all")), misfire_limit=5, grace=decisions.pick((60, 0)),
        jitter=decisions.pick((0, 0, 4)), args=["x" * 1500] if name == "tock" else [],
    )  # fmt: skip
