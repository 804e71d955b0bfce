"""Settles from beside the event loop: while a task blocks it, the heartbeat's thread sends what needs no loop."""

from __future__ import annotations

import asyncio
from typing import Any

from zwheel.broker.store import SyncStore
from zwheel.calls import Call, word
from zwheel.errors import BrokerError

from .asks import GONE_MS
from .claims import Claim, Stop
from .runner import Runner
from .settler import Read

#: Its lanes, beside those of the event loop: each carries one request at a time.
_LANES = "beside-"


class Beside:
    """Belongs to the heartbeat's thread. What gets no answer is sent again as it is, also when the loop turns again."""

    def __init__(self, store: SyncStore, runner: Runner, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._runner = runner
        self._loop = loop
        #: What was sent and got no answer yet, by the shard that it belongs to: the others go on.
        self._under_way: dict[str, list[tuple[Call, Read]]] = {}
        #: Set when the process is about to end: one element, the claim that blocks the loop, or None.
        self._leaving: tuple[Claim | None, ...] = ()
        self._left = False

    @property
    def owes(self) -> bool:
        """Whether something was sent that got no answer."""
        return bool(self._under_way)

    def abandon(self, culprit: Claim | None) -> None:
        """Give back what runs with the next round trip, since the process is about to end. Called by the watchdog."""
        self._leaving = (culprit,)

    def in_threads(self) -> bool:
        """Whether functions still run in threads, which need no event loop to end."""
        return any(claim.thread and not claim.returned and not claim.ended for claim in list(self._runner.held))

    def settled(self) -> bool:
        """Whether all that ended was sent and answered, or is under way from the loop."""
        waiting = any(settler.waiting for settler in self._runner.held.copy().values())
        return not (self._leaving or self._under_way or waiting)

    def settle(self) -> None:
        """Send what ended, what has not started and what is past its timeout, in one round trip. Raises: BrokerError."""
        for claim, settler in self._runner.held.copy().items():
            if claim.queue not in self._under_way:
                self._runner.rescue(claim, settler)
        if self._leaving and not self._left:
            self._abandon(self._leaving[0])
            self._left = True
        settlers = {claim.queue: settler for claim, settler in self._runner.held.copy().items()}
        for queue, settler in settlers.items():
            if queue not in self._under_way and (taken := settler.take(_LANES)):
                self._under_way[queue] = taken
        if self._under_way:
            self._exchange()
        if self._left:
            self._leaving = ()

    def _abandon(self, culprit: Claim | None) -> None:
        """Give back what runs: all but the claim that blocks the loop.

        Its attempt counts: its lease runs out. When nobody knows whose code blocks it, that is so for every job of the
        loop.
        """
        for claim, settler in self._runner.held.copy().items():
            if not claim.ended and claim is not culprit and (claim.thread or culprit is not None):
                claim.stop = Stop.DRAIN
                settler.release(claim, GONE_MS if claim.in_thread else None)

    def _exchange(self) -> None:
        batch = [(queue, call, read) for queue, sent in self._under_way.items() for call, read in sent]
        replies = self._store.send([call for _, call, _ in batch], each=True)
        self._under_way = {}
        refused: BrokerError | None = None
        for (queue, call, read), reply in zip(batch, replies, strict=True):
            if isinstance(reply, BrokerError):
                refused = reply
                self._under_way.setdefault(queue, []).append((call, read))
            elif word(reply) == "moved":
                # The day changed: it waits in the settler again, and goes out with the next round trip.
                read(reply)
            else:
                self._tell(read, reply)
        if refused is not None:
            raise refused

    def _tell(self, read: Read, reply: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(read, reply)
