"""Who looks at a shard, and who listens to it, although others keep time for it: workers that all agree on by themselves.

Each worker reads the list of workers now and then and ranks the living of its group for a shard by a hash of both names. The
first two that do not keep time look on each beat, so that a shard whose two keepers died is found at once; all others look
seldom. Where the lists differ for a while, three look or one. In a small fleet all look on each beat: who watches may have died
as well.

On a cluster each shard that a worker listens to costs a connection, and each look a command. Where the workers and the shards
are many, a fleet spares both: see `spares`.
"""

from __future__ import annotations

import heapq
import math
import random
import time
import zlib
from collections.abc import Collection, Sequence

from zwheel.broker.store import Store
from zwheel.errors import BrokerError
from zwheel.keys import ShardKeys, shard_names

from .peers import read_peer

#: The list is read again after so long, by a fleet that spares, and when it could not be read, seconds; of very many so many are
#: asked whether they live, and ranked.
_COUNT_S, _SPARE_COUNT_S, _AGAIN_S, _MOST = 60.0, 20.0, 2.0, 200
#: Where somebody seems to be missing it is read again after so long, but not more often than so, seconds.
_SOON_S, _HURRY_S = 0.3, 3.0
#: So many look at a shard beside those that keep time; in a fleet of so few all of them.
WATCHERS, FEW = 2, 20
#: So many of a ranking are kept: two may keep time.
KEPT = WATCHERS + 2
#: A fleet that spares: so many listen to each shard at the least, and each worker to so many shards; only where all that would
#: wait for all shards are more than so many.
LISTENERS, NEAREST, ALL_WAIT = 2, 4, 200
_MASK, _ODD = (1 << 64) - 1, 0x9E3779B97F4A7C15


class Fleet:
    """The workers of one queue, as one of them knows them; ranked are those of its group, which know the same tasks."""

    def __init__(self, key: str, worker: bytes = b"", group: str = "") -> None:
        """key: of the list of workers. group: of this worker; '' when it does not say which tasks it knows."""
        self._key = key
        self._worker = worker
        self._group = group
        #: When the list was read, and when it is to be read again, monotonic seconds.
        self._read_at = self._next_at = -math.inf
        self._ranks: dict[bytes, int] = {}
        #: Shard -> the first of its ranking; number of shards -> those that this worker is nearest to.
        self._first: dict[str, list[bytes]] = {}
        self._nearest: dict[int, frozenset[str]] = {}
        #: How many live; 0: nobody counted yet. And whether some of them know other tasks.
        self.size = 0
        self.mixed = False

    @property
    def stale(self) -> bool:
        """Whether it is time to read the list."""
        return time.monotonic() >= self._next_at

    def hurry(self) -> None:
        """Somebody is not where the ranking says: read the list again soon."""
        self._next_at = min(self._next_at, max(time.monotonic() + _SOON_S, self._read_at + _HURRY_S))

    async def refresh(self, store: Store, *, spares: bool = False) -> None:
        """Read the list, when it is time to. When it cannot be read, the old one holds."""
        if not self.stale:
            return
        self._read_at = time.monotonic()
        self._next_at = self._read_at + random.uniform(0.8, 1.2) * (_SPARE_COUNT_S if spares else _COUNT_S)
        try:
            (names,) = await store.send([("HKEYS", self._key)])
            # Of very many all workers choose the same few.
            ranked = sorted(names, key=_rank)[:_MOST]
            (rows,) = await store.send([("HMGET", self._key, *ranked)]) if ranked else ([],)
        except BrokerError:
            self._next_at = self._read_at + _AGAIN_S
            return
        now_ms = store.session.clock.now_ms()
        pairs = zip(ranked, rows, strict=True)
        peers = {name: None if raw is None else read_peer(raw, now_ms) for name, raw in pairs}
        living = {name: peer for name, peer in peers.items() if peer is not None and not peer.stops}
        mates = [name for name, peer in living.items() if peer.group == self._group]
        self.mixed = len(mates) < len(living)
        self.know(mates, len(names) * len(living) // max(1, len(ranked)))

    def know(self, mates: Sequence[bytes], size: int) -> None:
        """Take in who lives of this worker's group, and how many live in all. This worker is one of them."""
        self.size = max(1, size)
        self._ranks = {name: _rank(name) for name in mates}
        if self._worker:
            self._ranks[self._worker] = _rank(self._worker)
        self._first, self._nearest = {}, {}

    def spares(self, shards: int) -> bool:
        """Whether there are so many workers and shards of one queue that on a cluster not everybody waits for each shard."""
        return shards > NEAREST and self.size * shards > ALL_WAIT

    def sees_to(self, shard: str) -> bool:
        """Whether this worker is the one that looks at a shard on each beat, where a fleet spares: the first of its ranking."""
        return self._firsts(shard)[:1] == [self._worker]

    def listens(self, keys: ShardKeys) -> bool:
        """Whether this worker listens to a shard of a cluster. Where they may be many it first learns how many workers there are.

        Where a fleet spares, the two after the first of the shard's ranking listen; and each worker listens to some shards, so
        that all can be called.
        """
        if self.size == 0 or not self.spares(keys.shards):
            return self.size > 0 or keys.shards <= NEAREST
        firsts = self._firsts(keys.name)
        if len(self._ranks) <= LISTENERS:
            return True
        return self._worker in firsts[1 : 1 + LISTENERS] or keys.name in self._near(keys.queue, keys.shards)

    def _near(self, queue: str, shards: int) -> frozenset[str]:
        """The shards that this worker is nearest to, without those that it sees to."""
        near = self._nearest.get(shards)
        if near is None:
            own = _rank(self._worker)
            names = [name for name in shard_names(queue, shards) if not self.sees_to(name)]
            order = heapq.nsmallest(NEAREST, names, key=lambda name: (_mixed(own, _rank(name.encode())), name))
            near = self._nearest[shards] = frozenset(order)
        return near

    def watches(self, shard: str, worker: bytes, keepers: Collection[bytes | None]) -> bool:
        """Whether a worker looks at a shard on each beat where a fleet does not spare. keepers: who keeps time for the shard.

        While nothing is known, it does.
        """
        if self.size <= FEW:
            return True
        return worker in [name for name in self._firsts(shard) if name not in keepers][:WATCHERS]

    def _firsts(self, shard: str) -> list[bytes]:
        first = self._first.get(shard)
        if first is None:
            own = _rank(shard.encode())
            order = heapq.nsmallest(KEPT, self._ranks, key=lambda name: (_mixed(self._ranks[name], own), name))
            first = self._first[shard] = order
        return first


def _mixed(one: int, other: int) -> int:
    return (one ^ other) * _ODD & _MASK


def _rank(name: bytes) -> int:
    return zlib.crc32(name) * _ODD & _MASK
