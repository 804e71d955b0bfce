"""One caller: who it is, its lanes, what it is in doubt about, and its estimate of the server's clock. Does no I/O."""

from __future__ import annotations

import secrets
from itertools import count

from zwheel.calls.call import Lane, Loan
from zwheel.calls.clock import ServerClock
from zwheel.calls.doubts import Doubts
from zwheel.keys import ShardKeys


class Session:
    """One caller's identity and its lanes, and its estimate of the server's clock. Does no I/O."""

    def __init__(self, namespace: str, caller: str | None = None) -> None:
        self.namespace = namespace
        self.caller = caller or secrets.token_hex(6)
        self.clock = ServerClock()
        #: Tests put the server's time in µs here; '' lets the server read its own clock.
        self.now = ""
        self._requests = count(1)
        self._free: list[int] = []
        self._lanes = count()
        self._shards: dict[str, ShardKeys] = {}
        #: Whether this user was seen to have the right to put a queue on the list of queues.
        self.may_list = False
        #: Enqueues whose outcome the caller was not told.
        self.doubts = Doubts()

    def keys(self, queue: str) -> ShardKeys:
        """The keys of a queue's first shard. Raises: InvalidName."""
        keys = self._shards.get(queue)
        if keys is None:
            keys = self._shards[queue] = ShardKeys.of(self.namespace, queue)
        return keys

    def lane(self) -> Loan:
        """Lend a lane for one request and its repeats: `with session.lane() as lane`."""
        try:
            number = self._free.pop()
        except IndexError:  # asked, not looked: another thread may take the last one in between
            number = next(self._lanes)
        return Loan(self._free, Lane(self.caller, number, self.request()))

    def request(self) -> str:
        """Make a request id that this session never used before."""
        return str(next(self._requests))
