"""Hears of requests to cancel running jobs.

`cancel` writes such a request into the job's record, where whatever ends the claim reads it, and onto the list `asked` of the
shard. A worker looks at that list twice a second for the jobs that it runs, but not for those that run for less: so a worker
that is idle, or whose jobs are short, asks nothing. Where there are no requests, that is one EXISTS for each shard.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from zwheel.broker.store import Store
from zwheel.calls import BATCH_LIMIT
from zwheel.errors import BrokerError
from zwheel.keys import ShardKeys
from zwheel.outside import Sayer, escaped, score_ms

from .claims import Claim, Stop
from .runner import Runner

log = escaped("zwheel.worker")

#: From one look to the next, and how long a job runs before it is looked for, seconds.
LOOK_S = 0.4


class Cancels:
    """Those of one worker. Belongs to the event loop."""

    def __init__(self, store: Store, runner: Runner, served: Callable[[], list[ShardKeys]]) -> None:
        """served: the keys of the shards that the worker serves now."""
        self._store = store
        self._runner = runner
        self._served = served
        self._sayer = Sayer(log)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except BrokerError as error:
                log.debug("requests to cancel jobs cannot be seen now: %s", error)
            except Exception as error:
                self._sayer.say(
                    logging.ERROR, repr(error)[:200], "the look for requests to cancel failed: %r", error, trace=True
                )

    async def look(self) -> None:
        """Look once, and stop the jobs that were named. Raises: BrokerError."""
        since_ns = time.monotonic_ns() - int(LOOK_S * 1e9)
        running: dict[str, list[Claim]] = {}
        for claim in list(self._runner.held):
            if claim.claimed_ns < since_ns and not claim.ended and claim.stop in (None, Stop.CANCEL):
                running.setdefault(claim.queue, []).append(claim)
        nodes: dict[object, list[tuple[ShardKeys, list[Claim]]]] = {}
        for keys in self._served() if running else ():
            if claims := running.get(keys.name):
                nodes.setdefault(self._store.node_of(keys.meta), []).append((keys, claims))
        # A node that is silent keeps no other waiting.
        looks = [self._look(shards) for shards in nodes.values()]
        for ended in await asyncio.gather(*looks, return_exceptions=True):
            if isinstance(ended, BaseException):
                raise ended

    async def _look(self, shards: list[tuple[ShardKeys, list[Claim]]]) -> None:
        there = await self._store.send([("EXISTS", keys.asked) for keys, _ in shards])
        for (keys, claims), exists in zip(shards, there, strict=True):
            for start in range(0, len(claims) if exists else 0, BATCH_LIMIT):
                part = claims[start : start + BATCH_LIMIT]
                names = (claim.id + b" " + claim.token for claim in part)
                (found,) = await self._store.send([("ZMSCORE", keys.asked, *names)])
                for claim, asked in zip(part, found, strict=True):
                    if asked is not None:
                        self._runner.cancel(claim, score_ms(asked) or 1)
