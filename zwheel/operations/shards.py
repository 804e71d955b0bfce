"""How many shards a queue has: the list of queues says it, and a session reads it once for each queue.

While a queue is cut anew the list says how many it has and how many it had: `8 4`. Jobs move from the former shards to the
others, so who looks for a job looks in the former ones first.
"""

from __future__ import annotations

from collections.abc import Iterable

from zwheel.broker.store import Steps
from zwheel.calls import Session, ShardsChanged, close_shard, open_shard, word
from zwheel.errors import BrokerRefused
from zwheel.keys import MOST_SHARDS, ShardKeys, queues_key, shard_names
from zwheel.outside import as_text, whole

#: So many queues are asked about in one round trip.
_PAGE = 1000


def learn_shards(session: Session, queues: Iterable[str]) -> Steps[None]:
    """Read how many shards these queues have, as far as the session does not know.

    A queue that is not on the list has one shard, which is not kept: somebody may create it with more.
    """
    yield from refresh_shards(session, [queue for queue in dict.fromkeys(queues) if queue not in session.counts])


def refresh_shards(session: Session, queues: Iterable[str]) -> Steps[bool]:
    """Read how many shards these queues have, also those that the session knows of. Returns whether it knew it all."""
    names = [queue for queue in dict.fromkeys(queues) if "/" not in queue]
    knew = True
    for start in range(0, len(names), _PAGE):
        part = names[start : start + _PAGE]
        try:
            (counts,) = yield (("HMGET", queues_key(session.namespace), *part),)
        except BrokerRefused as error:
            if error.code == "NOPERM":
                # This user may not read the list. Where a queue has more shards, the script says so.
                for queue in part:
                    session.counts.setdefault(queue, 1)
            continue
        for queue, raw in zip(part, counts, strict=True):
            before = session.cut(queue)
            note_count(session, queue, raw)
            knew = knew and before == session.cut(queue)
    return knew


def note_count(session: Session, queue: str, raw: object) -> None:
    """Keep what the list of queues says of a queue; what is no number of shards counts for one."""
    session.former.pop(queue, None)
    if raw is None:
        session.counts.pop(queue, None)
        return
    count, former = read_count(raw)
    session.counts[queue] = count
    if former is not None:
        session.former[queue] = former


def read_count(raw: object) -> tuple[int, int | None]:
    """Read what the list of queues says of one: how many shards it has, and while it is cut anew how many it had."""
    count, _, former = as_text(raw if isinstance(raw, (bytes, str)) else str(raw)).partition(" ")
    return whole(count, 1, MOST_SHARDS) or 1, whole(former, 1, MOST_SHARDS) if former else None


def shards_of(session: Session, queue: str) -> Steps[list[str]]:
    """Name the shards of a queue, the former ones first; one that is named by a shard's name is that shard alone."""
    yield from refresh_shards(session, [queue])
    return session.shards(queue)


def workers_key(session: Session, queue: str) -> str:
    """The key of the list of a queue's workers."""
    return session.keys(session.first_shard(queue)).workers


def former_keys(session: Session, queue: str) -> list[ShardKeys]:
    """The keys of the shards of a queue's former cut, while it is cut anew."""
    former = session.former.get(queue)
    return [] if former is None else [session.keys(shard) for shard in shard_names(queue, former)]


def present_keys(session: Session, queue: str) -> list[ShardKeys]:
    """The keys of the shards that a queue has now, without those of a former cut."""
    return [session.keys(shard) for shard in shard_names(queue, session.counts.get(queue, 1))]


def follow(session: Session, queue: str, changed: ShardsChanged) -> Steps[None]:
    """Learn of another number of shards, which a script told. Raises: BrokerError."""
    if (yield from refresh_shards(session, [queue])):
        # This user may not read the list: what the script told has to do.
        if changed.count:
            session.counts[queue] = changed.count
        if changed.former:
            session.former[queue] = changed.former
    if changed.unopened:
        yield from open_cut(session, queue)


def open_cut(session: Session, queue: str) -> Steps[None]:
    """Let the shards of the new cut take jobs: first those of the former cut take none any more.

    Whoever meets a new cut that is not open does this, so that nobody waits for a program that may have died in the middle.
    """
    former = session.former.get(queue)
    if former is None:
        return
    here = present_keys(session, queue)
    replies = yield [close_shard(keys, len(here), now=session.now) for keys in former_keys(session, queue)]
    if all(word(reply) != "whole" for reply in replies):
        yield [open_shard(keys, former, now=session.now) for keys in here]


__all__ = [
    "follow", "former_keys", "learn_shards", "note_count", "open_cut", "present_keys", "read_count", "refresh_shards",
    "shards_of", "workers_key",
]  # fmt: skip
