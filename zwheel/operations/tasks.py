"""Looking at what workers publish of their tasks, and at who serves them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from zwheel.broker.store import Steps
from zwheel.calls import Session
from zwheel.errors import BrokerError, BrokerRefused
from zwheel.info import QueueInfo, Serving, WorkerState
from zwheel.job import UNREADABLE
from zwheel.keys import tasks_key
from zwheel.operations.overview import read_workers
from zwheel.operations.read import each_alone, snapshot, time_ms
from zwheel.operations.shards import refresh_shards
from zwheel.outside import Listing, Unreadable, as_text, flat
from zwheel.published.task import PublishedTask, read_row

#: So many rows are read in one call; what comes after so many is left out.
_PAGE, _MOST = 200, 10_000


def tasks(session: Session) -> Steps[Listing[PublishedTask]]:
    """Read every task that a worker published, by name."""
    found: Listing[PublishedTask] = Listing()
    cursor = 0
    while len(found) < _MOST:
        (page,) = yield (("HSCAN", tasks_key(session.namespace), cursor, "COUNT", _PAGE),)
        for name, raw in flat(page[1]):
            task = read_row(name, raw)
            if task is not None:
                found.append(task)
            else:
                reason = "what is published of it cannot be read by this version"
                found.unreadable.append(Unreadable(name=as_text(name), queue="", reason=reason))
        cursor = int(page[0])
        if not cursor:
            break
    # A page may name a field twice.
    found[:] = sorted({task.name: task for task in found}.values(), key=lambda task: task.name)
    return found


def serving(session: Session, pairs: Iterable[tuple[str, str]]) -> Steps[dict[tuple[str, str], Serving]]:
    """Tell who serves a task in a queue, for pairs of both. A queue that cannot be looked at is left out."""
    wanted: dict[str, list[str]] = {}
    for queue, task in pairs:
        wanted.setdefault(queue, []).append(task)
    result: dict[tuple[str, str], Serving] = {}
    queues = list(wanted)
    for start in range(0, len(queues), _PAGE):
        part = queues[start : start + _PAGE]
        yield from refresh_shards(session, part)
        first = [session.keys(session.first_shard(queue)) for queue in part]
        asks: list[tuple[Any, ...]] = [("HGETALL", keys.workers) for keys in first]
        asks += [("HMGET", keys.meta, "paused") for keys in first]
        *replies, clock = yield from each_alone([*asks, ("TIME",)], away=True)
        if isinstance(clock, BrokerRefused):
            return result
        now_ms = yield from time_ms(clock)
        for queue, raw, meta in zip(part, replies[: len(part)], replies[len(part) :], strict=True):
            if isinstance(raw, BrokerError):
                continue
            paused = not isinstance(meta, BrokerError) and meta[0] is not None
            living = [info for info in read_workers(raw, now_ms, queue) if info.state is not WorkerState.DEAD]
            for task in wanted[queue]:
                result[queue, task] = Serving(
                    workers=len(living),
                    knowing=sum(info.tasks is not None and task in info.tasks for info in living),
                    silent=sum(info.tasks is None for info in living),
                    paused=paused,
                )
    return result


def next_tasks(session: Session, infos: Sequence[QueueInfo]) -> Steps[dict[str, str]]:
    """Name the task of the first job on the wheel of each of these queues, by queue; what cannot be read is left out."""
    found: dict[str, str] = {}
    asked = [info for info in infos if info.next_job]
    for start in range(0, len(asked), _PAGE):
        part = asked[start : start + _PAGE]
        records = yield from each_alone(
            [("HGET", session.keys(session.shard_of(info.name, info.next_job)).jobs, info.next_job) for info in part],
            away=True,
        )
        for info, raw in zip(part, records, strict=True):
            if isinstance(raw, bytes):
                task = snapshot(info.next_job, info.name, raw).task
                if task != UNREADABLE:
                    found[info.name] = task
    return found
