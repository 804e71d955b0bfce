"""Occurrences that no worker started in time go back to their schedule, which decides by its misfire policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from zwheel import calls
from zwheel.broker.store import Steps
from zwheel.calls import Session
from zwheel.calls.advance import After
from zwheel.calls.define import Late
from zwheel.errors import BrokerRefused
from zwheel.schedules.definition import occurrence_id
from zwheel.schedules.plan import furthest_ms, late_after_ms
from zwheel.schedules.state import ScheduleInfo, Status, given_back, read_schedule, schedule_tail

_TRIES = 50


class GivenBack(NamedTuple):
    """What became of the occurrences that a worker holds."""

    gone: frozenset[int]
    """Nominal times of occurrences that the worker holds no more: the schedule has them again, or another worker."""
    early: frozenset[int]
    """Nominal times of occurrences that may start, by the server's clock."""
    schedule: bool = True
    """Whether the schedule is there."""
    waited: bool = False
    """Whether some that waited on the wheel are the schedule's again."""


def late_ones(info: ScheduleInfo, now_ms: int) -> list[tuple[int, int]]:
    """Nominal and fire times of occurrences on the wheel that may not start any more, if they still wait there.

    Also of occurrences put there while the server's clock was ahead: a schedule that may not overlap would wait for them.
    """
    furthest = furthest_ms(info.definition, now_ms)
    return [
        (at, fire) for at, fire in info.state.ahead
        if late_after_ms(info.definition, fire) < now_ms or at > furthest
    ]  # fmt: skip


def give_back(session: Session, shard: str, name: str, held: Mapping[int, Late]) -> Steps[GivenBack]:
    """Give late occurrences back to their schedule: occurrences that a worker holds, and all late ones that wait on the wheel.

    Where they are told together, a policy such as "the newest one runs" is decided over all of them. Safe to repeat.
    held: by nominal time. Raises: UndecodableJob, when this version cannot read the schedule.
    """
    keys = session.keys(shard)
    early: set[int] = set()
    for _ in range(_TRIES):
        raw, clock = yield (("HGET", keys.schedules, name), ("TIME",))
        if raw is None:
            return GivenBack(frozenset(), frozenset(early), schedule=False)
        info = read_schedule(raw, name, keys.queue)
        now_ms = int(clock[0]) * 1000 + int(clock[1]) // 1000
        waiting = [pair for pair in late_ones(info, now_ms) if pair[0] not in held]
        ids = [*(late.id for late in held.values()), *(occurrence_id(name, at) for at, _ in waiting)]
        (records,) = (yield (("HMGET", keys.jobs, *ids),)) if ids else ([],)
        mine = {
            at for (at, late), record in zip(held.items(), records[: len(held)], strict=True) if _held(record, late)
        }
        waits = [pair for pair, record in zip(waiting, records[len(held) :], strict=True) if _waits(record, pair[1])]
        times = [*(mine - early), *(at for at, _ in waits)]
        if not times:
            return GivenBack(frozenset(held) - mine, frozenset(early & mine))
        back = [(occurrence_id(name, at), fire) for at, fire in waits]
        late_now = [held[at] for at in mine - early]
        with session.lane() as lane:
            call = calls.define(
                keys, name, stamp=info.stamp, after=_after(info, times, now_ms), back=back, late=late_now, lane=lane,
                now=session.now,
            )  # fmt: skip
            (reply,) = yield (call,)
        met = calls.read_define(call, reply)
        if met.word == "ok":
            return GivenBack(frozenset(held) - (mine & early), frozenset(early & mine), waited=bool(waits))
        if met.word == "early":
            early |= {at for at, late in held.items() if late.id in met.started}
    raise BrokerRefused(f"schedule {name} changes faster than an occurrence can be given back to it")


def _after(info: ScheduleInfo, times: Sequence[int], now_ms: int) -> After:
    state = given_back(info.state, times)
    # A worker looks at an active schedule at once, and applies its misfire policy to what was given back.
    due_ms = now_ms if state.status is Status.ACTIVE else None
    return After(state.status.letter, due_ms, schedule_tail(state, info.definition))


def _held(record: bytes | None, late: Late) -> bool:
    return record is not None and record[:2] in (b"1p", b"2p") and record[21:37] == late.token.encode()


def _waits(record: bytes | None, fire_ms: int) -> bool:
    return record is not None and record[1:21] == b"s0000%015d" % fire_ms
