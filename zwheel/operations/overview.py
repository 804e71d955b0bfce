"""Reading what a person looks at first: queues, days and workers. One damaged value hides itself and nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from zwheel.broker.store import Steps
from zwheel.calls import Session
from zwheel.errors import BrokerError, BrokerRefused
from zwheel.info import DayInfo, QueueInfo, WorkerInfo, WorkerState
from zwheel.job import QueueName, WorkerId
from zwheel.keys import NAME_LIMIT, ShardKeys, check_name, queue_of
from zwheel.operations.read import bucket_days, each_alone, is_away, queues, sorted_days, time_ms
from zwheel.operations.shards import refresh_shards, shards_of, workers_key
from zwheel.outside import Listing, Unreadable, as_text, flat, is_text, score_ms, shown, whole
from zwheel.times import DAY_MS, MAX_MS, day_of, day_start_ms

#: The lease of a worker that does not say its own, and the longest that is believed, ms.
_LEASE_MS, _LONGEST_LEASE_MS = 30_000, 86_400_000
#: So many queues are looked at in one round trip.
_QUEUES = 100
#: So many of a worker's queues and tasks are believed.
_MOST_QUEUES, MOST_NAMES = 1000, 1000


def days(session: Session, queue: str) -> Steps[Listing[DayInfo]]:
    """Tell what is on the wheel, a line for each UTC day with jobs, oldest first."""
    shards = yield from shards_of(session, queue)
    found: Listing[DayInfo] = Listing()
    for shard in shards:
        part = yield from _days_of(session.keys(shard))
        found += part
        found.unreadable += part.unreadable
    if len(shards) > 1:
        found[:] = [_day_of_all(day, found) for day in sorted({one.day for one in found})]
    return found


def _day_of_all(day: str, found: Sequence[DayInfo]) -> DayInfo:
    same = [one for one in found if one.day == day]
    return DayInfo(
        day=day, jobs=sum(one.jobs for one in same), first_ms=min(one.first_ms for one in same),
        last_ms=max(one.last_ms for one in same),
    )  # fmt: skip


def _days_of(keys: ShardKeys) -> Steps[Listing[DayInfo]]:
    queue = keys.queue
    names = yield from bucket_days(keys)
    result: Listing[DayInfo] = Listing(unreadable=names.unreadable)
    for start in range(0, len(names), 200):
        part = names[start : start + 200]
        asks: list[tuple[Any, ...]] = []
        for day in part:
            zset = keys.wheel(day)
            asks += [
                ("ZCARD", zset),
                ("ZRANGE", zset, 0, 0, "WITHSCORES"),
                ("ZRANGE", zset, -1, -1, "WITHSCORES"),
            ]
        replies = yield from each_alone(asks)
        for i, day in enumerate(part):
            size, first, last = replies[3 * i : 3 * i + 3]
            if isinstance(size, BrokerRefused):
                result.unreadable.append(Unreadable(name=day, queue=queue, reason=str(size)))
            elif size:
                ends = [_first_score(first), _first_score(last)]
                result.append(
                    DayInfo(day=day, jobs=size, first_ms=_clamped(ends[0], 0), last_ms=_clamped(ends[1], MAX_MS))
                )
                for found in ends:
                    if score_ms(found) is None:
                        reason = f"a job of its {size:,} has the fire time {shown(found)}, which cannot be"
                        result.unreadable.append(Unreadable(name=day, queue=queue, reason=reason))
                        break
    return result


def _first_score(entry: Any) -> Any:
    """The score of the first member of a range; None when it is empty."""
    return next((score for _, score in flat(entry)), None)


def _clamped(score: Any, otherwise: int) -> int:
    at = score_ms(score)
    return otherwise if at is None else at


def hours(session: Session, queue: str, day: str) -> Steps[list[int]]:
    """Count a day's jobs hour by hour, UTC: 24 numbers."""
    start = day_start_ms(day)
    hour = DAY_MS // 24
    total = [0] * 24
    for shard in (yield from shards_of(session, queue)):
        bucket = session.keys(shard).wheel(day)
        replies = yield [("ZCOUNT", bucket, start + i * hour, f"({start + (i + 1) * hour}") for i in range(24)]
        total = [before + int(n) for before, n in zip(total, replies, strict=True)]
    return total


