"""The Redis of a run, what is done to it, and how it is known which confirmed writes it lost."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from tests.servers import RedisServer

from .fleet import LEASE_S

Note = Callable[..., None]
"""Writes a fault with its window to the history: kind, from µs, to µs, and further facts."""

#: The probe lies in a database of its own, where no key of a queue is.
_PROBE_DB = 1
_PROBE = "chaos:probe"
_PROBE_EVERY_S = 0.03
_BUSY_MS = 100
#: What the server's log says when it found a torn tail.
_TRUNCATED = "Truncating the AOF"
_SPIN = """
local function now() local t = redis.call('TIME') return t[1] * 1000 + math.floor(t[2] / 1000) end
local ends = now() + tonumber(ARGV[1])
while now() < ends do end
return 'ok'
"""

T = TypeVar("T")


def now_us() -> int:
    """The wall clock, which is the server's too: both run on this machine."""
    return time.time_ns() // 1000


class Target:
    """The server under test.

    A probe writes the time to it every 30 ms. The AOF keeps its order, so that after a restart the probe tells until
    when every write is kept: what lies between that time and the kill may be lost.
    """

    def __init__(self, binary: Path, directory: Path, note: Note) -> None:
        self._note = note
        self._server = RedisServer(
            binary, directory, appendonly=True,
            arguments=("--appendfsync", "everysec", "--busy-reply-threshold", str(_BUSY_MS), "--maxclients", "2000"),
        )  # fmt: skip
        self.socket = self._server.socket
        self.url = self._server.url
        self._client = redis.asyncio.Redis(
            unix_socket_path=str(self.socket), socket_timeout=10, retry=Retry(NoBackoff(), 0), protocol=2
        )
        self._probing: asyncio.Task[None] | None = None
        self._written = 0
        self._may_probe = asyncio.Event()
        self._may_probe.set()
        #: Windows in which confirmed writes were lost, µs.
        self.losses: list[tuple[int, int]] = []

    def acts(self) -> dict[str, Callable[[random.Random], Awaitable[str | None]]]:
        """What can be done to it, by the name of the fault."""
        return {
            "redis-kill": lambda rng: self.kill(rng.uniform(0.0, 1.0)),
            "redis-away": lambda rng: self.kill(rng.uniform(2.2, 2.8) * LEASE_S),
            "redis-stop": lambda rng: self.stop(rng.uniform(0.3, 2.0) * LEASE_S),
            "redis-cut": lambda rng: self.kill(rng.uniform(0.0, 0.5), cut_size(rng)),
            "redis-busy": lambda rng: self.busy(rng.uniform(0.3, 1.5)),
            "redis-full": lambda rng: self.full(rng.uniform(0.3, 1.5)),
            "script-flush": lambda rng: self.flush_scripts(),
            "client-kill": lambda rng: self.kill_clients(),
        }

    async def start(self) -> None:
        """Start it and the probe."""
        await asyncio.to_thread(self._server.start)
        self._probing = asyncio.create_task(self._probe())

    async def close(self) -> None:
        """End the probe and the server. What its directory holds stays."""
        while self._probing is not None and not self._probing.done():
            # A client may take a cancellation for the end of its own time limit.
            self._probing.cancel()
            await asyncio.wait([self._probing], timeout=1.0)
        await self._client.aclose()
        await asyncio.to_thread(self._server.kill)

    async def _probe(self) -> None:
        client = redis.asyncio.Redis(
            unix_socket_path=str(self.socket), db=_PROBE_DB, socket_timeout=10, retry=Retry(NoBackoff(), 0), protocol=2
        )
        try:
            while True:
                await self._may_probe.wait()
                with suppress(RedisError, OSError):
                    at = now_us()
                    await client.set(_PROBE, at)
                    self._written = at
                await asyncio.sleep(_PROBE_EVERY_S)
        finally:
            await client.aclose()

    async def _kept_until(self) -> int:
        client = redis.asyncio.Redis(unix_socket_path=str(self.socket), db=_PROBE_DB, protocol=2)
        async with client:
            return int(await client.get(_PROBE) or 0)

    async def ready(self, within_s: float = 20.0) -> bool:
        """Wait until it answers; False when it does not in time."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            with suppress(RedisError, OSError):
                await self._client.ping()
                return True
            await asyncio.sleep(0.02)
        return False

    async def kill(self, away_s: float, cut_bytes: int = 0) -> str:
        """Kill it, cut the tail of its AOF, let it be away for a while, and start it again."""
        with suppress(RedisError, OSError):
            await self._client.ping()
        self._may_probe.clear()
        written = self._written
        try:
            await asyncio.to_thread(self._server.kill)
            killed = now_us()
            cut = _cut_tail(self._server.directory, cut_bytes) if cut_bytes else 0
            await asyncio.sleep(away_s)
            await self._restart()
            kept = await self._kept_until()
            await self.ready()
        finally:
            self._may_probe.set()
        self._note("redis_down", killed, now_us())
        if cut_bytes:
            self.losses.append((kept, killed))
            self._note("aof_cut", kept, killed, bytes=cut)
            return f"{cut} bytes cut, up to {(killed - kept) / 1000:.0f} ms lost"
        # Redis puts a write off while an fsync is under way, and answers nevertheless. What came after the last write that
        # is known to be kept may be lost by that, though it be a few ms.
        self.losses.append((kept, killed))
        self._note("loss", kept, killed, why="a write was put off while an fsync was under way")
        if kept < written:
            return f"away {away_s:.1f} s; it had put off writes of {(killed - kept) / 1000:.0f} ms"
        return f"away {away_s:.1f} s, nothing lost but perhaps of the last {(killed - kept) / 1000:.0f} ms"

    async def _restart(self) -> None:
        """Start it again. An AOF whose tail was torn is written anew before the next kill.

        Redis (7.0 at least, Valkey before 9.1) cuts a tail that ends in the middle of a command off after the command
        before it, also inside MULTI, and appends to that. The start after the next one then reads an open MULTI: writes
        that follow it are gone, and half a script is carried out. No queue can mend that; a rewrite avoids it.
        """
        log = self._server.directory / "log"
        before = log.read_text(encoding="utf-8", errors="replace").count(_TRUNCATED)
        await asyncio.to_thread(self._server.start)
        await self.ready()
        if log.read_text(encoding="utf-8", errors="replace").count(_TRUNCATED) == before:
            return
        await again(self._client.bgrewriteaof)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            info = await self._client.info("persistence")
            if not info["aof_rewrite_in_progress"] and not info["aof_rewrite_scheduled"]:
                return
            await asyncio.sleep(0.05)

    async def stop(self, seconds: float) -> str:
        """Stop its execution for a while."""
        began = now_us()
        self._server.freeze()
        try:
            await asyncio.sleep(seconds)
        finally:
            self.wake()
        await self.ready()
        self._note("redis_stop", began, now_us())
        return f"for {seconds:.1f} s"

    def wake(self) -> None:
        """Let it go on, if it was stopped."""
        if self._server.running:
            os.kill(self._server.pid, signal.SIGCONT)

    async def busy(self, seconds: float) -> str:
        """Let a foreign script hold it: others are answered BUSY after 0.1 s."""
        began = now_us()
        await self._client.eval(_SPIN, 0, str(int(seconds * 1000)))
        self._note("redis_busy", began, now_us())
        return f"for {seconds:.1f} s"

    async def full(self, seconds: float) -> str:
        """Let it be full for a while: whatever grows is refused."""
        began = now_us()
        # Another fault may hold the server with a script at this moment.
        used = int((await again(lambda: self._client.info("memory")))["used_memory"])
        await again(lambda: self._client.config_set("maxmemory", max(1, int(used * 0.8))))
        try:
            await asyncio.sleep(seconds)
        finally:
            await again(lambda: self._client.config_set("maxmemory", 0))
        self._note("redis_full", began, now_us())
        return f"for {seconds:.1f} s"

    async def flush_scripts(self) -> str:
        """Let it forget every script."""
        await self._client.script_flush()
        return ""

    async def kill_clients(self) -> str:
        """End every connection but the connection that asks for it."""
        began = now_us()
        ended = await self._client.execute_command("CLIENT", "KILL", "TYPE", "normal")
        self._note("client_kill", began, now_us())
        return f"{int(ended)} connections"

    async def heal(self) -> None:
        """Undo what may still be in force."""
        self.wake()
        if not self._server.running:
            await asyncio.to_thread(self._server.start)
        await self.ready()
        await again(lambda: self._client.config_set("maxmemory", 0))


async def again(act: Callable[[], Awaitable[T]]) -> T:
    """Do something until it succeeds, 20 s at the most."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return await act()
        except (RedisError, OSError):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)


def _cut_tail(directory: Path, count: int) -> int:
    """Cut bytes off the end of the newest increment of the AOF. Returns how many."""
    found = list((directory / "appendonlydir").glob("*.incr.aof"))
    newest = max(found, key=lambda path: int(path.name.split(".")[-3]))
    size = newest.stat().st_size
    cut = min(count, size)
    os.truncate(newest, size - cut)
    return cut


def cut_size(rng: random.Random) -> int:
    """How much to cut: from a few bytes of one command to some hundred calls."""
    return int(10 ** rng.uniform(0.9, 5.2))
