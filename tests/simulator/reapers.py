"""Reapers: they take back what the dead held, as a worker's own does, and prune now and then."""

from __future__ import annotations

from typing import Any

from tests.simulator.former import take_back
from tests.simulator.world import KEYS, LEASE_MS, Acting, Process, World
from zwheel import calls
from zwheel.calls import Call
from zwheel.errors import BrokerError
from zwheel.times import DAY_MS
from zwheel.workers.contact import Contact

DEAD_AGE_MS = 10 * DAY_MS


def beat(world: World, process: Process) -> Acting:
    """The heartbeat of a worker that holds nothing."""
    contact = process.contact or world.contact(process)
    while True:
        sent_us = world.time_us
        try:
            yield (calls.extend(KEYS, [], lease_ms=LEASE_MS),)
            contact.heard(sent_us * 1000)
            yield LEASE_MS / 1000 / 3
        except BrokerError:
            contact.lost()
            yield LEASE_MS / 1000 / 15


def reaper(world: World, process: Process, most_dead: int) -> Acting:
    """Takes back jobs whose lease ran out, as the worker's own does, and prunes now and then."""
    decisions = world.decisions
    contact = process.contact or world.contact(process)
    while True:
        try:
            while contact.jumps:
                if _read((yield (_reap(process, most_dead, 0, contact.jumps[0]),)), contact):
                    contact.jumps.popleft()
            yield decisions.pick((5.0, 3.0, 4.0))
            if contact.jumps:
                continue
            if contact.wait_s():
                world.mark("reaper held back")
                # Any answer has a reading of the clock in it.
                yield (calls.extend(KEYS, [], lease_ms=LEASE_MS),)
                continue
            _read((yield (_reap(process, most_dead, decisions.pick((100, 100, 1)), 0),)), contact)
            if world.damage:
                yield from take_back(world)
            if decisions.chance(0.1):
                expected = process.session.clock.now_us()
                yield (calls.prune(KEYS, limit=1000, dead_age_ms=DEAD_AGE_MS, expected_us=expected),)
        except BrokerError:
            contact.lost()


def _read(replies: list[Any], contact: Contact) -> bool:
    """Whether a reap was carried out; what it told of jumps is taken in."""
    reaped = calls.read_reap(replies[0])
    if reaped is not None:
        contact.count(reaped.jumps)
    return reaped is not None


def _reap(process: Process, most_dead: int, limit: int, jumped_ms: int) -> Call:
    clock, contact = process.session.clock, process.contact
    assert contact is not None, "it reaps"
    return calls.reap(
        KEYS, limit=limit, lease_ms=LEASE_MS, most_dead=most_dead, now_ms=max(0, clock.now_ms()),
        expected_us=clock.now_us(), jumped_ms=jumped_ms, jumps=None if jumped_ms else contact.counted,
    )  # fmt: skip
