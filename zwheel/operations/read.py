"""Reading: jobs, queues, days and workers, with plain read-only commands."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from zwheel.calls import Session
from zwheel.errors import JobNotFound, UndecodableJob, WaitTimeout
from zwheel.info import DayInfo, QueueInfo, WorkerInfo
from zwheel.job import Failure, Job, JobId, JobState, QueueName, Reason, WorkerId
from zwheel.keys import ShardKeys, check_job_id, queues_key
from zwheel.record import read_record
from zwheel.store import Steps
from zwheel.times import DAY_MS, day_of, day_start_ms

#: A worker that did not beat for this long is not shown as alive, ms.
WORKER_SILENT_MS = 45_000


def queues(session: Session) -> Steps[list[QueueName]]:
    """Name every queue that was ever used, sorted."""
    (names,) = yield (("HKEYS", queues_key(session.namespace)),)
    return sorted(QueueName(name.decode()) for name in names)


def ping(session: Session) -> Steps[float]:
    """Measure one round trip, ms."""
    started = time.perf_counter()
    yield (("PING",),)
    return (time.perf_counter() - started) * 1000


def snapshot(job_id: str, queue: str, raw: bytes, state: JobState = JobState.DEAD) -> Job:
    """Read a record; one that this version cannot read becomes a job that says so, its bytes as the body."""
    try:
        return read_record(JobId(job_id), QueueName(queue), raw)
    except UndecodableJob as error:
        failure = Failure(at_ms=0, attempt=0, reason=Reason.UNDECODABLE, message=str(error))
        return Job(
            id=JobId(job_id), queue=QueueName(queue), task="(unreadable)", state=state, attempt=0, max_attempts=0,
            fire_at_ms=0, token=0, worker=None, keep_ms=0, dedup=None, failures=(failure,), body=raw,
        )  # fmt: skip


def with_times(job: Job, lease: Any, died: Any, kept: Any) -> Job:
    """Add what the sets know about a job: the end of its lease, its death, the end of its tombstone."""
    from dataclasses import replace

    if job.state is JobState.PROCESSING and lease is not None:
        return replace(job, lease_until_ms=int(float(lease)))
    if job.state is JobState.DEAD and died is not None:
        return replace(job, ended_at_ms=int(float(died)))
    if job.state in (JobState.DONE, JobState.CANCELLED) and kept is not None:
        return replace(job, ended_at_ms=int(float(kept)))
    return job


def get(session: Session, job_id: str, queue: str | None) -> Steps[Job | None]:
    """Read one job, looking in every known queue when none is named."""
    check_job_id(job_id)
    names = [QueueName(queue)] if queue else (yield from queues(session))
    if not names:
        return None
    keys = [session.keys(name) for name in names]
    raws = yield [("HGET", k.jobs, job_id) for k in keys]
    for k, raw in zip(keys, raws, strict=True):
        if raw is not None:
            scores = yield [("ZSCORE", zset, job_id) for zset in (k.processing, k.dead, k.done)]
            return with_times(snapshot(job_id, k.queue, raw), *scores)
    return None


def wait(session: Session, job_id: str, queue: str | None, timeout_s: float | None) -> Steps[Job]:
    """Wait until a job ended. Looks again after 20 ms, then ever less often, up to every second.

    Raises: JobNotFound when there is none (any more), WaitTimeout.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    pause = 0.02
    while True:
        job = yield from get(session, job_id, queue)
        if job is None:
            raise JobNotFound(job_id)
        if job.state.terminal:
            return job
        queue = job.queue
        left = pause if deadline is None else min(pause, deadline - time.monotonic())
        if left <= 0:
            raise WaitTimeout(f"job {job_id} is still {job.state} after {timeout_s:g} s")
        if job.state is JobState.SCHEDULED:
            ahead = session.clock.seconds_until(job.fire_at_ms)
            pause = min(1.0, max(pause, ahead / 2))
        yield left
        pause = min(1.0, pause * 1.5)


