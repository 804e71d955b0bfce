"""One caller: who it is, its lanes, what it is in doubt about, and its estimate of the server's clock. Does no I/O."""

from __future__ import annotations

import secrets
from itertools import count

from zwheel.calls.call import Lane, Loan
from zwheel.calls.clock import ServerClock
from zwheel.calls.doubts import Doubts
from zwheel.keys import ShardKeys, shard_names, shard_number


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
        self._keys: dict[str, ShardKeys] = {}
        #: How many shards each queue has that this session has learned of.
        self.counts: dict[str, int] = {}
        #: How many shards a queue had that is being cut anew: jobs of those are on their way.
        self.former: dict[str, int] = {}
        #: Whether this user was seen to have the right to put a queue on the list of queues.
        self.may_list = False
        #: How long a server may take to confirm how safely it stored something, ms (`calls/waits.py`).
        self.confirm_ms = 1500
        #: Shards whose server is known to be able to, each with the command.
        self.confirms: set[tuple[str, str]] = set()
        #: Enqueues whose outcome the caller was not told.
        self.doubts = Doubts()

    def keys(self, shard: str) -> ShardKeys:
        """The keys of a shard, by its name. Raises: InvalidName."""
        keys = self._keys.get(shard)
        if keys is None:
            keys = self._keys[shard] = ShardKeys.of(self.namespace, shard)
        return keys

    def cut(self, queue: str) -> tuple[int | None, int | None]:
        """How many shards a queue has, and while it is cut anew how many it had; None: not that this session knows of."""
        return self.counts.get(queue), self.former.get(queue)

    def shards(self, queue: str) -> list[str]:
        """The names of a queue's shards, as far as this session knows: first those of a former cut, while there are any.

        Jobs move from those to the others, so who looks in this order misses none.
        """
        former = self.former.get(queue)
        here = shard_names(queue, self.counts.get(queue, 1))
        return here if former is None else [*shard_names(queue, former), *here]

    def first_shard(self, queue: str) -> str:
        """The name of the shard that has the list of a queue's workers."""
        return shard_names(queue, self.counts.get(queue, 1))[0]

    def shard_of(self, queue: str, job_id: str, digest: str = "") -> str:
        """The name of the shard in which a job is, by its id, and by the digest of its dedup key where it has one.

        An occurrence is in the shard of its schedule: what comes before the `@` decides.
        """
        return placed(queue, self.counts.get(queue, 1), job_id, digest)

    def former_shard_of(self, queue: str, job_id: str, digest: str = "") -> str | None:
        """The name of the shard in which it was in the former cut; None where there is none."""
        former = self.former.get(queue)
        return None if former is None else placed(queue, former, job_id, digest)

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


def placed(queue: str, count: int, job_id: str, digest: str = "") -> str:
    """The name of the shard in which a job is when its queue has so many."""
    if count == 1:
        return queue
    return f"{queue}/{shard_number(digest or job_id.partition('@')[0], count)}of{count}"
