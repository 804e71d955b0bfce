"""For each transition a batch of any size as production has them: several days, dedup keys, keep times, failures, refusals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from zwheel.calls import (
    REPAIR_JOBS,
    Advance,
    After,
    Call,
    Ending,
    Lane,
    Leaving,
    NewJob,
    NewOccurrence,
    Offer,
    advance,
    arrive,
    cancel,
    claim,
    close_shard,
    define,
    depart_day,
    enqueue,
    extend,
    offer,
    prune,
    purge,
    reap,
    redrive,
    repair,
    reschedule,
    settle,
    step_down,
)
from zwheel.job import JobId, QueueName
from zwheel.keys import ShardKeys
from zwheel.record import record_tail
from zwheel.times import DAY_MS

from .shard import KEYS, LANE, LATER, MIDNIGHT, NOW, NOW_US, TODAY, TOMORROW, WORKER, Shard, at, digits16, held, record

LEASE = 30_000
TOKEN = NOW_US - 60_000_000
WHY = b'{"at":1900000000000,"attempt":1,"reason":"error","kind":"ValueError"}\n'

GROUPS = ("0123456789abcdef", "fedcba9876543210")

Fields = dict[str, Any]


def names(size: int) -> list[str]:
    return [f"job-{number:04d}" for number in range(size)]


def digest_of(number: int) -> str:
    return f"{number:032x}"


def fields(number: int) -> Fields:
    """Every mixture of what a record can carry."""
    chosen: Fields = {}
    if number % 2:
        chosen["keep"] = 60_000
    if number % 3 == 0:
        chosen["digest"] = digest_of(number)
    if number % 5 == 0:
        chosen["failures"] = WHY
    return chosen


def _dedup(shard: Shard, size: int) -> None:
    holders = {digest_of(n): name for n, name in enumerate(names(size)) if n % 3 == 0}
    shard.put({"dedup": holders, "dedup:expiry": dict.fromkeys(list(holders)[::2], NOW + 5)})


def _held(shard: Shard, size: int, *, lease_until: int = NOW + 5, most: int = 3) -> list[str]:
    ids = names(size)
    jobs = {name: held(TOKEN, most=most if n % 2 else 1, **fields(n)) for n, name in enumerate(ids)}
    shard.put({"jobs": jobs, "processing": dict.fromkeys(ids, lease_until), "meta": {"lease": str(LEASE)}})
    _dedup(shard, size)
    return ids


def _scheduled(shard: Shard, size: int) -> list[str]:
    ids = names(size)
    jobs = {name: record(fire=NOW - n, **fields(n)) for n, name in enumerate(ids)}
    fires = {name: NOW - n for n, name in enumerate(ids)}
    shard.put({"jobs": jobs, f"wheel:{TODAY}": fires, "days": {TODAY: int(TODAY)}})
    _dedup(shard, size)
    return ids


def _dead(shard: Shard, size: int) -> list[str]:
    ids = names(size)
    jobs = {name: record("x", attempt=3, **fields(n)) for n, name in enumerate(ids)}
    shard.put({"jobs": jobs, "dead": {name: NOW - DAY_MS + n for n, name in enumerate(ids)}})
    return ids


def _fire(number: int) -> int:
    return NOW + number % 3 * DAY_MS + number


def _enqueue(shard: Shard, size: int, lane: Lane, now: str) -> Call:
    shard.put({"jobs": {"job-0000": record("d", body=b"")}, "done": {"job-0000": NOW + 9}})
    if size > 2:
        gone = {"job-0001": record("c", body=b""), "job-0002": record("x")}
        shard.put({"jobs": gone, "done": {"job-0001": NOW + 9}, "dead": {"job-0002": NOW - 9}})
    shard.put(
        {
            "dedup": {digest_of(3): "holder"},
            "dedup:expiry": {digest_of(3): NOW + 9},
            "meta": {"cap": "100000", "schema": "1", "epoch": "5"},
        }
    )
    batch = []
    for number, name in enumerate(names(size)):
        digest = digest_of(number) if number % 3 == 0 else None
        batch.append(
            NewJob(
                job_id=JobId(name), queue=QueueName("q"), at_ms=None if number % 4 == 0 else _fire(number),
                delay_ms=number, dedup=digest or "", window_ms=500 if number % 6 == 0 else None,
                tail=record_tail("mail.send", max_attempts=3, keep_ms=60_000, dedup=digest), body=b"\x01\x00\xff",
                replace=number == 2,
            )
        )  # fmt: skip
    return enqueue(KEYS, batch, now_ms=NOW, lane=lane, now=now).call


def _claim(shard: Shard, size: int, lane: Lane, now: str) -> Call:
    ids = _scheduled(shard, size)
    shard.put({"jobs": {"next": record(fire=NOW + 9)}, f"wheel:{TODAY}": {"next": NOW + 9}})
    if size > 2:
        shard.put({"jobs": {ids[0]: record(version="3")}})
        shard.client.hdel(KEYS.jobs, ids[1])
    return claim(KEYS, day=TODAY, worker=WORKER, lease_ms=LEASE, limit=size, lane=lane, now=now)


def _step_down(shard: Shard, size: int, lane: Lane, now: str) -> Call:
    """The batch stays where it is."""
    _scheduled(shard, size)
    shard.put({"meta": {"keeper": WORKER, "keeper_at": str(NOW), "keeper_end": str(NOW + 30), "second": "v7654321"}})
    return step_down(KEYS, WORKER, lane=lane, now=now)


def _pairs(ids: Sequence[str]) -> list[tuple[str, bytes]]:
    """Every tenth token is stale."""
    return [(name, digits16(TOKEN - (n % 10 == 9))) for n, name in enumerate(ids)]


def _settle(shard: Shard, size: int, lane: Lane, now: str) -> Call:
    """Some end well; of the others every kind."""
    pairs = _pairs(_held(shard, size))
    done = pairs[::2]
    others = [
        Ending(
            name, token, "xrb"[n % 3], WHY if n % 4 else b"", _fire(n) if n % 5 and n % 3 else None, n if n % 3 else 0
        )
        for n, (name, token) in enumerate(pairs[1::2])
    ]
    return settle(KEYS, done, others, most_dead=max(1, size // 8), now_ms=NOW, lane=lane, now=now)


def _offer(shard: Shard, size: int, lane: Lane, now: str) -> Call:
    ids = _held(shard, size)
    batch = [Offer(name, digits16(TOKEN), (b"", b"none", WHY)[n % 3]) for n, name in enumerate(ids)]
    return offer(KEYS, batch, groups=GROUPS, now_ms=NOW, lane=lane, now=now)


def _extend(shard: Shard, size: int, lane: Lane, now: str) -> Call:
    return extend(KEYS, _pairs(_held(shard, size)), lease_ms=LEASE, now=now)


def _reap(shard: Shard, size: int, lane: Lane, now: str) -> Call:
    ids = _held(shard, size, lease_until=NOW)
    if size > 2:
        shard.put({"jobs": {ids[0]: record("p", version="3")}})
        shard.client.hdel(KEYS.jobs, ids[1])
    return reap(KEYS, limit=size, lease_ms=LEASE, most_dead=max(1, size // 4), now_ms=NOW, now=now)


def _cancel(shard: Shard, size: int, lane: Lane, now: str) -> Call:
    return cancel(KEYS, _scheduled(shard, size), day=TODAY, lane=lane, now=now)


def _reschedule(shard: Shard, size: int, lane: Lane, now: str) -> Call:
    name = _scheduled(shard, size)[0]
    return reschedule(KEYS, name, day=TODAY, at_ms=MIDNIGHT + 5, delay_ms=0, now_ms=NOW, lane=lane, now=now)


def _redrive(shard: Shard, size: int, lane: Lane, now: str) -> Call:
    return redrive(KEYS, _dead(shard, size), now_ms=NOW, lane=lane, now=now)


def _purge(shard: Shard, size: int, lane: Lane, now: str) -> Call:
    _scheduled(shard, size)
    return purge(KEYS, KEYS.wheel(TODAY), day=TODAY, limit=size, now=now)


def _prune(shard: Shard, size: int, lane: Lane, now: str) -> Call:
    _dead(shard, size)
    ended = {f"done-{n:04d}": NOW - 9 for n in range(size)}
    shard.put({"jobs": {name: record("d", body=b"") for name in ended}, "done": ended})
    _dedup(shard, size)
    return prune(KEYS, limit=size, dead_age_ms=1000, now=now)


def _repair(shard: Shard, size: int, lane: Lane, now: str) -> Call:
    """Every third record has lost its place, every fifth place its record."""
    size = min(size, REPAIR_JOBS)
    ids = _scheduled(shard, size)
    shard.client.zrem(KEYS.wheel(TODAY), *ids[::3])
    shard.client.hdel(KEYS.jobs, *ids[1::5], "never")
    shard.put({"days": {LATER: int(LATER)}})
    shard.client.zrem(KEYS.days, TOMORROW)
    digests = [digest_of(number) for number in range(size) if number % 3 == 0]
    return repair(KEYS, days=[TODAY, TOMORROW, LATER], digests=digests, ids=ids, mend=True, now=now)


TAIL = '\n{"cursor":1}\n{"name":"s"}'
STAMP = f"{NOW_US - 9_000_000:016d}"


def schedule(stamp: str = STAMP, letter: str = "a", tail: str = TAIL) -> str:
    """A stored schedule."""
    return f"1{letter}{stamp}{tail}"


def _occurrences(size: int) -> list[NewOccurrence]:
    rest = record_tail("mail.send", max_attempts=3, keep_ms=60_000) + b"\x01\x00\xff"
    return [NewOccurrence(f"s@{n:04d}", _fire(n), rest) for n in range(size)]


def _advance(shard: Shard, size: int, lane: Lane, now: str) -> Call:
    """Ten schedules: every third is stale, the fourth and seventh wait for the occurrence before, which is active."""
    count = min(size, 10)
    names_of = [f"schedule-{n}" for n in range(count)]
    stamps = {name: STAMP[:-1] + "9" if n % 3 == 2 else STAMP for n, name in enumerate(names_of)}
    shard.put(
        {
            "schedules": {name: schedule(stamp) for name, stamp in stamps.items()},
            "schedules:due": dict.fromkeys(names_of, NOW),
            "jobs": {"before": held(5), "s@0001": record("d", keep=9, body=b"")},
            "processing": {"before": NOW + 5},
            "done": {"s@0001": NOW + 9},
        }
    )
    jobs = _occurrences(size)
    batch = []
    for n, name in enumerate(names_of):
        free = After("a", NOW + 9, TAIL + " " * n, jobs[n::count])
        if n % 3 == 1 and n > 1:
            batch.append(Advance(name, STAMP, free, "before", After("f", None, TAIL)))
        else:
            batch.append(Advance(name, STAMP, free))
    return advance(KEYS, batch, now=now)


def _define(shard: Shard, size: int, lane: Lane, now: str) -> Call:
    """Half of the batch is taken back, the other half put on the wheel."""
    half = max(1, size // 2)
    old = {f"old-{n:04d}": NOW + n for n in range(half)}
    shard.put(
        {
            "schedules": {"s": schedule()},
            "schedules:due": {"s": NOW},
            "jobs": {name: record(fire=fire) for name, fire in old.items()},
            f"wheel:{TODAY}": old,
            "days": {TODAY: int(TODAY)},
            "meta": {"schema": "1", "epoch": "5"},
        }
    )
    after = After("a", NOW + 9, TAIL, _occurrences(size - half))
    return define(KEYS, "s", stamp=STAMP, after=after, back=list(old.items()), lane=lane, now=now)


def _depart(shard: Shard, size: int, lane: Lane, now: str) -> Call:
    """A day of a former cut, with an occurrence that stays with its schedule."""
    _scheduled(shard, size)
    shard.put(
        {
            "jobs": {"s@1": record(fire=NOW + 1)}, f"wheel:{TODAY}": {"s@1": NOW + 1}, "schedules": {"s": schedule()},
            "meta": {"shards": "8", "schema": "1", "epoch": "5"},
        }
    )  # fmt: skip
    return depart_day(KEYS, TODAY, arrived=None, past=0, limit=size + 1, now=now)


FORMER = ShardKeys.of("zw", "q/1of4")


def _arrive(shard: Shard, size: int, lane: Lane, now: str) -> Call:
    """Every kind of job, with their dedup keys, and a schedule; one id is here already."""
    shard.put({"meta": {"moving": "4"}, "jobs": {"job-0001": held(TOKEN)}, "processing": {"job-0001": NOW + 5}})
    parts = [Leaving("n", b"s", str(NOW), schedule().encode(), b"")] if size > 1 else []
    for number, name in enumerate(names(size)):
        kind = "sssxd"[number % 5]
        raw = record(kind, fire=_fire(number), body=b"" if kind == "d" else b"\x01", **fields(number))
        parts.append(Leaving(kind, name.encode(), str(NOW + number), raw, b""))
        if number % 3 == 0:
            until = str(NOW + 5) if number % 2 else ""
            parts.append(Leaving("k", digest_of(number).encode(), until, name.encode(), b""))
    return arrive(KEYS, parts, former=4, shard=FORMER, number=NOW_US - 5, now=now)


def _reshard(shard: Shard, size: int, lane: Lane, now: str) -> Call:
    """The batch stays where it is."""
    _scheduled(shard, size)
    shard.put({"meta": {"reshard": "8"}})
    return close_shard(KEYS, 8, now=now)


Prepare = Callable[[Shard, int, Lane, str], Call]

PREPARE: dict[str, Prepare] = {
    "enqueue": _enqueue,
    "claim": _claim,
    "step_down": _step_down,
    "settle": _settle,
    "offer": _offer,
    "extend": _extend,
    "reap": _reap,
    "cancel": _cancel,
    "reschedule": _reschedule,
    "redrive": _redrive,
    "purge": _purge,
    "prune": _prune,
    "repair": _repair,
    "advance": _advance,
    "define": _define,
    "depart": _depart,
    "arrive": _arrive,
    "reshard": _reshard,
}
"""Put what a transition needs into an empty shard and build its call."""


def prepare(name: str, shard: Shard, size: int, *, lane: Lane = LANE, now: str = at(NOW)) -> Call:
    """Arrange a batch of `size` jobs for one transition and build the call."""
    shard.put({f"wheel:{TOMORROW}": {"tomorrow": MIDNIGHT}, "days": {TOMORROW: int(TOMORROW)}})
    shard.put({"jobs": {"tomorrow": record(fire=MIDNIGHT)}})
    return PREPARE[name](shard, size, lane, now)