def queue_info(session: Session, queue: str) -> Steps[QueueInfo]:
    """Tell how a queue stands."""
    (info,) = yield from queue_infos(session, [queue])
    return info


def queue_infos(session: Session, names: Sequence[str]) -> Steps[list[QueueInfo]]:
    """Tell how several queues stand, in two round trips for each hundred of their shards."""
    yield from refresh_shards(session, names)
    shards = {name: session.shards(name) for name in names}
    found = yield from _shard_infos(session, [shard for name in names for shard in shards[name]])
    each = iter(found)
    return [_info_of_all([next(each) for _ in shards[name]], session.former.get(name)) for name in names]


def _info_of_all(infos: Sequence[QueueInfo], former: int | None) -> QueueInfo:
    """How a queue stands, by how each of its shards does. It is paused when one of them is: that shard's jobs wait.

    former: how many of them, the first ones, are of a former cut.
    """
    first = infos[0]
    if len(infos) == 1:
        return first
    soonest = min(infos, key=lambda info: math.inf if info.next_fire_ms is None else info.next_fire_ms)
    caps = [info.cap for info in infos[former or 0 :] if info.cap is not None]

    def total(name: str) -> int:
        return sum(getattr(info, name) for info in infos)

    return replace(
        first, name=QueueName(queue_of(first.name)), shards=len(infos) - (former or 0), former=former, scheduled=total("scheduled"), due=total("due"),
        processing=total("processing"), dead=total("dead"), done=total("done"), trimmed=total("trimmed"),
        orphans=total("orphans"), paused=any(info.paused for info in infos), cap=sum(caps) if caps else None, precise=any(info.precise for info in infos),
        oldest_due_ms=min((info.oldest_due_ms for info in infos if info.oldest_due_ms is not None), default=None),
        next_fire_ms=soonest.next_fire_ms, next_job=soonest.next_job,
        unreadable="; ".join(f"{', '.join(names)}: {reason}" for reason, names in _by_reason(infos).items()),
        unanswered=tuple(name for info in infos for name in info.unanswered),
    )  # fmt: skip


def _by_reason(infos: Sequence[QueueInfo]) -> dict[str, list[str]]:
    """Why something could not be read -> the shards in which."""
    found: dict[str, list[str]] = {}
    for info in infos:
        if info.unreadable:
            found.setdefault(info.unreadable, []).append(info.name)
    return found


def _shard_infos(session: Session, names: Sequence[str]) -> Steps[list[QueueInfo]]:
    result: list[QueueInfo] = []
    for start in range(0, len(names), _QUEUES):
        part = names[start : start + _QUEUES]
        asks: list[tuple[Any, ...]] = []
        for name in part:
            keys = session.keys(name)
            asks += [
                ("ZRANGE", keys.days, 0, -1),
                ("ZCARD", keys.processing),
                ("ZCARD", keys.dead),
                ("ZCARD", keys.done),
                ("HMGET", keys.meta, "paused", "cap", "trimmed", "orphans", "schema", "precise"),
                ("HGETALL", keys.workers),
            ]
        first = yield from each_alone([*asks, ("TIME",)], away=True)
        now_ms = yield from time_ms(first[-1])
        seen = [_Seen(name, first[6 * i : 6 * i + 6]) for i, name in enumerate(part)]
        second = yield from each_alone([ask for one in seen for ask in one.asks(session, now_ms)], away=True)
        for one in seen:
            count = len(one.asks(session, now_ms))
            result.append(one.info(second[:count], now_ms))
            second = second[count:]
    return result


