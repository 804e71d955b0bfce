"""Acting on jobs and queues: cancel, reschedule, pause, purge, redrive."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zwheel import calls
from zwheel.broker.store import Steps
from zwheel.calls import BATCH_LIMIT, Session
from zwheel.errors import BrokerError, BrokerRefused, InvalidInput, QueueExists
from zwheel.job import CancelOutcome, Job, JobState, RescheduleOutcome
from zwheel.keys import ShardKeys, check_count, check_job_id, check_name, queues_key, shard_names
from zwheel.operations.listing import joined, may_join
from zwheel.operations.read import bucket_days, find, snapshot
from zwheel.operations.shards import note_count, read_count, shards_of
from zwheel.outside import as_text, flat, score_ms
from zwheel.times import day_of

Progress = Callable[[int], None]
_TRIES = 20
#: No cap is larger: every number up to here is exact in a script.
MOST_CAP = 10**12
#: Records are read in larger slices while a slice is no larger than that, bytes.
_SLICE_BYTES = 512 * 1024
_CANCEL = {
    "c": CancelOutcome.CANCELLED,
    "a": CancelOutcome.CANCELLED,
    "q": CancelOutcome.CANCEL_REQUESTED,
    "e": CancelOutcome.TOO_LATE,
    "m": CancelOutcome.UNKNOWN,
}
_RESCHEDULE = {
    "s": RescheduleOutcome.RESCHEDULED,
    "r": RescheduleOutcome.RUNNING,
    "e": RescheduleOutcome.ENDED,
    "m": RescheduleOutcome.MISSING,
}
_UNREADABLE = "job {}: its record was written by another version of zwheel and cannot be changed by this one"


def cancel(session: Session, job_id: str, queue: str | None) -> Steps[CancelOutcome]:
    """Take a scheduled job off the wheel, or ask for the end of a running one. Decided by one script.

    After `cancelled` it never starts, and after `cancel_requested` it is never tried again.
    """
    for _ in range(_TRIES):
        found = yield from find(session, job_id, queue, only=True)
        if found is None:
            return CancelOutcome.UNKNOWN
        keys, job = found
        queue = job.queue
        with session.lane() as lane:
            call = calls.cancel(keys, [job_id], day=day_of(job.fire_at_ms), lane=lane, now=session.now)
            (reply,) = yield (call,)
        letter = calls.read_letters(reply)
        if letter == "u":
            raise BrokerRefused(_UNREADABLE.format(job_id))
        if letter == "c":
            session.doubts.over(queue, job_id)
        if letter in _CANCEL and letter != "m":  # What has gone from where it was found may be in another shard by now.
            return _CANCEL[letter]
    raise BrokerRefused(f"job {job_id} moves faster than it can be cancelled")


def reschedule(
    session: Session, job_id: str, queue: str | None, at_ms: int | None, delay_ms: int
) -> Steps[RescheduleOutcome]:
    """Move a scheduled job to another time. Decided by one script: it runs at the old time or at the new one."""
    for _ in range(_TRIES):
        found = yield from find(session, job_id, queue, only=True)
        if found is None:
            return RescheduleOutcome.MISSING
        keys, job = found
        queue = job.queue
        with session.lane() as lane:
            call = calls.reschedule(
                keys, job_id, day=day_of(job.fire_at_ms), at_ms=at_ms, delay_ms=delay_ms,
                now_ms=session.clock.now_ms(), lane=lane, now=session.now,
            )  # fmt: skip
            (reply,) = yield (call,)
        letter = calls.read_reschedule(reply)
        if letter == "u":
            raise BrokerRefused(_UNREADABLE.format(job_id))
        if letter in _RESCHEDULE and letter != "m":  # see `cancel`
            return _RESCHEDULE[letter]
    raise BrokerRefused(f"job {job_id} moves faster than it can be rescheduled")


def create_queue(session: Session, queue: str, count: int) -> Steps[None]:
    """Put a new queue on the list, with so many shards. Safe to repeat with the same number.

    Raises: InvalidInput, QueueExists when it exists with another number; nothing was changed.
    """
    check_name(queue)
    check_count(count)
    listing = queues_key(session.namespace)
    # That all of its shards can be reached is seen before anything is made.
    yield [("HGET", session.keys(shard).meta, "shards") for shard in shard_names(queue, count)]
    made, raw = yield (("HSETNX", listing, queue, count), ("HGET", listing, queue))
    note_count(session, queue, None)
    if not made and read_count(raw)[0] != count:
        raise QueueExists(queue, read_count(raw)[0])
    if count > 1:
        # A producer that stores its first job right now may still believe that the queue has one shard. From here on
        # that shard takes no job.
        keys = session.keys(queue)
        if made:  # Shards of a queue of this name that was removed are closed.
            yield [("HDEL", session.keys(shard).meta, "shards") for shard in shard_names(queue, count)]
        try:
            _, jobs = yield (("HSET", keys.meta, "shards", count), ("EXISTS", keys.jobs))
        except BrokerError:
            if made:
                yield (("HDEL", listing, queue),)
            raise
        if jobs and made:
            yield (("HSET", listing, queue, 1), ("HDEL", keys.meta, "shards"))
            raise QueueExists(queue, 1)
    session.counts[queue] = count


def pause(session: Session, queue: str) -> Steps[None]:
    """Stop claims of a queue; what runs goes on. After this returns no new claim succeeds."""
    shards = yield from shards_of(session, queue)
    yield from may_join(session, queue)
    now_ms = str(session.clock.now_ms())
    yield [("HSET", session.keys(shard).meta, "paused", now_ms) for shard in shards]
    yield from joined(session, queue)


def resume(session: Session, queue: str) -> Steps[None]:
    """Allow claims again and wake a poller."""
    asks: list[tuple[str, ...]] = []
    for shard in (yield from shards_of(session, queue)):
        keys = session.keys(shard)
        asks += [("HDEL", keys.meta, "paused"), ("DEL", keys.wake), ("RPUSH", keys.wake, "1")]
    yield asks


def set_cap(session: Session, queue: str, cap: int | None) -> Steps[None]:
    """Limit the living jobs of a queue, or lift the limit with None. Jobs over it are refused at enqueue.

    Each shard has its part of it, rounded up.
    """
    if cap is not None and (isinstance(cap, bool) or not isinstance(cap, int) or cap < 1):
        raise InvalidInput(f"cap: {cap!r} is not a whole number from 1 on, or None")
    if cap is not None and cap > MOST_CAP:
        raise InvalidInput(f"cap: more than {MOST_CAP:,} jobs, which no server holds; None for no limit")
    all_keys = [session.keys(shard) for shard in (yield from shards_of(session, queue))]
    if cap is None:
        yield [("HDEL", keys.meta, "cap") for keys in all_keys]
    else:
        yield from may_join(session, queue)
        # While the queue is cut anew, the shards of each cut share it out among themselves.
        yield [("HSET", keys.meta, "cap", -(-cap // keys.shards)) for keys in all_keys]
        yield from joined(session, queue)


def set_precise(session: Session, queue: str, precise: bool) -> Steps[None]:
    """Let workers take jobs of a queue a few ms ahead and hold them until their very time, or no longer do so."""
    all_keys = [session.keys(shard) for shard in (yield from shards_of(session, queue))]
    if not precise:
        yield [("HDEL", keys.meta, "precise") for keys in all_keys]
        return
    yield from may_join(session, queue)
    asks: list[tuple[str | int, ...]] = []
    for keys in all_keys:
        # Whoever keeps time for the shard claims at once, and knows of it then.
        asks += [("HSET", keys.meta, "precise", 1), ("DEL", keys.wake), ("RPUSH", keys.wake, "1")]
    yield asks
    yield from joined(session, queue)


def purge(session: Session, queue: str, state: JobState, progress: Progress | None) -> Steps[int]:
    """Delete every job of a queue that is scheduled, done or dead, in batches of 500. Returns how many.

    Raises: InvalidInput for processing: running jobs end by themselves.
    """
    state = JobState(state)
    if state is JobState.PROCESSING:
        raise InvalidInput("running jobs cannot be purged: pause the queue and let them end")
    if state is JobState.CANCELLED:
        raise InvalidInput("cancelled jobs are kept with those that are done: purge these, or let them lapse")
    total = 0
    for shard in (yield from shards_of(session, queue)):
        keys = session.keys(shard)
        if state is JobState.SCHEDULED:
            names = yield from bucket_days(keys)
            sets = [(keys.wheel(day), day) for day in names]
        else:
            sets = [(keys.dead if state is JobState.DEAD else keys.done, "")]
        for zset, day in sets:
            total += yield from _purge_set(session, keys, zset, day, None, total, progress)
    return total


def _purge_set(
    session: Session, keys: ShardKeys, zset: str, day: str, highest: int | None, before: int,
    progress: Progress | None, ids: Sequence[str] = (),
) -> Steps[int]:  # fmt: skip
    if session.doubts:
        yield from _free(session, keys.queue, zset)
    total = past = 0
    while True:
        call = calls.purge(keys, zset, day=day, limit=500, highest=highest, past=past, ids=ids, now=session.now)
        (reply,) = yield (call,)
        gone, left = calls.read_purge(reply)
        total, past = total + gone, past + left
        if progress is not None and gone:
            progress(before + total)
        # Not only a full batch has others behind it: large jobs come in smaller ones.
        if not gone and not left:
            return total


def _free(session: Session, queue: str, zset: str) -> Steps[None]:
    """Free the ids of jobs that are about to be purged and whose enqueue had an unknown outcome for this client."""
    doubtful = session.doubts.of(queue)
    for start in range(0, len(doubtful), BATCH_LIMIT):
        part = doubtful[start : start + BATCH_LIMIT]
        (scores,) = yield (("ZMSCORE", zset, *part),)
        for job_id, score in zip(part, scores, strict=True):
            if score is not None:
                session.doubts.over(queue, job_id)


def purge_dead(
    session: Session, queue: str, job_ids: Sequence[str] | None, older_than_ms: int | None, progress: Progress | None
) -> Steps[int]:
    """Delete dead jobs: the given ones, or all that died at least `older_than_ms` ago, or all. Returns how many."""
    total = 0
    highest = None
    if job_ids is None:
        if older_than_ms is None:
            return (yield from purge(session, queue, JobState.DEAD, progress))
        (reply,) = yield (("TIME",),)
        highest = int(reply[0]) * 1000 + int(reply[1]) // 1000 - older_than_ms
    for shard in (yield from shards_of(session, queue)):
        keys = session.keys(shard)
        if job_ids is None:
            total += yield from _purge_set(session, keys, keys.dead, "", highest, total, progress)
            continue
        for start in range(0, len(job_ids), BATCH_LIMIT):
            part = [check_job_id(job_id) for job_id in job_ids[start : start + BATCH_LIMIT]]
            total += yield from _purge_set(session, keys, keys.dead, "", None, total, progress, part)
    return total


def matcher(reason: str | None, task: str | None) -> Callable[[Job], bool] | None:
    """Build the test that picks dead jobs by reason and task; None picks all."""
    if reason is None and task is None:
        return None
    return lambda job: (reason is None or job.reason == reason) and (task is None or job.task == task)


def redrive(
    session: Session,
    queue: str,
    job_ids: Sequence[str] | None,
    matches: Callable[[Job], bool] | None,
    progress: Progress | None,
) -> Steps[int]:
    """Put dead jobs back on the wheel, due now: the given ones, or all that match, oldest first. Returns how many.

    Jobs that died after this call began are left. A job whose dedup key another job holds by now stays dead.
    """
    total = 0
    for shard in (yield from shards_of(session, queue)):
        keys = session.keys(shard)
        if job_ids is not None:
            moved, _ = yield from _redrive_ids(session, keys, [check_job_id(i) for i in job_ids], total, progress)
        else:
            moved = yield from _redrive_shard(session, keys, matches, total, progress)
        total += moved
    return total


def _redrive_shard(
    session: Session, keys: ShardKeys, matches: Callable[[Job], bool] | None, before: int, progress: Progress | None
) -> Steps[int]:
    newest, clock = yield (("ZRANGE", keys.dead, -1, -1, "WITHSCORES"), ("TIME",))
    if not newest:
        return 0
    died_ms = score_ms(next(score for _, score in flat(newest)))
    # A dead job with a time that cannot be is left to `doctor --repair`.
    highest = int(clock[0]) * 1000 + int(clock[1]) // 1000 if died_ms is None else died_ms
    total = 0
    stayed = 0
    while True:
        (ids,) = yield (("ZRANGE", keys.dead, "-inf", highest, "BYSCORE", "LIMIT", stayed, 500),)
        if not ids:
            return total
        names: list[bytes] = list(ids)
        chosen = names
        if matches is not None:
            raws = yield from _records(keys, names)
            chosen = [
                n for n, raw in zip(names, raws, strict=True) if raw and matches(snapshot(as_text(n), keys.queue, raw))
            ]
        moved, _ = yield from _redrive_ids(session, keys, chosen, before + total, progress)
        total += moved
        # Jobs that are still in the dead set are passed over in the next turn: they were not chosen, another job holds
        # their dedup key, or they have no record.
        (listed,) = yield (("ZMSCORE", keys.dead, *names),)
        stayed += sum(score is not None for score in listed)


def _records(keys: ShardKeys, names: Sequence[bytes]) -> Steps[list[bytes | None]]:
    """Read records in slices that grow while they are small and shrink when they are large: 4 to 256 at a time."""
    records: list[bytes | None] = []
    size = 4
    while len(records) < len(names):
        (part,) = yield (("HMGET", keys.jobs, *names[len(records) : len(records) + size]),)
        records += part
        large = sum(len(record) for record in part if record) > _SLICE_BYTES
        size = max(4, size // 4) if large else min(256, size * 4)
    return records


def _redrive_ids(
    session: Session, keys: ShardKeys, ids: Sequence[str] | Sequence[bytes], before: int, progress: Progress | None
) -> Steps[tuple[int, int]]:
    """Redrive these. Returns how many were, and how many are still dead; the others were not dead any more."""
    total = 0
    left = 0
    start = 0
    while start < len(ids):
        part = ids[start : start + BATCH_LIMIT]
        for _ in range(_TRIES):
            with session.lane() as lane:
                call = calls.redrive(keys, part, now_ms=session.clock.now_ms(), lane=lane, now=session.now)
                (reply,) = yield (call,)
            letters = calls.read_letters(reply)
            if letters is not None:
                break
        else:
            raise BrokerRefused(f"queue {keys.queue}: the server's clock cannot be followed")
        # The script left the last jobs when their records became too many bytes for one call. The next call asks for them.
        start += len(part) - letters.count("l")
        total += letters.count("r")
        left += letters.count("k") + letters.count("u")
        if progress is not None:
            progress(before + total)
    return total, left
