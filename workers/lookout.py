"""Looks at shards for all parts of a worker that wait: many shards of a queue in one command.

A worker that has nothing to do must look all the same: a wake-up token may be lost, and another worker may die. That is not to
cost more with each shard. So all looks of a worker fall on one beat, and those of a beat go out together: a command for each
queue, and on a cluster one for each shard, since a command goes to one slot.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from zwheel.broker.store import Store
from zwheel.calls import Call, reading
from zwheel.errors import BrokerError, BrokerRefused
from zwheel.keys import ShardKeys
from zwheel.outside import as_text, flat

from .fleet import Fleet

#: From one beat to the next, seconds.
BEAT_S = 0.9
#: So long the first look of a beat waits for the others, and so many shards are looked at in one command.
_GATHER_S = 0.004
_MOST = 32


class Seen(NamedTuple):
    """How a shard stands, as Redis has it; None for what is not there."""

    day: bytes | None
    """The first day in the index."""
    head: bytes | None
    """The fire time of the first job of the day that was asked about."""
    first_lease: bytes | None
    last_lease: bytes | None
    """When the first and the last lease ends."""
    newest_dead: bytes | None
    """When the last job died."""
    keeper: bytes | None
    keeper_end: bytes | None
    second: bytes | None
    second_end: bytes | None
    """Who keeps time and who stands in, and how long."""
    lease: bytes | None
    """The longest lease in use, ms."""
    schema: bytes | None


@dataclass(slots=True)
class _Asked:
    """A look that is not answered yet; all who ask for it in one beat wait for the same."""

    keys: ShardKeys
    day: str
    answer: asyncio.Future[Seen]


class Lookout:
    """That of one worker. Belongs to the event loop."""

    def __init__(self, store: Store, worker: str = "", group: str = "") -> None:
        """group: that of the worker; '' when it does not publish which tasks it knows."""
        self._store = store
        self._who = worker.encode(), group
        self._began = time.monotonic() - random.uniform(0, BEAT_S)
        self._asked: dict[str, _Asked] = {}
        self._fleets: dict[str, Fleet] = {}
        #: Reads of a list of workers that are not sent yet, and who waits for them.
        self._lists: dict[str, asyncio.Future[dict[bytes, bytes]]] = {}
        self._soon: asyncio.TimerHandle | None = None
        #: Called when a list of workers was read.
        self.on_learned: Callable[[], None] = lambda: None
        self._tasks: set[asyncio.Task[None]] = set()

    def fleet(self, keys: ShardKeys) -> Fleet:
        """The workers of a shard's queue."""
        fleet = self._fleets.get(keys.workers)
        if fleet is None:
            fleet = self._fleets[keys.workers] = Fleet(keys.workers, *self._who)
        return fleet

    def learn(self, keys: ShardKeys) -> None:
        """Read who works on a shard's queue, when it is time to, and tell `on_learned`."""
        if self.fleet(keys).stale:
            self._start(self._learn(keys))

    async def _learn(self, keys: ShardKeys) -> None:
        await self.fleet(keys).refresh(self._store, spares=self.spares(keys))
        self.on_learned()

    def spares(self, keys: ShardKeys) -> bool:
        """Whether not everybody waits for each shard of a queue: it is on a cluster, and there are many."""
        return self._store.in_parts and self.fleet(keys).spares(keys.shards)

    def listens(self, keys: ShardKeys) -> bool:
        """Whether this worker is to hear wake-up tokens of a shard."""
        return not self._store.in_parts or self.fleet(keys).listens(keys)

    def until_beat(self, within_s: float) -> float:
        """How long until the last beat within this time; the whole time when no beat is within it. Seconds."""
        now = time.monotonic()
        beats = math.floor((now + within_s - self._began) / BEAT_S)
        until = self._began + beats * BEAT_S - now
        return until if until > 0 else within_s

    async def look(self, keys: ShardKeys, day: str = "") -> Seen:
        """See how a shard stands now. Raises: BrokerError."""
        asked = self._asked.get(keys.name)
        if asked is None:
            loop = asyncio.get_running_loop()
            asked = self._asked[keys.name] = _Asked(keys, day, loop.create_future())
            # Who asked may be gone when the answer comes.
            asked.answer.add_done_callback(lambda answer: answer.cancelled() or answer.exception())
            if len(self._asked) == 1:
                self._soon = loop.call_later(_GATHER_S, self._send)
        asked.day = asked.day or day
        return await asyncio.shield(asked.answer)

    async def rows(self, keys: ShardKeys) -> dict[bytes, bytes]:
        """Read the list of a queue's workers, once for all its shards that ask in one moment. Raises: BrokerError."""
        answer = self._lists.get(keys.workers)
        if answer is None:
            answer = self._lists[keys.workers] = asyncio.get_running_loop().create_future()
            answer.add_done_callback(lambda answer: answer.cancelled() or answer.exception())
            self._start(self._list(keys.workers, answer))
        return await asyncio.shield(answer)

    async def _list(self, key: str, answer: asyncio.Future[dict[bytes, bytes]]) -> None:
        await asyncio.sleep(_GATHER_S)
        del self._lists[key]
        try:
            (reply,) = await self._store.send([("HGETALL", key)])
            answer.set_result(dict(flat(reply)))
        except Exception as error:
            answer.set_exception(error)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _send(self) -> None:
        """Send what was asked: what lies on one node goes together, so that no node waits for another."""
        groups: dict[tuple[str, object], list[_Asked]] = {}
        for one in self._asked.values():
            groups.setdefault((one.keys.workers, self._store.node_of(one.keys.meta)), []).append(one)
        self._asked = {}
        for group in groups.values():
            for start in range(0, len(group), _MOST):
                self._start(self._ask(group[start : start + _MOST]))

    async def _ask(self, group: Sequence[_Asked]) -> None:
        parts = [[one] for one in group] if self._store.in_parts else [group]
        try:
            now = self._store.session.now
            replies = await self._store.send([_call(part, now) for part in parts], each=True)
            for part, reply in zip(parts, replies, strict=True):
                _answer(part, reply)
            keys = group[0].keys
            await self.fleet(keys).refresh(self._store, spares=self.spares(keys))
        except Exception as error:
            for one in group:
                if not one.answer.done():
                    one.answer.set_exception(error)

    async def aclose(self) -> None:
        """Look no more."""
        if self._soon is not None:
            self._soon.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _call(part: Sequence[_Asked], now: str) -> Call:
    keys = [
        key for one in part for key in (
            one.keys.meta, one.keys.days, one.keys.wheel(one.day or "19700101"), one.keys.processing, one.keys.dead,
        )
    ]  # fmt: skip
    return Call(reading("look"), keys, (now, *(one.day for one in part)))


def _answer(part: Sequence[_Asked], reply: Any) -> None:
    told = [] if isinstance(reply, BrokerError) else reply[2]
    for at, one in enumerate(part):
        if isinstance(reply, BrokerError):
            one.answer.set_exception(reply)
        elif len(told[at]) == 1:
            text = as_text(told[at][0])
            one.answer.set_exception(BrokerRefused(f"Redis refused a look at {one.keys.name}: {text}", text.split()[0]))
        else:
            one.answer.set_result(Seen(*told[at]))