class _Seen:
    """The replies for one queue, and the keys that could not be read."""

    def __init__(self, name: str, replies: Sequence[Any]) -> None:
        self.name = name
        self.wrong: list[str] = []
        #: The right that this user lacks, or why there was no answer -> the keys that could not be read for that.
        self.refused: dict[str, list[str]] = {}
        #: Why its node gave no answer. The list of workers may be on another node, that of the first shard.
        self.away = str(replies[0]) if is_away(replies[0]) else ""
        what = ("days", "processing", "dead", "done", "meta", "workers")
        days_raw, self.processing, self.dead, self.done, meta, workers_raw = (
            self._good(key, reply, [] if key in ("days", "meta", "workers") else 0)
            for key, reply in zip(what, replies, strict=True)
        )
        self.days = sorted_days(days_raw, name)
        self.wrong += [f"{shown(one.name)} is in its index of days and is none" for one in self.days.unreadable[:3]]
        self.meta = list(meta) or [None] * 6
        self.workers = workers_raw

    def _good(self, what: str, reply: Any, otherwise: Any) -> Any:
        if isinstance(reply, BrokerError):
            if not (what == "workers" and is_away(reply)):
                self.refused.setdefault(str(reply), []).append(what)
            return otherwise
        return reply

    def asks(self, session: Session, now_ms: int) -> list[tuple[Any, ...]]:
        """The commands of the second round: the head of the wheel, how much is due today, how much lies in each day."""
        keys, today = session.keys(self.name), day_of(now_ms)
        return (
            []
            if self.away
            else [
                ("ZRANGE", keys.wheel(self.days[0] if self.days else today), 0, 0, "WITHSCORES"),
                ("ZCOUNT", keys.wheel(today), "-inf", now_ms),
                *(("ZCARD", keys.wheel(day)) for day in self.days),
            ]
        )

    def _number(self, what: str, raw: Any, least: int = 0) -> int | None:
        number = None if raw is None else whole(raw, least)
        if raw is not None and number is None:
            self.wrong.append(f"{what}: {shown(raw)!r} is no number")
        return number

    def info(self, replies: Sequence[Any], now_ms: int) -> QueueInfo:
        """Put it together."""
        if self.away:
            return QueueInfo(
                name=QueueName(self.name), scheduled=0, due=0, processing=0, dead=0, done=0, paused=False, oldest_due_ms=None,
                next_fire_ms=None, workers=0, cap=None, unreadable=self.away, unanswered=(self.name,),
            )  # fmt: skip
        head, due_today = self._good("wheel", replies[0], []), self._good("wheel", replies[1], 0)
        sizes = [self._good(f"wheel:{day}", size, 0) for day, size in zip(self.days, replies[2:], strict=True)]
        today = day_of(now_ms)
        past = sum(size for day, size in zip(self.days, sizes, strict=True) if day < today)
        score = _first_score(head)
        first_ms = score_ms(score)
        first_job = next((member for member, _ in flat(head)), b"")
        if score is not None and first_ms is None:
            self.wrong.append(f"its first job has the fire time {shown(score)}, which cannot be")
        paused, cap, trimmed, orphans, schema, precise = self.meta
        if schema is not None and schema != b"1":
            self.wrong.append(f"schema: {shown(schema)} is of another version")
        refused = [f"{', '.join(dict.fromkeys(keys))}: {said}" for said, keys in self.refused.items()]
        states = [info.state for info in read_workers(self.workers, now_ms, self.name)]
        return QueueInfo(
            name=QueueName(self.name), scheduled=sum(sizes), due=due_today + past, processing=self.processing,
            dead=self.dead, done=self.done, paused=paused is not None,
            oldest_due_ms=first_ms if first_ms is not None and first_ms <= now_ms else None, next_fire_ms=first_ms,
            workers=states.count(WorkerState.ALIVE), workers_silent=states.count(WorkerState.SILENT),
            workers_dead=states.count(WorkerState.DEAD), cap=self._number("cap", cap, 1), precise=precise is not None, trimmed=self._number("trimmed", trimmed) or 0,
            orphans=self._number("orphans", orphans) or 0, next_job=as_text(first_job) if is_text(first_job) else "", unreadable="; ".join(dict.fromkeys([*refused, *self.wrong])),
        )  # fmt: skip


