"""The reaper: takes back jobs whose lease ran out, and deletes what is past its retention. It never reads a body."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence

from zwheel import calls
from zwheel.errors import BrokerError
from zwheel.keys import ShardKeys
from zwheel.outside import escaped
from zwheel.store import Store

from .claims import Observer
from .settings import WorkerSettings

log = escaped("zwheel.worker")

_BATCH = 100
_PRUNE_EVERY = 12
_IDLE_FACTOR = 3
#: A worker that is silent for this long is taken off the list, ms.
_FORGET_MS = 3_600_000


class Reaper:
    """Runs in every worker, jittered; each pass is bounded, and a pass that found much is followed by the next at once."""

    def __init__(
        self, store: Store, shards: Sequence[ShardKeys], settings: WorkerSettings, observer: Observer | None,
        idle: Callable[[], bool] = lambda: False, taken_back: Callable[[str], None] = lambda queue: None,
    ) -> None:  # fmt: skip
        self._store = store
        self._shards = shards
        self._settings = settings
        self._observer = observer
        #: Whether this worker has nothing to do and others keep time: then it looks less often than they.
        self._idle = idle
        #: Told of a queue that has due jobs again: the token for them may have gone to a worker that sleeps.
        self._taken_back = taken_back

    async def run(self) -> None:
        """Reap until cancelled."""
        rounds = random.randrange(_PRUNE_EVERY)
        while True:
            often = _IDLE_FACTOR if self._idle() else 1
            await asyncio.sleep(often * self._settings.reap_ms / 1000 * random.uniform(0.6, 1.0))
            rounds += 1
            for keys in self._shards:
                try:
                    await self._reap(keys)
                    if rounds % _PRUNE_EVERY == 0:
                        await self._prune(keys)
                except BrokerError as error:
                    log.info("queue %s: reaping waits for Redis: %s", keys.queue, error)
                except Exception:
                    log.exception("queue %s: the reaper failed; it goes on", keys.queue)

    async def _reap(self, keys: ShardKeys) -> None:
        session = self._store.session
        (first,) = await self._store.send([("ZRANGE", keys.processing, 0, 0, "WITHSCORES")])
        if not first or int(float(first[1])) > session.clock.now_ms():
            return
        while True:
            call = calls.reap(
                keys, limit=_BATCH, lease_ms=self._settings.lease_ms, most_dead=self._settings.most_dead,
                now_ms=session.clock.now_ms(), now=session.now,
            )  # fmt: skip
            (reply,) = await self._store.send([call])
            reaped = calls.read_reap(reply)
            if reaped is None:
                continue
            if reaped.back or reaped.dead:
                log.warning(
                    "queue %s: took back %d jobs whose lease ran out, %d of them dead",
                    keys.queue, len(reaped.back) + len(reaped.dead), len(reaped.dead),
                )  # fmt: skip
                if self._observer is not None:
                    self._observer("reaped", {"back": reaped.back, "dead": reaped.dead})
            if reaped.back:
                self._taken_back(keys.queue)
            if reaped.looked_at < _BATCH:
                return

    async def _prune(self, keys: ShardKeys) -> None:
        session = self._store.session
        taken = _BATCH
        while taken >= _BATCH:
            call = calls.prune(keys, limit=_BATCH, dead_age_ms=self._settings.dead_age_ms, now=session.now)
            (reply,) = await self._store.send([call])
            taken = calls.read_count(reply)
        (entries,) = await self._store.send([("HGETALL", keys.workers)])
        items = entries.items() if isinstance(entries, dict) else zip(entries[::2], entries[1::2], strict=True)
        limit = session.clock.now_ms() - _FORGET_MS
        gone = [name for name, value in items if _beat_of(value) < limit]
        if gone:
            await self._store.send([("HDEL", keys.workers, *gone)])


def _beat_of(value: bytes) -> int:
    try:
        return int(json.loads(value)["beat"])
    except (ValueError, KeyError, TypeError):
        return 0
