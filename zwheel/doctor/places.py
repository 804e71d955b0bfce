"""The first look: every set and every record of a queue once, page by page, for what may not be where it belongs.

Names are kept as the bytes that Redis holds: one that is no text must be mended like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from zwheel.broker.store import Steps
from zwheel.calls import REPAIR_DAYS, REPAIR_JOBS, Session
from zwheel.errors import UndecodableJob
from zwheel.job import Job, JobId, JobState, QueueName
from zwheel.keys import ShardKeys
from zwheel.operations.read import sorted_days
from zwheel.outside import as_text, flat, score_ms
from zwheel.record import MAX_KEEP_MS, bytes_apart, read_record
from zwheel.schedules.state import Status, read_schedule
from zwheel.times import day_of

_PAGE, _MOST_TASKS = 500, 1000
#: How many large bodies are passed over in one step: Redis sends them along with their names.
_BODIES = 20
#: A lease, a death or a tombstone further away from now than this is looked at by the script, ms.
_SUSPECT_MS = 60_000
#: A schedule is looked at in the moment of its next time at the latest; this much is left to clocks that differ, ms.
_LOOK_LATEST_MS = 60_000


@dataclass(slots=True)
class Suspects:
    """What may be wrong, to be decided in one step each."""

    jobs: int = 0
    """How many records there are."""
    bodies: int = 0
    """How many bodies that lie apart these records ask for, as far as they are there."""
    unreadable: int = 0
    """How many of them this version cannot read."""
    held: int = 0
    """How many jobs workers hold."""
    tasks: dict[str, int] = field(default_factory=dict)
    """How many scheduled jobs each task has, of so many tasks at the most."""
    ids: dict[bytes, set[str]] = field(default_factory=dict)
    """Job id -> the days of the buckets that it is in, or belongs to."""
    digests: set[bytes] = field(default_factory=set)
    """Every dedup key: who holds it is decided by the script."""
    odd_days: list[bytes] = field(default_factory=list)
    """What the index of days names and is no day."""
    schedules: dict[bytes, int | None] = field(default_factory=dict)
    """Every name among the schedules and on the list of what is due -> when it must be looked at, ms; None: any time."""
    strange: list[tuple[bytes, str]] = field(default_factory=list)
    """Schedules that this version cannot read, with the reason."""

    def waits(self, task: str) -> None:
        """Count a job that is on the wheel."""
        if task in self.tasks or len(self.tasks) < _MOST_TASKS:
            self.tasks[task] = self.tasks.get(task, 0) + 1

    def add(self, job_id: bytes, *days: str) -> None:
        """Suspect one job."""
        self.ids.setdefault(job_id, set()).update(days)

    def groups(self) -> Iterator[tuple[tuple[str, ...], list[bytes]]]:
        """Give the suspects in batches for one call each, with the days that the call has to name."""
        by_days: dict[tuple[str, ...], list[bytes]] = {}
        for job_id, days in sorted(self.ids.items()):
            by_days.setdefault(tuple(sorted(days)[:REPAIR_DAYS]), []).append(job_id)
        for named, ids in by_days.items():
            for start in range(0, len(ids), REPAIR_JOBS):
                yield named, ids[start : start + REPAIR_JOBS]


def look_around(
    session: Session, keys: ShardKeys, buckets: set[str], progress: Callable[[int], None] | None
) -> Steps[Suspects]:
    """Walk over the sets, then over the records, then over the dedup keys and the schedules."""
    found = Suspects()
    (index, clock) = yield (("ZRANGE", keys.days, 0, -1), ("TIME",))
    now_ms = int(clock[0]) * 1000 + int(clock[1]) // 1000
    listed = sorted_days(index, keys.queue)
    found.odd_days = [name for name in index if as_text(name) not in set(listed)]
    days = sorted({*listed, *buckets})
    places = [(keys.wheel(day), day) for day in days] + [(keys.processing, ""), (keys.dead, ""), (keys.done, "")]
    done = 0
    for zset, day in places:
        cursor = 0
        while True:
            (reply,) = yield (("ZSCAN", zset, cursor, "COUNT", _PAGE),)
            page = dict(flat(reply[1]))
            if page:
                (records,) = yield (("HMGET", keys.jobs, *page),)
                for (job_id, score), record in zip(page.items(), records, strict=True):
                    _look_at_member(keys, found, zset, day, job_id, score, record, now_ms)
            done += len(page)
            if progress is not None:
                progress(done)
            cursor = int(reply[0])
            if cursor == 0:
                break
    yield from _look_at_records(keys, found, days, done, progress)
    yield from _look_at_bodies(keys, found)
    for name in (yield from _names("HSCAN", keys.dedup)):
        found.digests.add(name)
    for name in (yield from _names("ZSCAN", keys.dedup_expiry)):
        found.digests.add(name)
    yield from _look_at_schedules(keys, found, now_ms)
    return found


def _names(command: str, key: str) -> Steps[list[bytes]]:
    """The fields of a hash, or the members of a sorted set."""
    names: list[bytes] = []
    cursor = 0
    while True:
        (reply,) = yield ((command, key, cursor, "COUNT", _PAGE),)
        names += [name for name, _ in flat(reply[1])]
        cursor = int(reply[0])
        if cursor == 0:
            return names


def _look_at_schedules(keys: ShardKeys, found: Suspects, now_ms: int) -> Steps[None]:
    """Every schedule with the time until when it must be looked at, and every name on the list of what is due."""
    cursor = 0
    while True:
        (reply,) = yield (("HSCAN", keys.schedules, cursor, "COUNT", _PAGE),)
        for name, raw in flat(reply[1]):
            found.schedules[name] = None
            try:
                info = read_schedule(raw, as_text(name), keys.queue)
            except UndecodableJob as error:
                found.strange.append((name, str(error)))
                continue
            if info.status is Status.ACTIVE and info.state.next_ms is not None:
                found.schedules[name] = max(now_ms, info.state.next_ms) + _LOOK_LATEST_MS
        cursor = int(reply[0])
        if cursor == 0:
            break
    for name in (yield from _names("ZSCAN", keys.schedules_due)):
        found.schedules.setdefault(name, None)


def _look_at_member(
    keys: ShardKeys, found: Suspects, zset: str, day: str, job_id: bytes, raw_score: Any, record: bytes | None,
    now_ms: int,
) -> None:  # fmt: skip
    if record is None:
        found.add(job_id, *([day] if day else []))
        return
    job = _read(keys, job_id, record)
    if job is None:
        return
    home, score = _home(keys, job), score_ms(raw_score)
    if day:
        wrong = score != job.fire_at_ms or float(raw_score) != score
    else:
        latest = now_ms + _SUSPECT_MS + (MAX_KEEP_MS if zset == keys.done else 0)
        wrong = score is None or score > latest
    if home != zset or wrong:
        belongs = [day_of(job.fire_at_ms)] if job.state is JobState.SCHEDULED else []
        found.add(job_id, *([day] if day else []), *belongs)


def _look_at_records(
    keys: ShardKeys, found: Suspects, days: list[str], done: int, progress: Callable[[int], None] | None
) -> Steps[None]:
    cursor = 0
    while True:
        (reply,) = yield (("HSCAN", keys.jobs, cursor, "COUNT", _PAGE),)
        homes: dict[str, list[bytes]] = {}
        large: dict[bytes, int] = {}
        belongs: dict[bytes, str] = {}
        unreadable: list[bytes] = []
        for job_id, record in flat(reply[1]):
            found.jobs += 1
            job = _read(keys, job_id, record)
            if job is None:
                unreadable.append(job_id)
                continue
            homes.setdefault(_home(keys, job), []).append(job_id)
            if job.bytes_apart:
                large[job_id] = job.bytes_apart
            if job.state is JobState.SCHEDULED:
                belongs[job_id] = day_of(job.fire_at_ms)
                found.waits(job.task)
            found.held += job.state is JobState.PROCESSING
        if homes:
            scores = yield [("ZMSCORE", zset, *ids) for zset, ids in homes.items()]
            for ids, listed in zip(homes.values(), scores, strict=True):
                for job_id, score in zip(ids, listed, strict=True):
                    if score is None:
                        found.add(job_id, *([belongs[job_id]] if job_id in belongs else []))
        if large:
            sizes = yield [("HSTRLEN", keys.bodies, job_id) for job_id in large]
            for (job_id, size), there in zip(large.items(), sizes, strict=True):
                found.bodies += there > 0
                if size != there:
                    found.add(job_id, *([belongs[job_id]] if job_id in belongs else []))
        if unreadable:
            found.unreadable += len(unreadable)
            sets = [keys.processing, keys.dead, keys.done, *(keys.wheel(day) for day in days)]
            scores = yield [("ZMSCORE", zset, *unreadable) for zset in sets]
            for i, job_id in enumerate(unreadable):
                if all(listed[i] is None for listed in scores):
                    found.add(job_id)
        done += len(belongs)
        if progress is not None:
            progress(done)
        cursor = int(reply[0])
        if cursor == 0:
            return


def _look_at_bodies(keys: ShardKeys, found: Suspects) -> Steps[None]:
    """The bodies that lie apart, where there are others than those that records ask for."""
    (count,) = yield (("HLEN", keys.bodies),)
    cursor = 0
    while count != found.bodies:
        (reply,) = yield (("HSCAN", keys.bodies, cursor, "COUNT", _BODIES),)
        ids = [job_id for job_id, _ in flat(reply[1])]
        if ids:
            (records,) = yield (("HMGET", keys.jobs, *ids),)
            for job_id, record in zip(ids, records, strict=True):
                job = None if record is None else _read(keys, job_id, record)
                if record is None or (job is not None and not bytes_apart(record)):
                    days = [day_of(job.fire_at_ms)] if job is not None and job.state is JobState.SCHEDULED else []
                    found.add(job_id, *days)
        cursor = int(reply[0])
        if cursor == 0:
            return


def _read(keys: ShardKeys, job_id: bytes, record: bytes) -> Job | None:
    try:
        return read_record(JobId(as_text(job_id)), QueueName(keys.queue), record)
    except UndecodableJob:
        return None


def _home(keys: ShardKeys, job: Job) -> str:
    """The set that a job's record says it is in."""
    if job.state is JobState.SCHEDULED:
        return keys.wheel(day_of(job.fire_at_ms))
    return {JobState.PROCESSING: keys.processing, JobState.DEAD: keys.dead}.get(job.state, keys.done)