def read_workers(raw: Any, now_ms: int, queue: str) -> Listing[WorkerInfo]:
    """Read what the workers of a queue say of themselves, as Redis gave it."""
    result: Listing[WorkerInfo] = Listing()
    for name, value in flat(raw):
        try:
            result.append(_worker(name, value, now_ms))
        except Exception as error:  # a damaged row hides no other worker
            reason = f"it says {shown(value, 60)!r} ({type(error).__name__})"
            result.unreadable.append(Unreadable(name=as_text(name), queue=queue, reason=reason))
    return result


def _worker(name: object, value: bytes, now_ms: int) -> WorkerInfo:
    """Read what a worker says of itself. Raises: ValueError, KeyError, TypeError, RecursionError, InvalidName."""
    entry = json.loads(value)
    numbers = {}
    for key, most in (
        ("pid", 1 << 32),
        ("concurrency", 10**9),
        ("running", 10**9),
        ("started", MAX_MS),
        ("beat", MAX_MS),
    ):
        number = entry[key] if type(entry[key]) is int else None
        if number is None or not 0 <= number <= most:
            raise ValueError(key)
        numbers[key] = number
    if not isinstance(entry["queues"], list):
        raise ValueError("queues")
    lease_ms = whole(entry.get("lease")) or _LEASE_MS
    # A beat that lies ahead was told by a clock that was wrong then or is wrong now.
    silent_ms = abs(now_ms - numbers["beat"])
    served = tuple(QueueName(str(queue)[:200]) for queue in entry["queues"][:_MOST_QUEUES])
    return WorkerInfo(
        id=WorkerId(check_name(as_text(name), "worker")), host=str(entry["host"])[:300], pid=numbers["pid"], queues=served,
        concurrency=numbers["concurrency"], running=numbers["running"], started_ms=numbers["started"],
        beat_ms=numbers["beat"], version=str(entry["version"])[:100],
        state=_state(silent_ms, min(lease_ms, _LONGEST_LEASE_MS)), silent_ms=silent_ms, tasks=published_names(entry.get("tasks")),
        allows=published_names(entry.get("allows")),
    )  # fmt: skip


def published_names(names: object) -> frozenset[str] | None:
    """The names in a list that a worker published, of tasks or of what it allows; None for what is no such list."""
    if not isinstance(names, list) or len(names) > MOST_NAMES:
        return None
    return frozenset(name for name in names if isinstance(name, str) and len(name) <= NAME_LIMIT)


def _state(silent_ms: int, lease_ms: int) -> WorkerState:
    if silent_ms * 2 < lease_ms:
        return WorkerState.ALIVE
    return WorkerState.SILENT if silent_ms < lease_ms else WorkerState.DEAD


def workers(session: Session, queue: str | None) -> Steps[Listing[WorkerInfo]]:
    """List the workers of a queue, or of all, until an hour after their last beat."""
    names = [QueueName(queue)] if queue else (yield from queues(session))
    found: dict[str, WorkerInfo] = {}
    result: Listing[WorkerInfo] = Listing()
    for start in range(0, len(names), 1000):
        part = names[start : start + 1000]
        yield from refresh_shards(session, part)
        asks: list[tuple[Any, ...]] = [("HGETALL", workers_key(session, name)) for name in part]
        *replies, clock = yield from each_alone([*asks, ("TIME",)], away=True)
        now_ms = yield from time_ms(clock)
        for name, raw in zip(part, replies, strict=True):
            if isinstance(raw, BrokerError):
                result.unreadable.append(Unreadable(name="(all)", queue=name, reason=str(raw)))
                continue
            listed = read_workers(raw, now_ms, name)
            result.unreadable += listed.unreadable
            found.update((info.id, info) for info in listed)
    result += sorted(found.values(), key=lambda info: (info.host, info.pid, info.id))
    return result
