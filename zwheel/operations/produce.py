"""Producing: a batch of new jobs of one queue."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from zwheel.calls import NewJob, Session, enqueue, read_enqueue
from zwheel.errors import BrokerRefused
from zwheel.job import Enqueued
from zwheel.keys import queues_key
from zwheel.store import Steps

#: How often a call may meet another day than the one it named before something is plainly wrong.
_MOVES = 20
_CHUNK_BYTES = 8 * 1024 * 1024


def chunks(jobs: Iterable[NewJob], most: int) -> Iterator[list[NewJob]]:
    """Cut jobs into chunks of at most `most`, and of at most 8 MiB: large bodies make smaller chunks."""
    part: list[NewJob] = []
    size = 0
    for job in jobs:
        part.append(job)
        size += len(job.body)
        if len(part) >= most or size >= _CHUNK_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def join(session: Session, queue: str) -> Steps[None]:
    """Put a queue on the list of queues before its first jobs, so that one who may not touch the list stores nothing.

    A list that another program's key took the place of costs its jobs nothing: they are stored, and not listed.
    """
    try:
        yield (("HSETNX", queues_key(session.namespace), queue, 1),)
    except BrokerRefused as error:
        if error.code != "WRONGTYPE":
            raise


def enqueue_batch(session: Session, batch: Sequence[NewJob], known: set[str]) -> Steps[list[Enqueued]]:
    """Store up to 1000 jobs of one queue, all or none; answers in the batch's order.

    known: queues that are already in the list of queues; this one joins it.
    Raises: QueueFull, PayloadTooLarge.
    """
    queue = batch[0].queue
    keys = session.keys(queue)
    if queue not in known:
        yield from join(session, queue)
        known.add(queue)
    with session.lane() as lane:
        for _ in range(_MOVES):
            sent = enqueue(keys, batch, now_ms=session.clock.now_ms(), lane=lane, now=session.now)
            (reply,) = yield (sent.call,)
            answers = read_enqueue(sent, reply)
            if answers is not None:
                return answers
            # Another layout, another request: should a late copy of this one be carried out in its day after all, its
            # answer would be in another order.
            lane = lane._replace(request=session.request())
    raise BrokerRefused(f"queue {queue}: the server's clock and this machine's estimate of it do not come together")
