"""Follows queues that are cut into another number of shards: serves the new shards, and moves on what others left behind.

The poller of a shard of the former cut meets the new one with its next claim. From then on this worker serves the shards of
both, until nothing is left in the former ones. Whoever began the move may have died: then the workers move the jobs.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from zwheel.broker.store import Steps, Store
from zwheel.calls import Session
from zwheel.errors import BrokerError, BrokerUnavailable, OutcomeUnknown, ZwheelError
from zwheel.keys import queue_of
from zwheel.operations.reshard import how_far, move
from zwheel.operations.shards import refresh_shards
from zwheel.outside import Sayer, escaped
from zwheel.plain import counted

from .shards import Shards

log = escaped("zwheel.worker")

#: How often to ask how many shards the queues have when nothing told of a change, seconds.
_ASK_S = (45.0, 90.0)
#: Schedules that moved here are looked at so often, and after the first while so often, seconds.
_LOOK_S, _LATER_S, _BRISK_S = 0.2, 2.0, 60.0
#: Some worker moves jobs about so often, seconds.
_MOVE_S = 1.0


class Cuts:
    """Belongs to one worker and its event loop."""

    def __init__(self, store: Store, queues: Sequence[str], shards: Shards, signed_on: Callable[[], None]) -> None:
        """signed_on: called when this worker is to be on the list of workers of other shards too."""
        self._store = store
        self._queues = list(dict.fromkeys(queues))
        self._shards = shards
        self._sign_on = signed_on
        self._kicked = asyncio.Event()
        self._dropping: dict[str, asyncio.Task[None]] = {}
        #: Since when each queue is being cut anew, as far as this worker knows; when it moves jobs next. Monotonic seconds.
        self._since: dict[str, float] = {}
        self._move_at = 0.0
        self._sayer = Sayer(log)

    def kick(self) -> None:
        """A shard said that its queue was cut anew."""
        self._kicked.set()

    async def run(self) -> None:
        """Follow until cancelled."""
        try:
            while True:
                self._kicked.clear()
                await self._try(self._follow)
                await self._pause()
        finally:
            for task in self._dropping.values():
                task.cancel()
            await asyncio.gather(*self._dropping.values(), return_exceptions=True)

    async def _try(self, act: Callable[[], Awaitable[None]]) -> None:
        """Do it; trouble is said, and the worker goes on."""
        try:
            await act()
        except (BrokerUnavailable, OutcomeUnknown) as error:
            log.debug("shards are looked at later: %s", error)
        except ZwheelError as error:
            self._sayer.say(logging.WARNING, str(error), "shards are looked at later: %s", error)
        except Exception as error:
            self._sayer.say(
                logging.ERROR, repr(error)[:200], "looking at shards failed; the worker goes on: %r", error, trace=True
            )

    async def _pause(self) -> None:
        if self._since:
            brisk = time.monotonic() - max(self._since.values()) < _BRISK_S
            pause = _LOOK_S if brisk else _LATER_S
        else:
            pause = random.uniform(*_ASK_S)
        try:
            async with asyncio.timeout(pause):
                await self._kicked.wait()
        except TimeoutError:
            return

    async def _follow(self) -> None:
        await self._store.drive(refresh_shards(self._store.session, self._queues))
        for queue in self._queues:
            self._serve(queue)
        for shard in self._shards:
            if shard.keys.queue in self._since and not self._shards.follows(shard.keys.name):
                # A schedule may have moved there, which is due soon.
                shard.scheduler.kick()
        if self._since and time.monotonic() >= self._move_at:
            await self._move()

    def _serve(self, queue: str) -> None:
        """Serve the shards that the queue has now, and no others."""
        session = self._store.session
        now = session.shards(queue)
        here = [shard.keys.name for shard in self._shards if shard.keys.queue == queue]
        new = [name for name in now if name not in here]
        for name in new:
            self._shards.add(session.keys(name))
        if new:
            self._sign_on()
        for name in here:
            if name not in now and name not in self._dropping:
                self._dropping[name] = asyncio.create_task(self._drop(name))
        if queue in session.former:
            if queue not in self._since:
                self._since[queue] = time.monotonic()
                # Whoever cut it moves its jobs, as a rule.
                self._move_at = time.monotonic() + 2 * _MOVE_S
                log.info("queue %s: it is being cut into %s", queue, counted(session.counts[queue], "shard"))
        elif self._since.pop(queue, None) is not None:
            log.info("queue %s: all its jobs are in its new shards", queue)

    async def _drop(self, name: str) -> None:
        keys = self._store.session.keys(name)
        try:
            await self._shards.drop(name)
            if not any(shard.keys.workers == keys.workers for shard in self._shards):
                await self._store.send([("HDEL", keys.workers, self._shards.worker)])
        except BrokerError as error:
            log.info("queue %s: could not sign off from its former shards: %s", queue_of(name), error)
        finally:
            del self._dropping[name]
            # The queue may have come back to this cut meanwhile.
            self.kick()

    async def _move(self) -> None:
        """Move some jobs, as often as the others leave it to this worker; the last one to look ends the reshard."""
        session, others = self._store.session, 1
        for queue in list(self._since):
            (count,) = await self._store.send([("HLEN", session.keys(session.first_shard(queue)).workers)])
            others = max(others, int(count or 0))
            await self._try(partial(self._store.drive, _move_some(self._store.session, queue)))
        self._move_at = time.monotonic() + _MOVE_S * others * random.uniform(0.5, 1.5)


def _move_some(session: Session, queue: str) -> Steps[None]:
    if not (yield from how_far(session, queue)).done:
        yield from move(session, queue)
        yield from how_far(session, queue)
