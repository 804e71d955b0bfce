"""Who looks at a shard although others keep time for it: two workers, which all workers of the queue agree on by themselves.

Each worker reads the list of workers now and then and ranks the living for a shard by a hash of both names. The first two that
do not keep time look on each beat, so that a shard whose two keepers died is found at once; all others look seldom. Where the
lists differ for a while, three look or one. In a small fleet all look on each beat: who watches may have died as well.
"""

from __future__ import annotations

import random
import time
import zlib
from collections.abc import Collection, Sequence

from zwheel.broker.store import Store
from zwheel.errors import BrokerError

from .peers import read_peer

#: The list is read again after so long, seconds; of very many so many are asked whether they live, and ranked.
_COUNT_S, _MOST = 60.0, 200
#: So many look at a shard beside those that keep time; in a fleet of so few all of them.
WATCHERS, FEW = 2, 20
#: So many of a ranking are kept: two may keep time.
KEPT = WATCHERS + 2
_MASK, _ODD = (1 << 64) - 1, 0x9E3779B97F4A7C15


class Fleet:
    """The workers of one queue, as one of them knows them."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._read_at = -_COUNT_S
        self._ranks: dict[bytes, int] = {}
        #: Shard -> the first of its ranking.
        self._first: dict[str, list[bytes]] = {}
        #: How many live; 0: nobody counted yet.
        self.size = 0

    async def refresh(self, store: Store) -> None:
        """Read the list, when it is time to. When it cannot be read, the old one holds."""
        if time.monotonic() - self._read_at < _COUNT_S:
            return
        self._read_at = time.monotonic() + random.uniform(-0.2, 0.2) * _COUNT_S
        try:
            (names,) = await store.send([("HKEYS", self._key)])
            # Of very many all workers choose the same few.
            ranked = sorted(names, key=_rank)[:_MOST]
            (rows,) = await store.send([("HMGET", self._key, *ranked)]) if ranked else ([],)
        except BrokerError:
            return
        now_ms = store.session.clock.now_ms()
        pairs = zip(ranked, rows, strict=True)
        living = [name for name, raw in pairs if raw is not None and read_peer(raw, now_ms) is not None]
        self.know(living, len(names) * len(living) // max(1, len(ranked)))

    def know(self, living: Sequence[bytes], size: int) -> None:
        """Take in who lives, and how many there are in all."""
        self.size = max(1, size)
        self._ranks, self._first = {name: _rank(name) for name in living}, {}

    def watches(self, shard: str, worker: bytes, keepers: Collection[bytes | None]) -> bool:
        """Whether this worker looks at a shard on each beat. keepers: who keeps time for it. While nothing is known, it does."""
        if self.size <= FEW:
            return True
        first = self._first.get(shard)
        if first is None:
            own = _rank(shard.encode())
            order = sorted(self._ranks, key=lambda name: ((self._ranks[name] ^ own) * _ODD & _MASK, name))
            first = self._first[shard] = order[:KEPT]
        return worker in [name for name in first if name not in keepers][:WATCHERS]


def _rank(name: bytes) -> int:
    return zlib.crc32(name) * _ODD & _MASK
