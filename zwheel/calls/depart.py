"""depart: jobs, dedup keys and schedules leave a shard of the former cut, for the shards of the new cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from zwheel.calls.call import Arg, Call, Reply, Trace, buckets, clock_us, text, word
from zwheel.calls.scripts import script
from zwheel.calls.traces import answered, named
from zwheel.errors import BrokerRefused
from zwheel.keys import ShardKeys
from zwheel.outside import shown, whole
from zwheel.times import MAX_MS

#: How many jobs leave at a time: the server needs some ms for them.
DEPART_LIMIT = 500
_SCORE = 15


class Leaving(NamedTuple):
    """One part of a batch: a job, a dedup key or a schedule."""

    kind: str
    """s, x or d: a job that is scheduled, dead or ended; k: a dedup key; n: a schedule."""
    name: bytes
    """Its id, digest or name."""
    score: str
    """Its score in the set where it was, ms; '' without one."""
    value: bytes
    """Its record; of a dedup key the id of its holder."""
    body: bytes
    """The body of a job where that lies apart."""


class Departed(NamedTuple):
    """What a `depart` answered."""

    word: str
    """ok, again (an earlier batch has not arrived yet), or whole (the shard is not of a former cut)."""
    number: int
    """That of the batch; 0 when none is leaving."""
    stayed: int
    """How many of those that were looked at stay for now."""
    batch: list[Leaving]
    clock_us: int


class WaitingSchedule(NamedTuple):
    """A schedule that is to leave, as it was read, and which of its occurrences may wait on the wheel."""

    name: str
    stamp: str
    occurrences: tuple[tuple[str, int], ...]
    """Their ids and fire times, ms."""


def depart_day(keys: ShardKeys, day: str, *, arrived: int | None, past: int, limit: int, now: str = "") -> Call:
    """Build the call for jobs of one day, the latest first. past: how many to pass over, those that stayed."""
    return _call(keys, _head(arrived, limit, past, "wheel", now), (keys.wheel(day),))


def depart_set(keys: ShardKeys, which: str, *, arrived: int | None, past: int, limit: int, now: str = "") -> Call:
    """Build the call for jobs that are dead, or done and cancelled. which: dead or done."""
    return _call(keys, _head(arrived, limit, past, which, now))


def depart_dedup(keys: ShardKeys, digests: Sequence[bytes], *, arrived: int | None, now: str = "") -> Call:
    """Build the call for dedup keys whose jobs are gone, up to 1000."""
    return _call(keys, [*_head(arrived, len(digests), 0, "dedup", now), *digests])


def depart_schedules(
    keys: ShardKeys, schedules: Sequence[WaitingSchedule], *, arrived: int | None, now: str = ""
) -> Call:
    """Build the call for schedules, with those of their occurrences that wait on the wheel."""
    layout = buckets(keys, {(min(fire, MAX_MS), False) for one in schedules for _, fire in one.occurrences})
    args = [*_head(arrived, len(schedules), 0, "schedules", now), *layout.head]
    for one in schedules:
        args += [one.name, one.stamp, len(one.occurrences), *(job_id for job_id, _ in one.occurrences)]
    return _call(keys, args, layout.keys)


def _head(arrived: int | None, limit: int, past: int, what: str, now: str) -> list[Arg]:
    return [now, "" if arrived is None else arrived, limit, past, what]


def _call(keys: ShardKeys, args: list[Arg], days: Sequence[str] = ()) -> Call:
    names = (
        keys.meta, keys.jobs, keys.bodies, keys.days, keys.dead, keys.done, keys.dedup, keys.dedup_expiry,
        keys.schedules, keys.schedules_due, keys.leaving, *days,
    )  # fmt: skip
    return Call(script("depart"), names, args, _told)


def _told(about: None, reply: Reply | None) -> Trace:
    if reply is None or word(reply) == "whole":
        return Trace(answered(reply), {}, [])
    departed = read_depart(reply)
    jobs = named(one.name for one in departed.batch if one.kind in "sxd")
    return Trace(departed.word, {"number": departed.number}, jobs)


def read_depart(reply: Reply) -> Departed:
    """Read the answer. Raises: BrokerRefused."""
    if word(reply) not in ("ok", "again", "whole"):
        raise BrokerRefused(f"depart answered {word(reply)!r}, which this version does not know")
    fields: dict[bytes, bytes] = dict(zip(reply[4][::2], reply[4][1::2], strict=True))
    batch = [_part(field, value, fields) for field, value in fields.items() if field[:1] not in (b"b", b"#")]
    return Departed(word(reply), int(reply[2]), int(reply[3]), batch, clock_us(reply))


def _part(field: bytes, value: bytes, fields: Mapping[bytes, bytes]) -> Leaving:
    """Read a field of `leaving`. What is damaged there still arrives, as far as it can. Raises: BrokerRefused."""
    kind, name = field[:1].decode("latin-1"), field[1:]
    if kind == "j":
        # A place that this version does not know: the job is set aside where it arrives.
        kind, value = text(value[:1]) if value[:1] in (b"s", b"x", b"d") else "x", value[1:]
        if kind == "s" and whole(value[_SCORE + 6 : _SCORE + 21], 0, MAX_MS) is None:
            kind = "x"
    elif kind not in ("k", "n"):
        raise BrokerRefused(
            f"{shown(field)} is on its way to another shard, and this version does not know what that is"
        )
    score = value[:_SCORE].lstrip(b"0")
    body = fields.get(b"b" + name, b"") if kind in "sxd" else b""
    return Leaving(kind, name, score.decode() if score.isdigit() else "", value[_SCORE:], body)
