"""Reading jobs, with plain read-only commands. `overview` reads queues, days and workers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from zwheel.broker.store import Apart, Steps
from zwheel.calls import Session
from zwheel.calls.cancel import LEAST_KEPT_MS
from zwheel.errors import (
    BrokerError,
    BrokerRefused,
    InvalidInput,
    InvalidName,
    JobNotFound,
    UndecodableJob,
    WaitTimeout,
)
from zwheel.job import UNREADABLE, Failure, Job, JobId, JobState, QueueName, Reason
from zwheel.keys import ShardKeys, check_job_id, check_name, queues_key
from zwheel.operations.former import is_leaving
from zwheel.operations.shards import learn_shards, note_count, refresh_shards, shards_of
from zwheel.outside import Listing, Unreadable, as_text, flat, score_ms
from zwheel.record import bytes_apart, read_record
from zwheel.times import is_day

#: How many bytes of bodies that lie apart are read in one round trip, and how often a job that changes is read again.
_BODY_BYTES, _BODY_TRIES = 2_097_152, 3
#: How often to look for a job that is on its way to another shard, and how long to wait in between, seconds.
_MOVES, _ARRIVES_S = 200, 0.01


def each_alone(asks: Sequence[tuple[Any, ...]], *, away: bool = False) -> Steps[list[Any]]:
    """Ask for several things in one round trip, each for itself: what is refused is answered by its BrokerRefused.

    So a key of another type, or a key that this user may not read, hides only what it holds. away: what lies on a node that
    gives no answer is answered by its BrokerError too, as long as another node answers.
    """
    if not asks:
        return []
    try:
        return list((yield Apart(asks) if away else list(asks)))
    except BrokerRefused as error:
        if len(asks) == 1:
            return [error]
    half = len(asks) // 2
    return [*(yield from each_alone(asks[:half], away=away)), *(yield from each_alone(asks[half:], away=away))]


def is_away(reply: object) -> bool:
    """Whether a reply of `each_alone` says that there was no answer."""
    return isinstance(reply, BrokerError) and not isinstance(reply, BrokerRefused)


def time_ms(reply: Any) -> Steps[int]:
    """The answer to TIME as ms. Where the node that was asked gives none, another is asked."""
    if isinstance(reply, BrokerError):
        (reply,) = yield (("TIME",),)
    return int(reply[0]) * 1000 + int(reply[1]) // 1000


def queues(session: Session) -> Steps[Listing[QueueName]]:
    """Name every queue that was ever used, sorted. Entries of the list that no queue can be called are in `unreadable`."""
    (listed,) = yield (("HGETALL", queues_key(session.namespace)),)
    found: Listing[QueueName] = Listing()
    for name, count in flat(listed):
        try:
            found.append(QueueName(check_name(name.decode() if isinstance(name, bytes) else name)))
            note_count(session, found[-1], count)
        except (UnicodeDecodeError, InvalidName) as error:
            found.unreadable.append(Unreadable(name=as_text(name), queue="", reason=f"no name of a queue: {error}"))
    found.sort()
    return found


def ping(session: Session) -> Steps[float]:
    """Measure one round trip, ms."""
    started = time.perf_counter()
    yield (("PING",),)
    return (time.perf_counter() - started) * 1000


def snapshot(job_id: str, queue: str, raw: bytes, state: JobState = JobState.DEAD) -> Job:
    """Read a record; a record that this version cannot read becomes a job that says so, its bytes as the body."""
    try:
        return read_record(JobId(job_id), QueueName(queue), raw)
    except UndecodableJob as error:
        failure = Failure(at_ms=0, attempt=0, reason=Reason.UNDECODABLE, message=str(error))
        return Job(
            id=JobId(job_id), queue=QueueName(queue), task=UNREADABLE, state=state, attempt=0, max_attempts=0,
            fire_at_ms=0, token=0, worker=None, keep_ms=0, dedup=None, failures=(failure,), body=raw,
        )  # fmt: skip


def with_bodies(
    keys: ShardKeys, ids: Sequence[str] | Sequence[bytes], raws: Sequence[bytes | None]
) -> Steps[list[bytes | None]]:
    """Add to these records the bodies that lie apart. A record whose body is gone is read again: its job may have ended."""
    records = list(raws)
    left = [i for i, raw in enumerate(records) if raw and bytes_apart(raw)]
    for _ in range(_BODY_TRIES):
        gone: list[int] = []
        for part in _within(left, [bytes_apart(records[i] or b"") for i in left]):
            (bodies,) = yield from each_alone([("HMGET", keys.bodies, *(ids[i] for i in part))])
            for i, body in zip(part, bodies if isinstance(bodies, list) else [None] * len(part), strict=True):
                if body is None:
                    gone.append(i)
                else:
                    records[i] = (records[i] or b"") + body
        if not gone:
            break
        (again,) = yield (("HMGET", keys.jobs, *(ids[i] for i in gone)),)
        left = [i for i, raw in zip(gone, again, strict=True) if raw != records[i]]
        for i, raw in zip(gone, again, strict=True):
            records[i] = raw
        left = [i for i in left if bytes_apart(records[i] or b"")]
    return records


def _within(places: Sequence[int], sizes: Sequence[int]) -> Iterator[list[int]]:
    """Cut a list into parts whose bodies come to so many bytes, or one."""
    part: list[int] = []
    total = 0
    for place, size in zip(places, sizes, strict=True):
        if part and total + size > _BODY_BYTES:
            yield part
            part, total = [], 0
        part.append(place)
        total += size
    if part:
        yield part


def with_times(job: Job, lease: Any, died: Any, kept: Any) -> Job:
    """Add what the sets know about a job: the end of its lease, its death, the end of its tombstone.

    A score that is no time is left out.
    """
    from dataclasses import replace

    if job.state is JobState.PROCESSING:
        return replace(job, lease_until_ms=score_ms(lease))
    if job.state is JobState.DEAD:
        return replace(job, ended_at_ms=score_ms(died))
    if job.state in (JobState.DONE, JobState.CANCELLED):
        kept_ms = score_ms(kept)
        keep_ms = job.keep_ms if job.state is JobState.DONE else max(job.keep_ms, LEAST_KEPT_MS)
        # A tombstone is kept for so long from the end on: that is known by it.
        ended = None if kept_ms is None or kept_ms < keep_ms else kept_ms - keep_ms
        return replace(job, ended_at_ms=ended, kept_until_ms=kept_ms)
    return job


def get(session: Session, job_id: str, queue: str | None, *, only: bool = False) -> Steps[Job | None]:
    """Read one job, looking in every known queue when none is named: of several jobs with one id, a job that has not ended.

    only: refuse to choose between several that have not ended. Raises: InvalidInput.
    """
    found = yield from find(session, job_id, queue, only=only)
    return None if found is None else found[1]


def find(
    session: Session, job_id: str, queue: str | None, *, only: bool = False
) -> Steps[tuple[ShardKeys, Job] | None]:
    """The same, with the keys of the shard in which it is."""
    check_job_id(job_id)
    names = [QueueName(queue)] if queue else (yield from queues(session))
    yield from learn_shards(session, names)
    for _ in range(_MOVES):
        before = [session.cut(name) for name in names]
        found = yield from _find(session, job_id, names, queue, only)
        if found is not None:
            return found
        # One of the queues may have been cut anew since this session learned of its shards.
        yield from refresh_shards(session, names)
        knew = before == [session.cut(name) for name in names]
        if knew and not any(name in session.former for name in names):
            return None
        if not (yield from _on_its_way(session, job_id, names)):
            # What was in neither cut arrived between the two looks, or is nowhere.
            return (yield from _find(session, job_id, names, queue, only))
        yield _ARRIVES_S
    return None


def _find(
    session: Session, job_id: str, names: Sequence[QueueName], queue: str | None, only: bool
) -> Steps[tuple[ShardKeys, Job] | None]:
    """Look once: in each queue where the id says, in the former cut first, then where else it may be."""
    home = [shard for name in names if (shard := session.former_shard_of(name, job_id)) is not None]
    found = (yield from _find_in(session, job_id, home, queue, only)) if home else None
    if found is None and names:
        now = [session.shard_of(name, job_id) for name in names]
        found = yield from _find_in(session, job_id, now, queue, only)
        home += now
    if found is None:
        # A job that was enqueued with a dedup key is where that key belongs.
        others = [shard for name in names for shard in session.shards(name) if shard not in home]
        found = (yield from _find_in(session, job_id, others, queue, only)) if others else None
    return found


def _on_its_way(session: Session, job_id: str, names: Sequence[QueueName]) -> Steps[bool]:
    for name in names:
        if (yield from is_leaving(session, name, f"j{job_id}")):
            return True
    return False


def _find_in(
    session: Session, job_id: str, shards: Sequence[str], queue: str | None, only: bool
) -> Steps[tuple[ShardKeys, Job] | None]:
    keys = [session.keys(shard) for shard in shards]
    raws = yield from each_alone([("HGET", k.jobs, job_id) for k in keys])
    found = []
    for k, raw in zip(keys, raws, strict=True):
        if isinstance(raw, bytes):
            (whole,) = yield from with_bodies(k, [job_id], [raw])
            if whole is not None:
                found.append((k, snapshot(job_id, k.queue, whole)))
    living = [(k, job) for k, job in found if not job.state.terminal]
    if only and len(living) > 1:
        where = ", ".join(k.queue for k, _ in living[:5])
        raise InvalidInput(f"job {job_id} lives in several queues, {where}: name the queue")
    for k, job in living or found:
        scores = yield from each_alone([("ZSCORE", zset, job_id) for zset in (k.processing, k.dead, k.done)])
        return k, with_times(job, *scores)
    refused = [(k, raw) for k, raw in zip(keys, raws, strict=True) if isinstance(raw, BrokerRefused)]
    if refused and queue is not None:
        raise refused[0][1]
    if refused:
        where = ", ".join(k.queue for k, _ in refused[:5])
        raise BrokerRefused(
            f"no job {job_id} where this user may look; not looked at: {where} ({refused[0][1]})", refused[0][1].code
        )
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
            raise WaitTimeout(f"job {job_id} is still {job.state} after {timeout_s:g} s", job_id)
        if job.state is JobState.SCHEDULED:
            ahead = session.clock.seconds_until(job.fire_at_ms)
            pause = min(1.0, max(pause, ahead / 2))
        yield left
        pause = min(1.0, pause * 1.5)


def _zset(keys: ShardKeys, state: JobState) -> str:
    return {JobState.PROCESSING: keys.processing, JobState.DEAD: keys.dead}.get(state, keys.done)


def bucket_days(keys: ShardKeys) -> Steps[Listing[str]]:
    """Name the non-empty day buckets, oldest first. Entries of their index that name no day are in `unreadable`."""
    (names,) = yield (("ZRANGE", keys.days, 0, -1),)
    return sorted_days(names, keys.queue)


def sorted_days(names: Sequence[Any], queue: str) -> Listing[str]:
    """Tell the days of an index from what else is in it."""
    found: Listing[str] = Listing()
    for text in map(as_text, names):
        if is_day(text):
            found.append(text)
        else:
            found.unreadable.append(Unreadable(name=text, queue=queue, reason="it is in the index of days and is none"))
    return found


def jobs(session: Session, queue: str, state: JobState | None, limit: int, offset: int) -> Steps[Listing[Job]]:
    """Read a page of jobs: running first, then scheduled by fire time, then dead and ended, newest first.

    Of keys that hold something else, the unread ones are in `unreadable`. Raises: BrokerRefused, when none
    could be.
    """
    shards = yield from shards_of(session, queue)
    if len(shards) > 1:
        return (yield from _merged(session, shards, state, limit, offset))
    return (yield from _jobs_of(session.keys(shards[0]), state, limit, offset))


def _merged(
    session: Session, shards: Sequence[str], state: JobState | None, limit: int, offset: int
) -> Steps[Listing[Job]]:
    """A page of several shards: each gives what the whole page could be, since all of it may be there."""
    found: Listing[Job] = Listing()
    for shard in shards:
        part = yield from _jobs_of(session.keys(shard), state, offset + limit, 0)
        found += part
        found.unreadable += part.unreadable
    found.sort(key=_order)
    found[:] = found[offset : offset + limit]
    return found


def _order(job: Job) -> tuple[int, int]:
    """Running first, then scheduled by fire time, then dead and ended, newest first."""
    places = (JobState.PROCESSING, JobState.SCHEDULED, JobState.DEAD)
    if job.state.terminal:
        return (places.index(job.state) if job.state in places else len(places)), -(job.ended_at_ms or 0)
    return places.index(job.state), (job.lease_until_ms or 0) if job.state is JobState.PROCESSING else job.fire_at_ms


def _jobs_of(keys: ShardKeys, state: JobState | None, limit: int, offset: int) -> Steps[Listing[Job]]:
    queue = keys.queue
    state = JobState(state) if state else None
    if state in (JobState.DONE, JobState.CANCELLED):
        return Listing((yield from _ended(keys, state, limit, offset)))
    states = [state] if state else [JobState.PROCESSING, JobState.SCHEDULED, JobState.DEAD, JobState.DONE]
    found: list[tuple[bytes, JobState]] = []
    refused: list[tuple[JobState, BrokerRefused]] = []
    skip, readable = offset, False
    for wanted in states:
        try:
            sources = yield from _sources(keys, wanted)
        except BrokerRefused as error:
            refused.append((wanted, error))
            continue
        readable = readable or not sources
        for start in range(0, len(sources), 200):
            part = sources[start : start + 200]
            sizes = yield from each_alone([("ZCARD", zset) for zset, _ in part])
            for (zset, newest_first), size in zip(part, sizes, strict=True):
                if isinstance(size, BrokerRefused):
                    refused.append((wanted, size))
                    continue
                readable = True
                need = limit - len(found)
                if need <= 0:
                    break
                if skip >= size:
                    skip -= size
                    continue
                command = ("ZREVRANGE" if newest_first else "ZRANGE", zset, skip, skip + need - 1)
                (ids,) = yield (command,)
                found += [(i, wanted) for i in ids]
                skip = 0
    if refused and not readable:
        raise refused[0][1]
    return Listing(
        (yield from _read_many(keys, found, state)),
        [Unreadable(name=f"({wanted})", queue=queue, reason=str(error)) for wanted, error in refused],
    )


def _sources(keys: ShardKeys, state: JobState) -> Steps[list[tuple[str, bool]]]:
    """The sets in which jobs of a state lie, and whether they are read from the newest on."""
    if state is JobState.SCHEDULED:
        names = yield from bucket_days(keys)
        return [(keys.wheel(day), False) for day in names]
    return [(_zset(keys, state), state is not JobState.PROCESSING)]


def _ended(keys: ShardKeys, state: JobState, limit: int, offset: int) -> Steps[list[Job]]:
    """Read a page of done or of cancelled jobs. They share a set: it is read from its newest on until the page is full."""
    found: list[Job] = []
    start = 0
    while len(found) < offset + limit:
        (ids,) = yield (("ZREVRANGE", keys.done, start, start + 499),)
        if not ids:
            break
        found += yield from _read_many(keys, [(i, state) for i in ids], state)
        start += len(ids)
    return found[offset : offset + limit]


def _read_many(keys: ShardKeys, found: Sequence[tuple[bytes, JobState]], state: JobState | None) -> Steps[list[Job]]:
    result: list[Job] = []
    for start in range(0, len(found), 500):
        part = [job_id for job_id, _ in found[start : start + 500]]
        (stored,) = yield (("HMGET", keys.jobs, *part),)
        raws = yield from with_bodies(keys, part, stored)
        answers = yield from each_alone([("ZMSCORE", zset, *part) for zset in (keys.processing, keys.dead, keys.done)])
        leases, died, kept = ([None] * len(part) if isinstance(a, BrokerRefused) else a for a in answers)
        for i, job_id in enumerate(part):
            raw = raws[i]
            if raw is not None:
                job = snapshot(as_text(job_id), keys.queue, raw, found[start + i][1])
                job = with_times(job, leases[i], died[i], kept[i])
                if state is None or job.state is state:
                    result.append(job)
    return result


def count(session: Session, queue: str, state: JobState) -> Steps[int]:
    """Count the jobs of a queue in one state; done and cancelled share one set and are counted together."""
    total = 0
    for shard in (yield from shards_of(session, queue)):
        total += yield from _count_of(session.keys(shard), JobState(state))
    return total


def _count_of(keys: ShardKeys, state: JobState) -> Steps[int]:
    if state is not JobState.SCHEDULED:
        (size,) = yield (("ZCARD", _zset(keys, state)),)
        return int(size)
    names = yield from bucket_days(keys)
    total = 0
    for start in range(0, len(names), 500):
        sizes = yield [("ZCARD", keys.wheel(day)) for day in names[start : start + 500]]
        total += sum(sizes)
    return total
