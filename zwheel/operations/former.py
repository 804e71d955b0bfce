"""Looking in the shards of a former cut, while a queue is cut anew and jobs of those are on their way to the others.

Once such a shard is closed jobs only leave it: none comes. So what is not found there is in the new cut by now, or nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zwheel.broker.store import Steps
from zwheel.calls import NewJob, Session, ShardsChanged, placed
from zwheel.errors import BrokerRefused
from zwheel.job import Enqueued, JobId, JobState, QueueName
from zwheel.keys import ShardKeys
from zwheel.operations.shards import former_keys, open_cut, refresh_shards
from zwheel.outside import as_text, score_ms, whole
from zwheel.record import STATES, read_fields
from zwheel.times import MAX_MS

#: What is on its way arrives within some ms, or when another caller takes over: so often to look again, and pauses in s.
_TRIES, _PAUSE_S, _LONGEST_S = 60, 0.005, 0.5
#: The states of a job that gives way to a new one of its id, by what its caller asks for (`NewJob.replace`).
_GIVE_WAY = {False: b"c", True: b"cdx", None: b""}


def look_back(session: Session, batch: Sequence[NewJob], former: int) -> Steps[dict[int, Enqueued]]:
    """Find the jobs of a batch that stand in the former cut, of so many shards: by their places, what an enqueue answers.

    Waits for what is on its way, and for what is to give way to a new job. Raises: BrokerRefused; ShardsChanged, when there is
    no such cut any more.
    """
    found: dict[int, Enqueued] = {}
    queue, pause_s = batch[0].queue, _PAUSE_S
    left = list(range(len(batch)))
    for _ in range(_TRIES):
        waiting: list[int] = []
        shards: dict[str, list[int]] = {}
        for place in left:
            shards.setdefault(placed(queue, former, batch[place].id, batch[place].dedup), []).append(place)
        for shard, places in shards.items():
            met, waits = yield from _look_in(session, session.keys(shard), batch, places, former)
            found.update(met)
            waiting += waits
        if not waiting:
            return found
        left = waiting
        yield pause_s
        pause_s = min(_LONGEST_S, 1.3 * pause_s)
    raise BrokerRefused(
        f"queue {queue} is being cut anew, and job {batch[left[0]].id}, or the job that holds its dedup key, is still on "
        "its way; it was not stored: try again"
    )


def _look_in(
    session: Session, keys: ShardKeys, batch: Sequence[NewJob], places: Sequence[int], former: int
) -> Steps[tuple[dict[int, Enqueued], list[int]]]:
    """Look for jobs in one former shard. Returns those that are found, and those to look for again."""
    ids = [batch[place].id for place in places]
    digests = [batch[place].dedup for place in places if batch[place].dedup]
    # First: while this shard still takes jobs, one that is not here may come yet.
    asks: list[tuple[Any, ...]] = [("HGET", keys.meta, "shards"), ("HMGET", keys.jobs, *ids)]
    if digests:
        asks.append(("HMGET", keys.dedup, *digests))
    # Last: what has left the jobs by now is in here, or has arrived.
    asks.append(("HMGET", keys.leaving, *(f"j{job_id}" for job_id in ids), *(f"k{digest}" for digest in digests)))
    replies = yield asks
    closed, records, leaving = replies[0], replies[1], replies[-1]
    if closed is None:
        yield from _close(session, batch[0].queue, former)
        return {}, list(places)
    holders = dict(zip(digests, replies[2], strict=True)) if digests else {}
    gone = dict(zip([*ids, *digests], leaving, strict=True))
    found: dict[int, Enqueued] = {}
    waits: list[int] = []
    for place, record in zip(places, records, strict=True):
        job = batch[place]
        if record is not None and record[1:2] in _GIVE_WAY[job.replace]:
            waits.append(place)
        elif record is not None:
            found[place] = _existed(job.queue, job.id, record)
        elif gone[job.id] is not None:
            waits.append(place)
        elif job.dedup and holders[job.dedup] is not None:
            stays, held = yield from _holder(session, keys, job, holders[job.dedup])
            if not stays:
                waits.append(place)
            elif held is not None:
                found[place] = held
        elif job.dedup and gone[job.dedup] is not None:
            waits.append(place)
    return found, waits


def _close(session: Session, queue: str, former: int) -> Steps[None]:
    """Close the shards of a former cut. Raises: ShardsChanged, when the queue has no such cut any more."""
    count, _ = session.cut(queue)
    yield from refresh_shards(session, [queue])
    if session.cut(queue) != (count, former):
        raise ShardsChanged()
    yield from open_cut(session, queue)


def _holder(session: Session, keys: ShardKeys, job: NewJob, holder: bytes) -> Steps[tuple[bool, Enqueued | None]]:
    """Whether the dedup key is still there, and which job holds it; None when that ended and its window is over."""
    # The key last: it leaves together with its job, so what was read before it belongs together while it is there.
    record, until, now = yield (
        ("HGET", keys.jobs, holder), ("ZSCORE", keys.dedup_expiry, job.dedup), ("HGET", keys.dedup, job.dedup),
    )  # fmt: skip
    if now != holder:
        return False, None
    if record is not None and record[1:2] in b"spw" and digest_of(record) in (job.dedup, None):
        return True, _existed(job.queue, holder, record)
    if (score_ms(until) or 0) > session.clock.now_ms():
        return True, _existed(job.queue, holder, record or b"")
    return True, None


def digest_of(record: bytes) -> str | None:
    """The dedup digest of a record; '' for one without, None for a record that cannot be read."""
    try:
        fields, _ = read_fields(record)
    except (ValueError, LookupError):
        return None
    return fields.get("D", b"").decode()


def _existed(queue: QueueName, job_id: str | bytes, record: bytes) -> Enqueued:
    state = STATES.get(record[1:2].decode("latin-1"), JobState.DONE)
    fire = whole(record[6:21], 0, MAX_MS) or 0
    return Enqueued(job_id=JobId(as_text(job_id)), existed=True, queue=queue, state=state, fire_at_ms=fire)


def is_leaving(session: Session, queue: str, field: str) -> Steps[bool]:
    """Whether that is on its way from a shard of the former cut: a field of `leaving`."""
    asks = [("HEXISTS", keys.leaving, field) for keys in former_keys(session, queue)]
    if not asks:
        return False
    return any((yield asks))


def schedule_keys(session: Session, queue: str, name: str) -> Steps[ShardKeys]:
    """The keys of the shard in which a schedule of this name is, or would be: its occurrences are there too."""
    return (yield from schedule_place(session, queue, name))[0]


def schedule_place(session: Session, queue: str, name: str) -> Steps[tuple[ShardKeys, int | None]]:
    """The same, and how many shards the queue had when it was looked for in those too."""
    count, former = session.counts.get(queue, 1), session.former.get(queue)
    for _ in range(_TRIES):
        if former is None:
            break
        keys = session.keys(placed(queue, former, name))
        closed, here, leaving = yield (
            ("HGET", keys.meta, "shards"), ("HEXISTS", keys.schedules, name), ("HEXISTS", keys.leaving, f"n{name}"),
        )  # fmt: skip
        if here or closed is None:
            return keys, former
        if not leaving:
            break
        yield _PAUSE_S
    return session.keys(placed(queue, count, name)), former
