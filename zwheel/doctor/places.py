"""The first look: every set and every record of a queue once, page by page, for what may not be where it belongs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from zwheel.calls import REPAIR_DAYS, REPAIR_JOBS, Session
from zwheel.doctor import probe
from zwheel.errors import UndecodableJob
from zwheel.job import Job, JobId, JobState, QueueName
from zwheel.keys import ShardKeys
from zwheel.operations.read import bucket_days
from zwheel.record import read_record
from zwheel.store import Steps
from zwheel.times import day_of

_PAGE = 500


@dataclass(slots=True)
class Suspects:
    """What may be wrong, to be decided in one step each."""

    jobs: int = 0
    """How many records there are."""
    unreadable: int = 0
    """How many of them this version cannot read."""
    ids: dict[str, set[str]] = field(default_factory=dict)
    """Job id -> the days of the buckets that it is in, or belongs to."""
    digests: set[str] = field(default_factory=set)
    """Every dedup key: who holds it is decided by the script."""

    def add(self, job_id: str, *days: str) -> None:
        """Suspect one job."""
        self.ids.setdefault(job_id, set()).update(days)

    def groups(self) -> Iterator[tuple[tuple[str, ...], list[str]]]:
        """Give the suspects in batches for one call each, with the days that the call has to name."""
        by_days: dict[tuple[str, ...], list[str]] = {}
        for job_id, days in sorted(self.ids.items()):
            by_days.setdefault(tuple(sorted(days)[:REPAIR_DAYS]), []).append(job_id)
        for named, ids in by_days.items():
            for start in range(0, len(ids), REPAIR_JOBS):
                yield named, ids[start : start + REPAIR_JOBS]


def look_around(
    session: Session, keys: ShardKeys, buckets: set[str], progress: Callable[[int], None] | None
) -> Steps[Suspects]:
    """Walk over the sets, then over the records, then over the dedup keys."""
    found = Suspects()
    days = sorted({*(yield from bucket_days(keys)), *buckets})
    places = [(keys.wheel(day), day) for day in days] + [(keys.processing, ""), (keys.dead, ""), (keys.done, "")]
    done = 0
    for zset, day in places:
        cursor = 0
        while True:
            (reply,) = yield (("ZSCAN", zset, cursor, "COUNT", _PAGE),)
            page = _scored(reply[1])
            if page:
                (records,) = yield (("HMGET", keys.jobs, *page),)
                for (job_id, score), record in zip(page.items(), records, strict=True):
                    _look_at_member(keys, found, zset, day, job_id, score, record)
            done += len(page)
            if progress is not None:
                progress(done)
            cursor = int(reply[0])
            if cursor == 0:
                break
    yield from _look_at_records(keys, found, days, done, progress)
    for command, key in (("HSCAN", keys.dedup), ("ZSCAN", keys.dedup_expiry)):
        cursor = 0
        while True:
            (reply,) = yield ((command, key, cursor, "COUNT", _PAGE),)
            found.digests |= set(_scored(reply[1]) if command == "ZSCAN" else _hashed(reply[1]))
            cursor = int(reply[0])
            if cursor == 0:
                break
    return found


def _look_at_member(
    keys: ShardKeys, found: Suspects, zset: str, day: str, job_id: str, score: float, record: bytes | None
) -> None:
    if record is None:
        found.add(job_id, *([day] if day else []))
        return
    job = _read(keys, job_id, record)
    if job is None:
        return
    home = _home(keys, job)
    if home != zset or (day and int(score) != job.fire_at_ms):
        belongs = [day_of(job.fire_at_ms)] if job.state is JobState.SCHEDULED else []
        found.add(job_id, *([day] if day else []), *belongs)


def _look_at_records(
    keys: ShardKeys, found: Suspects, days: list[str], done: int, progress: Callable[[int], None] | None
) -> Steps[None]:
    cursor = 0
    while True:
        (reply,) = yield (("HSCAN", keys.jobs, cursor, "COUNT", _PAGE),)
        homes: dict[str, list[str]] = {}
        belongs: dict[str, str] = {}
        unreadable: list[str] = []
        for job_id, record in _hashed(reply[1]).items():
            found.jobs += 1
            job = _read(keys, job_id, record)
            if job is None:
                unreadable.append(job_id)
                continue
            homes.setdefault(_home(keys, job), []).append(job_id)
            if job.state is JobState.SCHEDULED:
                belongs[job_id] = day_of(job.fire_at_ms)
        if homes:
            scores = yield [("ZMSCORE", zset, *ids) for zset, ids in homes.items()]
            for ids, listed in zip(homes.values(), scores, strict=True):
                for job_id, score in zip(ids, listed, strict=True):
                    if score is None:
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


def _read(keys: ShardKeys, job_id: str, record: bytes) -> Job | None:
    try:
        return read_record(JobId(job_id), QueueName(keys.queue), record)
    except UndecodableJob:
        return None


def _home(keys: ShardKeys, job: Job) -> str:
    """The set that a job's record says it is in."""
    if job.state is JobState.SCHEDULED:
        return keys.wheel(day_of(job.fire_at_ms))
    return {JobState.PROCESSING: keys.processing, JobState.DEAD: keys.dead}.get(job.state, keys.done)


def _scored(reply: Any) -> dict[str, float]:
    """Members with their scores: in turns, or as pairs."""
    if reply and isinstance(reply[0], (tuple, list)):
        return {probe.text(member): float(score) for member, score in reply}
    return {probe.text(member): float(score) for member, score in zip(reply[::2], reply[1::2], strict=True)}


def _hashed(reply: Any) -> dict[str, bytes]:
    """Fields with their values: in turns, or as a mapping."""
    items = reply.items() if isinstance(reply, Mapping) else zip(reply[::2], reply[1::2], strict=True)
    return {probe.text(name): value for name, value in items}
