"""How many shards a queue has: the list of queues says it, and a session reads it once for each queue."""

from __future__ import annotations

from collections.abc import Iterable

from zwheel.broker.store import Steps
from zwheel.calls import Session
from zwheel.errors import BrokerRefused
from zwheel.keys import MOST_SHARDS, queues_key
from zwheel.outside import whole

#: So many queues are asked about in one round trip.
_PAGE = 1000


def learn_shards(session: Session, queues: Iterable[str]) -> Steps[None]:
    """Read how many shards these queues have, as far as the session does not know.

    A queue that is not on the list has one shard, which is not kept: somebody may create it with more.
    """
    unknown = [queue for queue in dict.fromkeys(queues) if queue not in session.counts and "/" not in queue]
    for start in range(0, len(unknown), _PAGE):
        part = unknown[start : start + _PAGE]
        try:
            (counts,) = yield (("HMGET", queues_key(session.namespace), *part),)
        except BrokerRefused as error:
            if error.code == "NOPERM":
                # This user may not read the list. Where a queue has more shards, the script says so.
                session.counts.update(dict.fromkeys(part, 1))
            continue
        for queue, raw in zip(part, counts, strict=True):
            note_count(session, queue, raw)


def note_count(session: Session, queue: str, raw: object) -> None:
    """Keep what the list of queues says of a queue; what is no number of shards counts for one."""
    if raw is not None:
        session.counts[queue] = whole(raw, 1, MOST_SHARDS) or 1


def shards_of(session: Session, queue: str) -> Steps[list[str]]:
    """Name the shards of a queue; one that is named by a shard's name is that shard alone."""
    yield from learn_shards(session, [queue])
    return session.shards(queue)


def workers_key(session: Session, queue: str) -> str:
    """The key of the list of a queue's workers."""
    return session.keys(session.shards(queue)[0]).workers


__all__ = ["learn_shards", "note_count", "shards_of", "workers_key"]
