"""Cutting a queue into another number of shards, while producers and workers go on.

The shards of the former cut take no new jobs any more, and those of the new cut do. What stands in the former ones moves
batch by batch: it leaves in one script and arrives in another, and every batch has a number, so that any number of
programs may move jobs of one queue, and each of them may die at any moment. What runs ends where it runs, and so does a
schedule of which an occurrence runs: it moves afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from zwheel import calls
from zwheel.broker.store import Steps
from zwheel.calls import DEPART_LIMIT, Call, Leaving, Reply, Session, WaitingSchedule
from zwheel.errors import BrokerRefused, InvalidInput, ReshardUnderWay, UndecodableJob
from zwheel.info import ReshardProgress
from zwheel.keys import MOST_SHARDS, ShardKeys, check_count, check_name, queues_key, shard_names
from zwheel.operations.former import digest_of
from zwheel.operations.read import bucket_days
from zwheel.operations.shards import former_keys, note_count, open_cut, present_keys, read_count, refresh_shards
from zwheel.outside import as_text, flat, whole

#: How long workers have to begin to wait at the shards of the new cut before jobs move there, and how often they are
#: called meanwhile, seconds.
_ADOPT_S, _CALL_S = 3.0, 0.1
#: How often to look again for what runs, seconds.
_AGAIN_S = 0.25
#: So often nothing runs and nothing moves, until what is left is taken for damaged.
_STILL = 8
#: About so many jobs move at a time.
_PART = 5_000
#: How many schedules, and dedup keys, leave at a time.
_SCHEDULES, _DEDUP = 100, 500
#: The field of `meta` of a queue's first shard that names the numbers of shards of its former cuts: they keep their `meta`.
PAST = "past"
#: Fields of `meta` that the shards of the new cut take over; a cap is shared out anew.
_SETTINGS = ("paused", "precise", "cap")


def begin_reshard(session: Session, queue: str, count: int) -> Steps[bool]:
    """Cut a queue into so many shards: from here on new jobs go to those. Returns False when it has them already.

    Safe to repeat, also when a call before died in the middle. Raises: InvalidInput, ReshardUnderWay.
    """
    check_name(queue)
    check_count(count)
    listing = queues_key(session.namespace)
    (raw,) = yield (("HGET", listing, queue),)
    if raw is None:
        raise InvalidInput(f"there is no queue {queue!r}")
    note_count(session, queue, raw)
    have, former = read_count(raw)
    if former is not None and have != count:
        raise ReshardUnderWay(queue, have)
    if former is None and have == count:
        return False
    if former is None:
        yield from _cut(session, queue, as_text(raw), have, count)
    else:
        # A server may have lost the mark, or that the shard was closed.
        yield [("HSET", keys.meta, "reshard", count) for keys in former_keys(session, queue)]
    yield from open_cut(session, queue)
    yield from _await_workers(session, queue)
    return True


def _cut(session: Session, queue: str, listed: str, have: int, count: int) -> Steps[None]:
    old = [session.keys(shard) for shard in shard_names(queue, have)]
    new = [session.keys(shard) for shard in shard_names(queue, count)]
    # Before anything is marked: can all shards be reached, and may this user do it? The end of a cut from 0 shards changes nothing.
    yield [calls.end_shard(keys, 0, trimmed=0, now=session.now) for keys in (*old, *new)]
    # Two callers that want different cuts: the first one is served.
    _, wanted = yield (("HSETNX", old[0].meta, "reshard", count), ("HGET", old[0].meta, "reshard"))
    if (whole(wanted, 1, MOST_SHARDS) or count) != count:
        raise ReshardUnderWay(queue, whole(wanted) or 0)
    # The mark by which a shard knows that it is to be closed, for this cut and no other.
    yield [("HSET", keys.meta, "reshard", count) for keys in old]
    stamp_us, settings = yield from _settings(old, count)
    yield [
        calls.prepare_shard(keys, have, stamp_us=stamp_us, settings=settings, now=session.now) for keys in new
    ]  # fmt: skip
    (reply,) = yield (calls.list_cut(session.namespace, queue, listed, f"{count} {have}", now=session.now),)
    if calls.word(reply) != "ok" and (yield (("HGET", queues_key(session.namespace), queue),)) != [
        f"{count} {have}".encode()
    ]:
        # Others cut it, and ended that, since this caller looked: what it made is part of no cut.
        yield [calls.open_shard(keys, have, now=session.now) for keys in new]
        yield [calls.end_shard(keys, have, trimmed=0, now=session.now) for keys in new]
        yield from refresh_shards(session, [queue])
        yield from open_cut(session, queue)
        raise BrokerRefused(f"queue {queue} was cut by somebody else meanwhile: try again")
    session.counts[queue], session.former[queue] = count, have
    # A person may have paused the queue between the two.
    _, settings = yield from _settings(old, count)
    if settings:
        yield [("HSET", keys.meta, *(word for pair in settings.items() for word in pair)) for keys in new]


def _settings(old: Sequence[ShardKeys], count: int) -> Steps[tuple[int, dict[str, Any]]]:
    """The largest stamp of these shards, and the settings of their queue."""
    replies = yield [("HMGET", keys.meta, "clock", *_SETTINGS) for keys in old]
    stamp_us = max(whole(clock) or 0 for clock, *_ in replies)
    found = {
        name: value for name, value in zip(_SETTINGS, replies[0][1:], strict=True) if value is not None
    }  # fmt: skip
    if "cap" in found:
        found["cap"] = -(-(whole(found["cap"], 1) or 1) * len(old) // count)
    return stamp_us, found


def _await_workers(session: Session, queue: str) -> Steps[None]:
    """Wait until the workers of the former cut are on the list of the new one, so that jobs which move are started in time."""
    old, new = former_keys(session, queue), present_keys(session, queue)
    until = time.monotonic() + _ADOPT_S
    while old and time.monotonic() < until:
        here, there = yield (("HKEYS", old[0].workers), ("HKEYS", new[0].workers))
        if set(here) <= set(there):
            return
        # Each token wakes one worker, which learns of the new cut when it claims.
        for keys in old:
            yield (("DEL", keys.wake), ("RPUSH", keys.wake, "1"))
        yield _CALL_S


def reshard(
    session: Session, queue: str, count: int, progress: Callable[[ReshardProgress], None] | None, *, wait: bool
) -> Steps[ReshardProgress]:
    """Cut a queue into so many shards, and move its jobs there, until none is left in the former cut.

    wait: also for jobs that run, and for schedules of which an occurrence runs; else workers move what is left of those.
    Damaged jobs stay, until they are repaired. Raises: InvalidInput, ReshardUnderWay.
    """
    if not (yield from begin_reshard(session, queue, count)):
        return ReshardProgress(0, 0, 0, done=True)
    total, here, still = 0, 1, 0
    while not (moved := (yield from how_far(session, queue))._replace(moved=total)).done and (wait or here):
        if progress is not None:
            progress(moved)
        here = yield from move(session, queue)
        total += here
        still = 0 if here or moved.running else still + 1
        if still == _STILL:
            break
        if not here and wait:
            yield _AGAIN_S
    if progress is not None:
        progress(moved)
    return moved


def how_far(session: Session, queue: str) -> Steps[ReshardProgress]:
    """How far a reshard is. When nothing is left in the former cut, it ends here."""
    yield from refresh_shards(session, [queue])
    old = former_keys(session, queue)
    if not old:
        return ReshardProgress(0, 0, 0, done=True)
    asks = [ask for keys in old for ask in _sizes(keys)]
    sizes = yield asks
    jobs, running, *others = (sum(map(int, sizes[place :: len(asks) // len(old)])) for place in range(5))
    if jobs or any(others):
        return ReshardProgress(0, jobs, running, done=False)
    yield from _end(session, queue, old)
    return ReshardProgress(0, 0, 0, done=True)


def _sizes(keys: ShardKeys) -> list[tuple[str, str]]:
    return [
        ("HLEN", keys.jobs), ("ZCARD", keys.processing), ("HLEN", keys.schedules), ("HLEN", keys.dedup),
        ("HLEN", keys.leaving),
    ]  # fmt: skip


def move(session: Session, queue: str) -> Steps[int]:
    """Move some of what can leave the former cut of a queue: about 5,000 jobs. Returns how many moved."""
    total = 0
    for keys in former_keys(session, queue):
        if total >= _PART:
            break
        mover = _Mover(session, queue, keys, _PART - total)
        yield from mover.move()
        total += mover.moved
    return total


class _Mover:
    """Moves what is in one shard of the former cut, at most about so many jobs."""

    def __init__(self, session: Session, queue: str, keys: ShardKeys, most: int) -> None:
        self._session = session
        self._queue = queue
        self._keys = keys
        self._most = most
        #: The batch that has arrived last.
        self._arrived: int | None = None
        #: How many jobs arrived.
        self.moved = 0

    def move(self) -> Steps[None]:
        """Move what can leave: first schedules, since their occurrences go with them; last what jobs leave behind."""
        for step in (self._schedules, self._wheel, self._ended, self._dedup):
            if self.moved < self._most:
                yield from step()
        if self._arrived:
            # A call that names nothing says that the last batch has arrived.
            yield from self._batch(partial(calls.depart_dedup, self._keys, []))

    def _wheel(self) -> Steps[None]:
        """Move scheduled jobs, the latest first: what is due soon fires where it is."""
        for day in reversed((yield from bucket_days(self._keys))):
            yield from self._all(partial(calls.depart_day, self._keys, day))

    def _ended(self) -> Steps[None]:
        """Move jobs that are dead, done or cancelled."""
        for which in ("dead", "done"):
            yield from self._all(partial(calls.depart_set, self._keys, which))

    def _dedup(self) -> Steps[None]:
        """Move dedup keys whose jobs have ended and whose windows have not."""
        cursor: Any = 0
        while True:
            (reply,) = yield (("HSCAN", self._keys.dedup, cursor, "COUNT", _DEDUP),)
            cursor, entries = reply
            digests = [digest for digest, _ in flat(entries)]
            for start in range(0, len(digests), _DEDUP):
                yield from self._batch(partial(calls.depart_dedup, self._keys, digests[start : start + _DEDUP]))
            if int(cursor) == 0:
                return

    def _schedules(self) -> Steps[None]:
        """Move schedules, each with those of its occurrences that wait on the wheel."""
        cursor: Any = 0
        while True:
            (reply,) = yield (("HSCAN", self._keys.schedules, cursor, "COUNT", _SCHEDULES),)
            cursor, entries = reply
            waiting = yield from self._waiting([(as_text(name), raw) for name, raw in flat(entries)])
            for start in range(0, len(waiting), _SCHEDULES):
                part = waiting[start : start + _SCHEDULES]
                yield from self._batch(partial(calls.depart_schedules, self._keys, part))
            if int(cursor) == 0:
                return

    def _waiting(self, stored: Sequence[tuple[str, bytes]]) -> Steps[list[WaitingSchedule]]:
        """Which occurrences of each schedule may be scheduled or running, and when those that wait are due."""
        # Here, since a producer needs neither.
        from zwheel.schedules.definition import occurrence_id
        from zwheel.schedules.state import read_schedule

        found = []
        for name, raw in stored:
            try:
                info = read_schedule(raw, name, self._keys.queue)
            except UndecodableJob:
                continue  # A newer version wrote it: that one moves it.
            times = {at for at, _ in info.state.ahead} | {info.state.last_ms, info.state.buffered_ms}
            ids = [occurrence_id(name, at) for at in sorted(time for time in times if time is not None)]
            (records,) = (yield (("HMGET", self._keys.jobs, *ids),)) if ids else ([],)
            there = [
                (job_id, whole(record[6:21]) or 0) for job_id, record in zip(ids, records, strict=True) if record is not None
            ]  # fmt: skip
            found.append(WaitingSchedule(name, info.stamp, tuple(there)))
        return found

    def _all(self, build: Callable[..., Call]) -> Steps[None]:
        """Move batch after batch of one set, until only those are left that stay, or enough have moved."""
        past = 0
        while self.moved < self._most:
            departed = yield from self._batch(partial(build, past=past, limit=DEPART_LIMIT))
            past += departed.stayed
            if not departed.batch and not departed.stayed:
                return

    def _batch(self, build: Callable[..., Call]) -> Steps[calls.Departed]:
        """Ask for one batch and bring it, and before it an earlier one that somebody left on its way."""
        while True:
            (reply,) = yield (build(arrived=self._arrived, now=self._session.now),)
            departed = calls.read_depart(reply)
            if departed.batch:
                yield from self._bring(departed)
            self._arrived = departed.number
            if departed.word == "whole":
                # Its server lost that it was closed.
                yield from open_cut(self._session, self._queue)
            if departed.word != "again":
                return departed

    def _bring(self, departed: calls.Departed) -> Steps[None]:
        """Let each part of a batch arrive where it belongs."""
        session, queue = self._session, self._queue
        parts: dict[str, list[Leaving]] = {}
        for part in departed.batch:
            name = as_text(part.name)
            digest = name if part.kind == "k" else (digest_of(part.value) or "") if part.kind in "sxd" else ""
            parts.setdefault(session.shard_of(queue, name, digest), []).append(part)
        former = session.former.get(queue, 0)
        replies: list[Reply] = yield [
            calls.arrive(
                session.keys(shard), some, former=former, shard=self._keys, number=departed.number, now=session.now
            )
            for shard, some in parts.items()
        ]
        if any(calls.read_arrive(reply) is None for reply in replies):
            raise BrokerRefused(f"queue {queue}: its reshard has ended meanwhile")
        self.moved += sum(part.kind in "sxd" for part in departed.batch)


def _end(session: Session, queue: str, old: Sequence[ShardKeys]) -> Steps[None]:
    """Nothing is left in the former cut: from here on the queue has its new cut alone."""
    former, here = len(old), present_keys(session, queue)
    trimmed = sum(whole(raw) or 0 for raw in (yield [("HGET", keys.meta, "trimmed") for keys in old]))
    yield [
        calls.end_shard(keys, former, trimmed=0 if number else trimmed, now=session.now)
        for number, keys in enumerate(here)
    ]
    (past,) = yield (("HGET", old[0].meta, PAST),)
    counts = {*as_text(past or b"").split(), str(former)} - {str(len(here))}
    yield (("HSET", here[0].meta, PAST, " ".join(sorted(counts))),)
    yield (calls.list_cut(session.namespace, queue, f"{len(here)} {former}", str(len(here)), now=session.now),)
    session.former.pop(queue, None)
    yield [calls.clear_shard(keys, len(here), now=session.now) for keys in old]