def _zset(keys: ShardKeys, state: JobState) -> str:
    return {JobState.PROCESSING: keys.processing, JobState.DEAD: keys.dead}.get(state, keys.done)


def bucket_days(keys: ShardKeys) -> Steps[list[str]]:
    """Name the non-empty day buckets, oldest first."""
    (names,) = yield (("ZRANGE", keys.days, 0, -1),)
    return [name.decode() for name in names]


def jobs(session: Session, queue: str, state: JobState | None, limit: int, offset: int) -> Steps[list[Job]]:
    """Read a page of jobs: running first, then scheduled by fire time, then dead and ended, newest first."""
    keys = session.keys(queue)
    state = JobState(state) if state else None
    if state in (JobState.DONE, JobState.CANCELLED):
        return (yield from _ended(keys, state, limit, offset))
    states = [state] if state else [JobState.PROCESSING, JobState.SCHEDULED, JobState.DEAD, JobState.DONE]
    found: list[tuple[str, JobState]] = []
    skip = offset
    for wanted in states:
        if wanted is JobState.SCHEDULED:
            names = yield from bucket_days(keys)
            sources = [(keys.wheel(day), False) for day in names]
        else:
            sources = [(_zset(keys, wanted), wanted is not JobState.PROCESSING)]
        for start in range(0, len(sources), 200):
            part = sources[start : start + 200]
            sizes = yield [("ZCARD", zset) for zset, _ in part]
            for (zset, newest_first), size in zip(part, sizes, strict=True):
                need = limit - len(found)
                if need <= 0:
                    break
                if skip >= size:
                    skip -= size
                    continue
                command = ("ZREVRANGE" if newest_first else "ZRANGE", zset, skip, skip + need - 1)
                (ids,) = yield (command,)
                found += [(i.decode(), wanted) for i in ids]
                skip = 0
    return (yield from _read_many(keys, found, state))


def _ended(keys: ShardKeys, state: JobState, limit: int, offset: int) -> Steps[list[Job]]:
    """Read a page of done or of cancelled jobs. They share a set: it is read from its newest on until the page is full."""
    found: list[Job] = []
    start = 0
    while len(found) < offset + limit:
        (ids,) = yield (("ZREVRANGE", keys.done, start, start + 499),)
        if not ids:
            break
        found += yield from _read_many(keys, [(i.decode(), state) for i in ids], state)
        start += len(ids)
    return found[offset : offset + limit]


def _read_many(keys: ShardKeys, found: Sequence[tuple[str, JobState]], state: JobState | None) -> Steps[list[Job]]:
    result: list[Job] = []
    for start in range(0, len(found), 500):
        part = [job_id for job_id, _ in found[start : start + 500]]
        raws, leases, died, kept = yield (
            ("HMGET", keys.jobs, *part),
            ("ZMSCORE", keys.processing, *part),
            ("ZMSCORE", keys.dead, *part),
            ("ZMSCORE", keys.done, *part),
        )
        for i, job_id in enumerate(part):
            if raws[i] is not None:
                job = with_times(
                    snapshot(job_id, keys.queue, raws[i], found[start + i][1]), leases[i], died[i], kept[i]
                )
                if state is None or job.state is state:
                    result.append(job)
    return result


def count(session: Session, queue: str, state: JobState) -> Steps[int]:
    """Count the jobs of a queue in one state; done and cancelled share one set and are counted together."""
    keys = session.keys(queue)
    state = JobState(state)
    if state is not JobState.SCHEDULED:
        (size,) = yield (("ZCARD", _zset(keys, state)),)
        return int(size)
    names = yield from bucket_days(keys)
    total = 0
    for start in range(0, len(names), 500):
        sizes = yield [("ZCARD", keys.wheel(day)) for day in names[start : start + 500]]
        total += sum(sizes)
    return total


def days(session: Session, queue: str) -> Steps[list[DayInfo]]:
    """Tell what is on the wheel, a line for each UTC day with jobs, oldest first."""
    keys = session.keys(queue)
    names = yield from bucket_days(keys)
    result = []
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
        replies = yield asks
        for i, day in enumerate(part):
            size, first, last = replies[3 * i : 3 * i + 3]
            if size:
                result.append(DayInfo(day=day, jobs=size, first_ms=_score(first), last_ms=_score(last)))
    return result


