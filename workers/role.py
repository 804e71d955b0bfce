"""The role that a worker has in one shard: taken with a claim, laid down when there is no room, and then seen to be taken by
another.
"""

from __future__ import annotations

import asyncio

from zwheel import calls
from zwheel.broker.store import Store
from zwheel.calls import Call, Lane
from zwheel.errors import BrokerError
from zwheel.keys import ShardKeys
from zwheel.outside import escaped

from .looks import lasts

log = escaped("zwheel.worker")

#: How soon, and how often, a worker without room looks whether the role that it laid down was taken.
_HAND_ON_S = 0.3
_HAND_ON_TRIES = 5


class Role:
    """That of one poller."""

    def __init__(self, store: Store, keys: ShardKeys, worker: str) -> None:
        self._store = store
        self._keys = keys
        self._worker = worker
        #: What the last claim answered: timekeeper | second | follower | none.
        self.name = "none"
        #: The role that was laid down and may still be free, and how often it was looked at.
        self._left = ""
        self._looked = 0

    @property
    def keeps(self) -> bool:
        """Whether others rely on this worker: it keeps time, or is the second."""
        return self.name in ("timekeeper", "second")

    @property
    def left(self) -> bool:
        """Whether a role was laid down that may still be free."""
        return self._left != ""

    def answered(self, name: str, *, full: bool) -> bool:
        """Take in the role that a claim answered; a full one laid down what there was. Returns whether it is a new one to keep."""
        self._left, self._looked = (self.name, 0) if self.keeps and full else ("", 0)
        new = name != self.name
        self.name = name
        return new and self.keeps

    def step_down(self) -> Call:
        """Lay the role down, with a call to be sent now."""
        session = self._store.session
        lane = Lane(self._worker, "claim", session.request())
        self._left, self.name, self._looked = self.name, "none", 0
        return calls.step_down(self._keys, self._worker, lane=lane, now=session.now)

    async def resign(self) -> None:
        """Leave the role to another at once: jobs may run here for long after the last claim."""
        try:
            await self._store.send([self.step_down()])
        except BrokerError as error:
            log.info(
                "queue %s: cannot hand on the role of timekeeper, which ends by itself: %s", self._keys.name, error
            )

    async def see_it_taken(self, kicked: asyncio.Event) -> None:
        """Wait for room. Call another when nobody took the role laid down: a frozen worker may have had the token."""
        try:
            async with asyncio.timeout(_HAND_ON_S):
                await kicked.wait()
                return
        except TimeoutError:
            end = "keeper_end" if self._left == "timekeeper" else "second_end"
        self._looked += 1
        try:
            asks = [("HGET", self._keys.meta, end), ("LLEN", self._keys.wake)]
            ends, tokens = await self._store.send(asks)
            # A token that lies there means that nobody listens: all that do have as little room as we have.
            taken = tokens or lasts(ends, self._store.session.clock)
            if not taken:
                await self._store.send([("RPUSH", self._keys.wake, "1")])
        except (BrokerError, ValueError) as error:
            log.info(
                "queue %s: cannot wake another worker for the role that this one laid down: %s", self._keys.name, error
            )
        else:
            if taken or self._looked >= _HAND_ON_TRIES:
                self._left = ""
