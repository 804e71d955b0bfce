"""People with a command line: they cancel, move, redrive, purge, pause, cap and want precision, over the same operations as the real ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.simulator.actors import DELAYS_S, OFFSETS_MS, drive, timed
from tests.simulator.world import KEYS, QUEUE, Acting, Process, World
from zwheel import calls, operations
from zwheel.broker.store import Steps
from zwheel.calls import Session, day_name
from zwheel.errors import BrokerError
from zwheel.job import JobState
from zwheel.times import DAY_MS


def operator(world: World, process: Process) -> Acting:
    """A person with a command line."""
    decisions = world.decisions
    session = process.session
    while True:
        yield decisions.pick((0.05, 0.5, 0.5, 5.0))
        job_id = decisions.pick(world.ids[-5:]) if world.ids else "a"
        try:
            yield from _act(world, session, job_id)
        except BrokerError:
            world.mark("operator gave up")


def _act(world: World, session: Session, job_id: str) -> Acting:
    decisions = world.decisions
    some = world.ids[-6:] or ["a"]
    steps: Steps[Any]
    match decisions.choose(14):
        case 0:
            steps = operations.cancel(session, job_id, QUEUE)
        case 1:
            steps = _cancel_today(session, some)
        case 9:
            steps = _reschedule_today(session, job_id)
        case 2 | 3:
            at_ms = world.server_us // 1000 + decisions.pick(OFFSETS_MS) if decisions.chance(0.5) else None
            delay_ms = 0 if at_ms is not None else int(1000 * decisions.pick(DELAYS_S))
            steps = operations.reschedule(session, job_id, QUEUE, at_ms, delay_ms)
        case 4 | 5 | 10:
            steps = operations.redrive(session, QUEUE, None if decisions.chance(0.6) else some, None, None)
        case 6 | 11 | 12:
            steps = operations.set_cap(session, QUEUE, decisions.pick((None, 3, None, 2, 8)))
        case 13:
            steps = operations.set_precise(session, QUEUE, decisions.chance(0.5))
        case 7:
            state = decisions.pick((JobState.SCHEDULED, JobState.DONE, JobState.DEAD))
            if decisions.chance(0.3):
                steps = operations.purge_dead(session, QUEUE, some, None, None)
            else:
                steps = operations.purge(session, QUEUE, state, None)
        case _:
            yield from drive(operations.pause(session, QUEUE), decisions)
            yield decisions.pick((1.0, 10.0, 40.0))
            steps = operations.resume(session, QUEUE)
    yield from drive(timed(steps, world), decisions)


def _cancel_today(session: Session, ids: Sequence[str]) -> Steps[str | None]:
    """Cancel many at once, by an old list that says that they are due today."""
    with session.lane() as lane:
        day = day_name(session.clock.now_ms() // DAY_MS)
        (reply,) = yield (calls.cancel(KEYS, list(dict.fromkeys(ids)), day=day, lane=lane),)
    return calls.read_letters(reply)


def _reschedule_today(session: Session, job_id: str) -> Steps[str | None]:
    """Move a job, by an old list that says that it is due today."""
    now_ms = session.clock.now_ms()
    with session.lane() as lane:
        (reply,) = yield (
            calls.reschedule(
                KEYS, job_id, day=day_name(now_ms // DAY_MS), at_ms=None, delay_ms=2_000, now_ms=now_ms, lane=lane
            ),
        )
    return calls.read_reschedule(reply)
