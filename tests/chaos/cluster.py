"""A cluster of three primaries with a replica each, what is done to it, and which confirmed writes its failovers lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from tests.groups import Cluster, wait_until
from tests.servers import RedisServer
from zwheel.broker.cluster import slot_of
from zwheel.keys import ShardKeys, shard_names

from .app import CUTS, NAMESPACE, QUEUES, SHARDS
from .fleet import LEASE_S
from .server import Note, again, now_us

_PROBE_EVERY_S = 0.03
#: How long a node may go on after it was told to stop, µs.
_STOPS_US = 5_000
#: How long all nodes may take to agree again, seconds.
_WHOLE_S = 60.0


class _Part:
    """A third of the slots: who has them, and what is written there to know what a failover kept."""

    def __init__(self, number: int, owner: RedisServer) -> None:
        self.owner = owner
        # The first key of such a name that lies there.
        self.probe = next(key for n in range(1000) if slot_of(key := f"chaos:probe:{n}") * 3 // 16384 == number)


class ClusterTarget:
    """The cluster under test.

    A probe in each third of the slots writes the time every 30 ms. A replica gets the writes of its primary in their
    order, so that after a failover the probe tells until when every write is kept.
    """

    def __init__(self, binary: Path, directory: Path, note: Note) -> None:
        self._note = note
        self._cluster = Cluster(binary)
        self.url = self._cluster.url
        self._clients = {
            node: redis.asyncio.Redis(
                unix_socket_path=str(node.socket), socket_timeout=10, retry=Retry(NoBackoff(), 0), protocol=2
            )
            for node in self._cluster.nodes
        }
        #: The slot of each shard, by its name; also of the shards into which a queue may be cut anew.
        self._slots = {
            name: slot_of(ShardKeys.of(NAMESPACE, name).tag)
            for queue in QUEUES
            for count in (CUTS if queue in SHARDS else (1,))
            for name in shard_names(queue, count)
        }
        self._parts: list[_Part] = []
        self._probing: list[asyncio.Task[None]] = []
        #: Windows in which confirmed writes were lost, µs.
        self.losses: list[tuple[int, int]] = []

    def acts(self) -> dict[str, Callable[[random.Random], Awaitable[str | None]]]:
        """What can be done to it, by the name of the fault."""
        return {
            "primary-kill": self._kill,
            "replica-kill": self._kill_replica,
            "node-stop": self._stop,
            "slot-move": self._move,
            "script-flush": lambda rng: self._each("SCRIPT", "FLUSH"),
            "client-kill": self._kill_clients,
        }

    async def start(self) -> None:
        """Start all, lay shards on each primary, and start the probes."""
        await asyncio.to_thread(self._cluster.start)
        nodes = self._cluster.nodes
        for number, slot in enumerate(self._slots.values()):
            target = nodes[number % 3]
            if await self._owner(slot) is not target:
                await self._lay(slot, target)
        self._parts = [_Part(number, nodes[number]) for number in range(3)]
        self._probing = [asyncio.create_task(self._probe(part)) for part in self._parts]

    async def close(self) -> None:
        """End the probes and all nodes."""
        while going_on := [task for task in self._probing if not task.done()]:
            # A client may take a cancellation for the end of its own time limit.
            for task in going_on:
                task.cancel()
            await asyncio.wait(going_on, timeout=1.0)
        for client in self._clients.values():
            await client.aclose()
        await asyncio.to_thread(self._cluster.close)

    async def heal(self) -> None:
        """Undo what may still be in force."""
        for node in self._cluster.nodes:
            if node.running:
                node.thaw()
            else:
                await asyncio.to_thread(node.start)
        await self._whole()

    async def _probe(self, part: _Part) -> None:
        while True:
            with suppress(RedisError, OSError):
                await self._clients[part.owner].set(part.probe, now_us())
            await asyncio.sleep(_PROBE_EVERY_S)

    async def _owner(self, slot: int) -> RedisServer:
        return await asyncio.to_thread(self._cluster.owner, slot)

    async def _whole(self) -> None:
        await asyncio.to_thread(self._cluster.wait_whole, _WHOLE_S)

    async def _queues(self, node: RedisServer) -> list[str]:
        """The shards that lie on a node."""
        return [name for name, slot in self._slots.items() if await self._owner(slot) is node]

    async def _failed_over(self, part: _Part, queues: list[str], *windows: tuple[int, int]) -> str:
        """A replica took over: what was written in these windows may be gone, from the last write on that is kept."""
        owner = await self._owner(slot_of(part.probe))
        kept = int(await again(lambda: self._clients[owner].get(part.probe)) or 0)
        # From here on the probe writes there.
        part.owner = owner
        lost = [(max(since, kept), until) for since, until in windows if until > kept]
        for window in lost:
            self.losses.append(window)
            self._note("failover", *window, queues=queues, replicas=1)
        return f"up to {sum(until - since for since, until in lost) / 1000:.0f} ms lost"

    async def _kill(self, rng: random.Random) -> str:
        part = rng.choice(self._parts)
        node, queues = part.owner, await self._queues(part.owner)
        await asyncio.to_thread(node.kill)
        killed = now_us()
        slot = slot_of(part.probe)
        # One that was started before would take up its slots again, and has nothing: it keeps nothing on its disk.
        await asyncio.to_thread(wait_until, lambda: self._cluster.owner(slot), "the replica takes over", _WHOLE_S)
        self._note("redis_down", killed, now_us(), queues=queues)
        told = await self._failed_over(part, queues, (0, killed))
        await asyncio.sleep(rng.uniform(0.0, 2.0))
        await asyncio.to_thread(node.start)
        await self._whole()
        return told

    async def _kill_replica(self, rng: random.Random) -> str:
        primaries = {part.owner for part in self._parts}
        node = rng.choice([node for node in self._cluster.nodes if node not in primaries])
        await asyncio.to_thread(node.kill)
        await asyncio.sleep(rng.uniform(0.0, 2.0))
        await asyncio.to_thread(node.start)
        await self._whole()
        return ""

    async def _stop(self, rng: random.Random) -> str:
        """Stop a primary. One that wakes when another has its place may still confirm what it is asked for, and lose it."""
        part = rng.choice(self._parts)
        node, queues = part.owner, await self._queues(part.owner)
        seconds = rng.uniform(0.2, 2.0) * LEASE_S
        began = now_us()
        node.freeze()
        stopped = now_us() + _STOPS_US
        try:
            await asyncio.sleep(seconds)
        finally:
            woken = now_us()
            node.thaw()
        whole = asyncio.create_task(self._whole())
        demoted = 0
        while not whole.done():
            with suppress(RedisError, OSError):
                role: Any = await self._clients[node].role()
                demoted = demoted or (now_us() if role[0] == b"slave" else 0)
            await asyncio.sleep(0.02)
        await whole
        self._note("redis_stop", began, now_us(), queues=queues)
        if not demoted:
            return f"for {seconds:.1f} s"
        return f"for {seconds:.1f} s, {await self._failed_over(part, queues, (0, stopped), (woken, demoted))}"

    async def _move(self, rng: random.Random) -> str:
        name, slot = rng.choice(list(self._slots.items()))
        source = await self._owner(slot)
        target = rng.choice([part.owner for part in self._parts if part.owner is not source])
        began = now_us()
        await self._lay(slot, target, pause_s=rng.uniform(0.0, 0.05))
        self._note("slot_move", began, now_us(), queues=[name])
        return f"{name} in {(now_us() - began) / 1000:.0f} ms"

    async def _lay(self, slot: int, target: RedisServer, pause_s: float = 0.0) -> None:
        """Move a slot, and return when all nodes know it and the replicas have what was moved."""
        await asyncio.to_thread(self._cluster.move, slot, target, pause_s=pause_s)
        await asyncio.to_thread(
            wait_until, lambda: self._cluster.agree(slot, target), "all nodes know where the slot is", _WHOLE_S
        )

    async def _each(self, *words: str) -> str:
        for client in self._clients.values():
            await again(lambda client=client: client.execute_command(*words))  # type: ignore[misc]
        return ""

    async def _kill_clients(self, rng: random.Random) -> str:
        began = now_us()
        await self._each("CLIENT", "KILL", "TYPE", "normal")
        self._note("client_kill", began, now_us())
        return ""
