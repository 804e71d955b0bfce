"""Removing a queue: its keys, and its entry in the list of queues.

First each shard is closed: its `meta` says that the queue has 0 shards, so that a producer stores nothing there and reads
the list of queues again. Only then is it looked whether the shard is empty, and only then are its keys deleted. So a job
is stored before, and the queue stays, or its producer is told. A shard of several stays closed, by that one field: who still
believes in it when the queue is long gone is told as well.
"""

from __future__ import annotations

from zwheel.broker.store import Steps
from zwheel.calls import Session
from zwheel.errors import QueueInUse
from zwheel.info import QueueInfo
from zwheel.job import JobState
from zwheel.keys import MOST_SHARDS, ShardKeys, check_name, queues_key, shard_names
from zwheel.operations.act import Progress, purge
from zwheel.operations.listing import join
from zwheel.operations.overview import queue_info
from zwheel.operations.reshard import PAST
from zwheel.operations.schedules import remove_schedule, schedules
from zwheel.outside import as_text, whole
from zwheel.plain import counted

_CLOSED = 0
_STATES = (JobState.SCHEDULED, JobState.DEAD, JobState.DONE)


def remove_queue(session: Session, queue: str, *, jobs: bool, progress: Progress | None) -> Steps[int]:
    """Remove a queue that nobody serves. jobs: delete its jobs and schedules first. Returns how many jobs were deleted.

    Safe to repeat when it was cut off. Raises: QueueInUse; then the queue and what came meanwhile stay.
    """
    check_name(queue)
    session.counts.pop(queue, None)
    _check_unused((yield from queue_info(session, queue)))
    shards = [session.keys(shard) for shard in session.shards(queue)]
    deleted = 0
    if jobs:
        for found in (yield from schedules(session, queue)):
            yield from remove_schedule(session, found.name, queue)
        for state in _STATES:
            before = deleted
            deleted += yield from purge(session, queue, state, _behind(progress, before))
    yield [("HSET", keys.meta, "shards", _CLOSED) for keys in shards]
    there = yield [("EXISTS", key) for keys in shards for key in (keys.jobs, keys.schedules, keys.processing)]
    if any(there):
        yield [("HDEL", keys.meta, "shards") for keys in shards]
        came = " that came meanwhile: stop who makes them" if jobs else ""
        raise QueueInUse(queue, f"it has jobs or schedules{came}")
    yield from _delete(session, queue, [*(yield from _of_former_cuts(session, queue, shards[0])), *shards])
    return deleted


def _of_former_cuts(session: Session, queue: str, first: ShardKeys) -> Steps[list[ShardKeys]]:
    """The shards of former cuts, which kept their `meta`: closed for good."""
    (raw,) = yield (("HGET", first.meta, PAST),)
    counts = [count for word in as_text(raw or b"").split() if (count := whole(word, 1, MOST_SHARDS)) is not None]
    found = [session.keys(shard) for count in counts if count > 1 for shard in shard_names(queue, count)]
    if found:
        yield [("HSET", keys.meta, "shards", _CLOSED) for keys in found]
    return found


def _check_unused(info: QueueInfo) -> None:
    if info.former is not None:
        raise QueueInUse(
            info.name,
            f"it is being cut into {counted(info.shards, 'shard')}: wait until that is done, or bring it to its end with `zwheel queue reshard {info.name} --shards {info.shards}`",
        )
    workers = info.workers + info.workers_silent
    if workers:
        serve, them = ("serves", "it") if workers == 1 else ("serve", "them")
        raise QueueInUse(info.name, f"{counted(workers, 'worker')} {serve} it: stop {them} first")
    if info.processing:
        held = f"{counted(info.processing, 'job')} of it {'is' if info.processing == 1 else 'are'} held by workers that are gone"
        raise QueueInUse(info.name, f"{held}: start a worker, which takes them back")


def _behind(progress: Progress | None, before: int) -> Progress | None:
    return None if progress is None else lambda done: progress(before + done)


def _delete(session: Session, queue: str, shards: list[ShardKeys]) -> Steps[None]:
    """Delete the keys of closed and empty shards, and last what leads to them."""
    for keys in shards:
        (fields,) = yield (("HKEYS", keys.meta),)
        others = [name for name in map(as_text, fields) if name != "shards"]
        listed = (keys.workers,) if not keys.shard else ()
        asks: list[tuple[str, ...]] = [
            (
                "DEL", keys.bodies, keys.days, keys.dead, keys.done, keys.dedup, keys.dedup_expiry, keys.wake,
                keys.schedules_due, keys.arrived, *listed,
            )
        ]  # fmt: skip
        yield [*asks, ("HDEL", keys.meta, *others)] if others else asks
    # That of a queue with one shard, which is open from here on, or the one that sends producers to the several.
    plain = session.keys(queue).meta
    yield (("DEL", plain),)
    yield (("HDEL", queues_key(session.namespace), queue),)
    session.counts.pop(queue, None)
    (anew,) = yield (("EXISTS", plain),)
    if anew:
        yield from join(session, queue)
