"""Summons: a full worker that sees to a shard calls workers that wait for other shards, where a fleet spares.

All that wait for a shard may be full while others have room, and those do not hear its tokens. So a worker without room goes on
to look at the shards that it sees to. Where a job is overdue it puts a token on lists of other shards, and the token names the
shard. Whoever hears it looks at its own shard, as after any token, and at the one that is named.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from zwheel.broker.store import Store
from zwheel.errors import BrokerError
from zwheel.keys import ShardKeys, shard_names

from .poller import Poller

#: The first summons go to so many shards, those of the next beat to twice as many. A token that nobody hears stays where it is:
#: when all shards have one, so many beats pass before the next.
FIRST, AGAIN_BEATS = 8, 10


@dataclass(slots=True)
class _Sent:
    """Those for one shard."""

    most: int = FIRST
    skip: int = 0


class Summons:
    """Those that one worker sends. Belongs to the event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sent: dict[str, _Sent] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def turn(self, pollers: Sequence[Poller]) -> None:
        """What one beat asks for, while this worker has no room. pollers: of the shards that it sees to."""
        for poller in pollers:
            one = self._sent.setdefault(poller.keys.name, _Sent())
            one.skip -= 1
            if one.skip < 0:
                self._start(self._see(poller, one))

    def rest(self) -> None:
        """This worker has room: it claims by itself."""
        self._sent.clear()

    async def _see(self, poller: Poller, one: _Sent) -> None:
        keys = poller.keys
        with suppress(BrokerError):
            if not await poller.looks.overdue():
                one.most = FIRST
                return
            others = [name for name in shard_names(keys.queue, keys.shards) if name != keys.name]
            chosen = random.sample(others, min(one.most, len(others)))
            one.skip = AGAIN_BEATS if len(chosen) == len(others) else 0
            one.most *= 2
            nodes: dict[object, list[tuple[Any, ...]]] = {}
            for name in chosen:
                wake = ShardKeys.of(keys.namespace, name).wake
                # One token is enough on each list, whatever it says: the first stays.
                nodes.setdefault(self._store.node_of(wake), []).extend(
                    [("RPUSH", wake, keys.name), ("LTRIM", wake, 0, 0)]
                )
            # A node that is silent keeps no other waiting.
            sent = (self._store.send(commands, each=True) for commands in nodes.values())
            await asyncio.gather(*sent, return_exceptions=True)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Send no more."""
        for task in self._tasks:
            task.cancel()
