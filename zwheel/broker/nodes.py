"""The connections to the nodes of a Redis Cluster: a pool for each node, and what carries `cluster.routed` over them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from redis.exceptions import RedisError

from zwheel.broker.address import Address
from zwheel.broker.cluster import Batch, Command, Node, routed, topology_of
from zwheel.broker.pool import Pool, SyncPool


class Nodes:
    """The connections of one event loop to all nodes; at most `most` to each of them."""

    def __init__(self, url: str, address: Address, timeout_s: float, most: int) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._most = most
        self._pools: dict[Node, Pool] = {}
        self._topology = topology_of(url, address)

    async def ask(self, commands: Sequence[Command], within_s: float) -> list[Any]:
        """Send commands to their nodes, side by side, and give the replies in order. Raises: as `routed`."""
        ends = time.monotonic() + within_s
        work = routed(self._topology, commands)
        try:
            batches = next(work)
            while True:
                if len(batches) == 1:
                    results = [await self._one(batches[0], ends)]
                else:
                    results = await asyncio.gather(*(self._one(batch, ends) for batch in batches))
                batches = work.send(results)
        except StopIteration as end:
            replies: list[Any] = end.value
            return replies

    async def _one(self, batch: Batch, ends: float) -> list[Any] | Exception:
        pool = self._pools.get(batch.node)
        if pool is None:
            pool = self._pools[batch.node] = Pool(self._address.at(*batch.node), self._timeout_s, self._most)
        try:
            return await pool.ask(batch.packed, len(batch.places), max(0.01, ends - time.monotonic()))
        except (RedisError, OSError, TimeoutError) as error:
            return error

    def distrust(self) -> None:
        """End every connection: one gave a reply that no script gives."""
        for pool in self._pools.values():
            pool.distrust()

    def abandon(self) -> None:
        """Let go of every connection: its event loop is gone, or is another process's."""
        for pool in self._pools.values():
            pool.abandon()

    async def aclose(self) -> None:
        """Close every connection."""
        while self._pools:
            await self._pools.popitem()[1].aclose()


class SyncNodes:
    """The same for threads. They ask one node after the other."""

    def __init__(self, url: str, address: Address, timeout_s: float, most: int) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._most = most
        self._pools: dict[Node, SyncPool] = {}
        self._topology = topology_of(url, address)

    @property
    def opened(self) -> int:
        """How many connections were opened so far."""
        return sum(pool.opened for pool in list(self._pools.values()))

    def ask(self, commands: Sequence[Command], within_s: float) -> list[Any]:
        """Send commands to their nodes and give the replies in order. Raises: as `routed`."""
        ends = time.monotonic() + within_s
        work = routed(self._topology, commands)
        try:
            batches = next(work)
            while True:
                batches = work.send([self._one(batch, ends) for batch in batches])
        except StopIteration as end:
            replies: list[Any] = end.value
            return replies

    def _one(self, batch: Batch, ends: float) -> list[Any] | Exception:
        pool = self._pools.get(batch.node)
        if pool is None:
            # Two threads may make it at the same time: the dict takes the first one, and none has connected yet.
            made = SyncPool(self._address.at(*batch.node), self._timeout_s, self._most)
            pool = self._pools.setdefault(batch.node, made)
        try:
            return pool.ask(batch.packed, len(batch.places), max(0.01, ends - time.monotonic()))
        except (RedisError, OSError, TimeoutError) as error:
            return error

    def close(self) -> None:
        """Close every idle connection; a connection in use ends with its request."""
        for pool in list(self._pools.values()):
            pool.close()