def _score(entry: Sequence[Any]) -> int:
    pair = entry[0] if isinstance(entry[0], (list, tuple)) else entry
    return int(float(pair[1]))


def hours(session: Session, queue: str, day: str) -> Steps[list[int]]:
    """Count a day's jobs hour by hour, UTC: 24 numbers."""
    keys = session.keys(queue)
    start = day_start_ms(day)
    hour = DAY_MS // 24
    replies = yield [("ZCOUNT", keys.wheel(day), start + i * hour, f"({start + (i + 1) * hour}") for i in range(24)]
    return [int(n) for n in replies]


def queue_info(session: Session, queue: str) -> Steps[QueueInfo]:
    """Tell how a queue stands."""
    keys = session.keys(queue)
    names = yield from bucket_days(keys)
    now_ms = session.clock.now_ms()
    today = day_of(now_ms)
    past = [day for day in names if day < today]
    asks: list[tuple[Any, ...]] = [
        ("ZCARD", keys.processing),
        ("ZCARD", keys.dead),
        ("ZCARD", keys.done),
        ("HMGET", keys.meta, "paused", "cap", "trimmed", "orphans"),
        ("HGETALL", keys.workers),
        ("ZRANGE", keys.wheel(names[0]) if names else keys.wheel(today), 0, 0, "WITHSCORES"),
        ("ZCOUNT", keys.wheel(today), "-inf", now_ms),
    ]
    replies = yield [*asks, *(("ZCARD", keys.wheel(day)) for day in past)]
    processing, dead, done, meta, workers_raw, first, due_today = replies[:7]
    due = due_today + sum(replies[7:])
    scheduled = yield from count(session, queue, JobState.SCHEDULED)
    first_ms = _score(first) if first else None
    alive = sum(info.alive for info in _workers(workers_raw, now_ms))
    return QueueInfo(
        name=QueueName(queue), scheduled=scheduled, due=due, processing=processing, dead=dead, done=done,
        paused=meta[0] is not None, oldest_due_ms=first_ms if first_ms is not None and first_ms <= now_ms else None,
        next_fire_ms=first_ms, workers=alive, cap=int(meta[1]) if meta[1] else None,
        trimmed=int(meta[2] or 0), orphans=int(meta[3] or 0),
    )  # fmt: skip


def _workers(raw: Any, now_ms: int) -> list[WorkerInfo]:
    items = raw.items() if isinstance(raw, dict) else zip(raw[::2], raw[1::2], strict=True)
    result = []
    for name, value in items:
        try:
            entry = json.loads(value)
            result.append(
                WorkerInfo(
                    id=WorkerId(name.decode()), host=str(entry["host"]), pid=int(entry["pid"]),
                    queues=tuple(QueueName(q) for q in entry["queues"]), concurrency=int(entry["concurrency"]),
                    running=int(entry["running"]), started_ms=int(entry["started"]), beat_ms=int(entry["beat"]),
                    version=str(entry["version"]), alive=now_ms - int(entry["beat"]) < WORKER_SILENT_MS,
                )
            )  # fmt: skip
        except (ValueError, KeyError, TypeError):
            continue
    return result


def workers(session: Session, queue: str | None) -> Steps[list[WorkerInfo]]:
    """List the workers of a queue, or of all: those that beat within the last 45 s are alive."""
    names = [QueueName(queue)] if queue else (yield from queues(session))
    if not names:
        return []
    replies = yield [*(("HGETALL", session.keys(name).workers) for name in names), ("TIME",)]
    now_ms = int(replies[-1][0]) * 1000 + int(replies[-1][1]) // 1000
    found: dict[str, WorkerInfo] = {}
    for raw in replies[:-1]:
        for info in _workers(raw, now_ms):
            found[info.id] = info
    return sorted(found.values(), key=lambda info: (info.host, info.pid, info.id))
