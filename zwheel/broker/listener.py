"""The blocking connections that carry wake-up tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import redis.asyncio
from redis.exceptions import AskError, MovedError, RedisError

from zwheel.broker.address import parse_url
from zwheel.broker.cluster import MOST_HOPS, Node, node_of, slot_of, topology_of
from zwheel.broker.connect import connect_blocking, translate
from zwheel.errors import BrokerUnavailable
from zwheel.outside import as_text

#: What a token says that only calls for a look at the shard on whose list it lies.
LOOK = "1"


class Token(NamedTuple):
    """A wake-up token. Nothing of it is trusted: another program may write there."""

    list: str
    """The key of the list it came from."""
    says: str
    """`LOOK`, or the name of a shard that is to be looked at too."""


class Listener:
    """The blocking connection of one shard: carries wake-up tokens and nothing else."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._address = parse_url(url)
        self._topology = topology_of(url, self._address) if self._address.kind == "cluster" else None
        self._client: redis.asyncio.Redis | None = None if self._topology else connect_blocking(self._address)
        #: The node of a cluster that `_client` leads to.
        self._node: Node | None = None

    async def listen(self, keys: Sequence[str], timeout_s: float) -> Token | None:
        """Wait for a token; None when none came in time. Raises: BrokerError and its kinds.

        keys: lists of one shard, since a cluster lets nobody wait for those of several slots in one call.
        """
        try:
            async with asyncio.timeout(timeout_s + 10):
                if self._topology is not None:
                    return await self._follow(keys, timeout_s)
                return await self._wait(keys, timeout_s)
        except (RedisError, OSError, TimeoutError) as error:
            # A later reply on this connection may belong to the request that failed.
            await self._disconnect()
            if self._topology is not None and self._node is not None:
                self._topology.forget(self._node)
                self._node = None
            raise translate(error, self.url) from error

    async def _wait(self, keys: Sequence[str], timeout_s: float) -> Token | None:
        assert self._client is not None
        found = await self._client.execute_command("BLPOP", *keys, f"{timeout_s:.3f}")
        return None if found is None else Token(as_text(found[0]), as_text(found[1]))

    async def _follow(self, keys: Sequence[str], timeout_s: float) -> Token | None:
        """Wait at the node that has the lists."""
        assert self._topology is not None
        for _ in range(MOST_HOPS):
            node = self._topology.owner(slot_of(keys[0])) or self._topology.candidates()[0]
            await self._go_to(node)
            try:
                return await self._wait(keys, timeout_s)
            except MovedError as error:
                self._topology.moved(error, node)
            except AskError as error:
                await self._go_to(node_of(error.host, error.port, node))
                assert self._client is not None
                await self._client.execute_command("ASKING")
                return await self._wait(keys, timeout_s)
        raise BrokerUnavailable("the cluster is moving this queue from node to node; the request was not carried out")

    async def _go_to(self, node: Node) -> None:
        if node != self._node or self._client is None:
            await self.aclose()
            self._client, self._node = connect_blocking(self._address.at(*node)), node

    def interrupt(self) -> None:
        """End the wait that is under way, which raises, so that the next one connects anew: there may be another primary."""
        pool = None if self._client is None else self._client.connection_pool
        for connection in [] if pool is None else list(getattr(pool, "_in_use_connections", ())):
            writer = connection._writer
            if writer is not None:
                writer.transport.abort()

    async def _disconnect(self) -> None:
        if self._client is not None:
            await self._client.connection_pool.disconnect()

    async def aclose(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.aclose()
